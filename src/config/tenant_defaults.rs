//! The section `tenant_defaults`: the keys of tenants that do not have them, and the texts in it
//! that stand for parts of each tenant. A key is taken as a whole: nothing is merged.

use super::Check;
use super::field::Field;
use super::file::{self, SecretSource};
use super::finding::Noted;
use super::place::{Defaults, Place, TENANT_DEFAULTS, quoted};

/// The section as far as it could be read.
pub(super) struct TenantDefaults<'n> {
    given: Option<(Defaults<'n>, Result<file::Tenant, Noted>)>,
}

impl<'n> TenantDefaults<'n> {
    /// The section, for the place of a tenant.
    pub(super) fn section(&self) -> Option<Defaults<'n>> {
        self.given.as_ref().map(|(section, _)| *section)
    }

    /// The keys of `own`, which is read at `at`, and those of the section that it does not have.
    ///
    /// # Errors
    /// When the section could not be read.
    pub(super) fn complete(
        &self,
        at: &Place<'_>,
        name: &str,
        own: file::Tenant,
    ) -> Result<file::Tenant, Noted> {
        let Some((_, defaults)) = &self.given else { return Ok(own) };
        let defaults = defaults.as_ref().map_err(|noted| *noted)?;
        macro_rules! complete {
            ($($key:ident),*) => {
                file::Tenant {
                    $($key: if at.has_own(stringify!($key)) {
                        own.$key
                    } else {
                        defaults.$key.clone()
                    }),*
                }
            };
        }
        let mut complete = complete!(
            server,
            site,
            hosts,
            cors,
            embed,
            limits,
            credential,
            existing_authorization,
            max_token_lifetime,
            max_concurrent_requests,
            disabled
        );
        let fill = |text: &mut String, site: Option<&str>| {
            if text.contains('{') {
                *text = text.replace(TENANT, name);
                if let Some(site) = site {
                    *text = text.replace(SITE, site);
                }
            }
        };
        if let (false, Field::Given(site)) = (at.has_own("site"), &mut complete.site) {
            fill(site, None);
        }
        let site = complete.site.as_ref().given().cloned();
        if let (false, Field::Given(hosts)) = (at.has_own("hosts"), &mut complete.hosts) {
            let hosts = hosts.iter_mut().filter_map(Field::as_mut);
            hosts.for_each(|host| fill(host, site.as_deref()));
        }
        if let (false, Field::Given(credential)) =
            (at.has_own("credential"), &mut complete.credential)
        {
            texts(credential).for_each(|(_, text)| fill(text, site.as_deref()));
        }
        Ok(complete)
    }
}

impl Check<'_> {
    /// The section, whose own faults are noted once.
    pub(super) fn tenant_defaults<'n>(
        self,
        root: &Place<'n>,
        section: Field<file::Tenant>,
    ) -> TenantDefaults<'n> {
        let at = root.key(TENANT_DEFAULTS);
        let given = match (section.optional(), at.as_defaults()) {
            (Ok(None), _) | (_, None) => None,
            (read, Some(section)) => {
                let read = read.and_then(|section| {
                    let mut section = section.ok_or_else(Noted::before)?;
                    self.marks(&at, &mut section)?;
                    Ok(section)
                });
                Some((section, read))
            }
        };
        TenantDefaults { given }
    }

    /// Notes marks that stand for nothing.
    fn marks(self, at: &Place<'_>, section: &mut file::Tenant) -> Result<(), Noted> {
        let check = |at: &Place<'_>, text: &str, accepted: &str| match unknown_mark(text, accepted)
        {
            None => Ok(()),
            Some(mark) => {
                let problem = format!("found {}, which stands for nothing here", quoted(&mark));
                Err(self.notes.add(at.finding_in(&mark, problem, accepted)))
            }
        };
        let mut checked = Ok(());
        if let Field::Given(site) = &section.site {
            checked = check(&at.key("site"), site, ONLY_TENANT);
        }
        if let Field::Given(hosts) = &section.hosts {
            for (index, host) in hosts.iter().enumerate() {
                let host = host.as_ref().given().map_or("", String::as_str);
                checked = checked.and(check(&at.key("hosts").item(index), host, BOTH));
            }
        }
        if let Field::Given(credential) = &mut section.credential {
            let at = at.key("credential");
            for (of, text) in texts(credential) {
                checked = checked.and(check(&of.place(&at), text, BOTH));
            }
        }
        checked
    }
}

/// The key of a text of a credential.
#[derive(Clone, Copy)]
enum TextKey {
    /// The text itself.
    Own(&'static str),
    /// The path of a secret.
    File(&'static str),
    /// The path of a secret in a list.
    FileInList(&'static str, usize),
}

impl TextKey {
    /// The place of the text below that of the credential.
    fn place<'n>(self, credential: &Place<'n>) -> Place<'n> {
        match self {
            Self::Own(key) => credential.key(key),
            Self::File(key) => credential.key(key).key("file"),
            Self::FileInList(key, index) => credential.key(key).item(index).key("file"),
        }
    }
}

/// The texts of a credential that may have marks: names and paths, and no secret.
fn texts(credential: &mut file::Credential) -> impl Iterator<Item = (TextKey, &mut String)> {
    let file::Credential {
        username,
        client_id,
        client_secret,
        token,
        embed_secret,
        embed_secrets,
        password,
        ..
    } = credential;
    let both = embed_secrets.as_mut().into_iter().flatten().enumerate();
    let both = both.map(|(index, source)| (TextKey::FileInList("embed_secrets", index), source));
    let sources = [
        (TextKey::File("client_secret"), client_secret),
        (TextKey::File("token"), token),
        (TextKey::File("embed_secret"), embed_secret),
        (TextKey::File("password"), password),
    ];
    let sources = sources.into_iter().chain(both);
    let paths = sources.filter_map(|(key, source)| match source.as_mut()? {
        SecretSource::File(path) => Some((key, path)),
        SecretSource::Env(_) => None,
    });
    let names = [(TextKey::Own("username"), username), (TextKey::Own("client_id"), client_id)];
    names.into_iter().filter_map(|(key, name)| Some((key, name.as_mut()?))).chain(paths)
}

/// The first text in braces that is not among the `accepted` ones.
fn unknown_mark(text: &str, accepted: &str) -> Option<String> {
    let begun = text.split('{').skip(1);
    begun.map(|rest| rest.find('}').map_or(rest, |end| &rest[..end])).find_map(|name| {
        let mark = format!("{{{name}}}");
        (!accepted.contains(&format!("`{mark}`"))).then_some(mark)
    })
}

const TENANT: &str = "{tenant}";
const SITE: &str = "{site}";
const ONLY_TENANT: &str = "`{tenant}`";
const BOTH: &str = "`{tenant}`, `{site}`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_stands_for_nothing_is_found() {
        for (text, accepted, expected) in [
            ("/run/{tenant}/{site}", BOTH, None),
            ("/run/{site}", ONLY_TENANT, Some("{site}")),
            ("/run/{tenant}{name}", BOTH, Some("{name}")),
            ("/run/{tenant", BOTH, None),
            ("/run/{}", BOTH, Some("{}")),
            ("plain", BOTH, None),
        ] {
            assert_eq!(unknown_mark(text, accepted).as_deref(), expected, "{text}");
        }
    }
}
