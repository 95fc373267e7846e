//! The section `cors` of a tenant: the origins whose web pages may use it.

use std::collections::HashSet;

use crate::cors::{OriginFault, Origins, WebOrigin};

use super::Check;
use super::field::{Field, some};
use super::file;
use super::finding::Noted;
use super::place::Place;

impl Check<'_> {
    /// The origins whose pages may use a tenant; empty if not given.
    pub(super) fn origins(self, at: &Place<'_>, cors: Field<file::Cors>) -> Result<Origins, Noted> {
        let Some(cors) = cors.optional()? else { return Ok(Origins::default()) };
        let at = at.key("origins");
        let origins = cors.origins.required(&at, "a list of origins", self.notes)?;
        let mut known = HashSet::new();
        some(origins, &at, "at least one origin", self.notes, |at, text| {
            let origin = WebOrigin::parse(&text).map_err(|fault| {
                let finding = at.finding(format!("found {fault}"), ORIGIN);
                self.notes.add(finding.hint_if(hint(&fault)))
            })?;
            if !known.insert(origin) {
                let problem = "found the same origin again";
                return Err(self.notes.add(at.finding(problem, "each origin once")));
            }
            Ok(())
        })?;
        Ok(known.into_iter().collect())
    }
}

/// A hint on the origin that was most likely meant.
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
