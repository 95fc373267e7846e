//! The section `cors` of a tenant: the origins whose web pages may use it.

use std::collections::HashSet;

use crate::cors::{OriginFault, Origins, WebOrigin};

use super::Check;
use super::field::Field;
use super::file;
use super::place::Place;

impl Check<'_> {
    /// The origins whose pages may use a tenant; none if not given.
    pub(super) fn origins(self, at: &Place<'_>, cors: Field<file::Cors>) -> Option<Origins> {
        let cors = match cors {
            Field::Missing => return Some(Origins::default()),
            Field::Faulty => return None,
            Field::Given(cors) => cors,
        };
        let at = at.key("origins");
        let origins = cors.origins.required(&at, "a list of origins", self.notes)?;
        if origins.is_empty() {
            self.notes.add(at.finding("found an empty list", "at least one origin"));
            return None;
        }
        let (mut known, mut faulty) = (HashSet::new(), false);
        for (index, text) in origins.into_iter().enumerate() {
            let parsed = text.given().map(|text| WebOrigin::parse(&text));
            match parsed {
                Some(Ok(origin)) if known.contains(&origin) => {
                    let at = at.item(index);
                    self.notes.add(at.finding("found the same origin again", "each origin once"));
                    faulty = true;
                }
                Some(Ok(origin)) => drop(known.insert(origin)),
                Some(Err(fault)) => {
                    let finding = at.item(index).finding(format!("found {fault}"), ORIGIN);
                    self.notes.add(match hint(&fault) {
                        Some(hint) => finding.hint(hint),
                        None => finding,
                    });
                    faulty = true;
                }
                None => faulty = true,
            }
        }
        (!faulty).then(|| known.into_iter().collect())
    }
}

/// What to write in the place of what is no origin.
fn hint(fault: &OriginFault) -> Option<String> {
    let hint = match fault {
        OriginFault::Path(origin) | OriginFault::Scheme(origin) => {
            return origin.as_ref().map(|origin| format!("write `{origin}`"));
        }
        OriginFault::UserInfo => "write it without what stands before the `@`",
        OriginFault::Wildcard => {
            "list each origin by itself: the pages of each can act with the tenant's token"
        }
        OriginFault::Null => {
            "files and sandboxed frames of anybody have this origin: serve the page from a host"
        }
        OriginFault::Host => {
            "write the host as browsers do: names in ASCII (`xn--…`) without a dot at the end, \
             addresses in full, those of IPv6 in brackets"
        }
    };
    Some(hint.to_owned())
}

const ORIGIN: &str = "scheme and host, and the port if it is not the scheme's own, such as \
                      `https://app.example` or `http://localhost:3000`";
