//! Remedies for a failed exchange, with the values that this run knows. Other failures have the
//! hint of the log.

use std::net::IpAddr;
use std::path::Path;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::boldbi::{ConnectionFault, Probe, hint, hint_in_rotation};
use crate::run::named_unfinished_rotation;
use crate::secret_file::ResumeCommand;
use crate::tenant::{Grant, Tenant};
use crate::token::{ExchangeError, ExchangeErrorKind};

/// The facts that earlier steps found.
pub(super) struct RunFacts<'k> {
    pub(super) probe: &'k Probe,
    /// The address of this machine in connections with the server.
    pub(super) own_address: Option<IpAddr>,
    /// The file of the secret that was tried instead of the configured one.
    pub(super) new_secret: Option<&'k Path>,
    /// The command that ends an unfinished rotation.
    pub(super) resume: &'k ResumeCommand,
}

/// The fault and its remedy.
pub(super) async fn explained(
    error: &ExchangeError,
    tenant: &Tenant,
    facts: &RunFacts<'_>,
) -> (String, String) {
    let path = format!("{}/token", tenant.api_base);
    let to_do = match (&error.kind, facts.new_secret) {
        // A 404 is about the user or the site.
        (ExchangeErrorKind::Refused { status, detail }, Some(file)) if *status != 404 => {
            return new_secret_refused(file, error.grant, &format!("{status}{detail}"));
        }
        (ExchangeErrorKind::Unusable { status: 300..=399, .. }, _) => {
            return redirected(error, &path, facts.probe).await;
        }
        (ExchangeErrorKind::Unusable { status: 403, .. }, _) => {
            allow("POST", &path, facts.own_address)
        }
        (ExchangeErrorKind::Unreachable(cause, _), _) if is_truncated(&**cause) => format!(
            "look into the logs of Bold BI, and of proxies in front of it, at {}, for a crash, a restart \
             or a size limit",
            now()
        ),
        _ => {
            let command = named_unfinished_rotation(tenant, facts.resume);
            hint_in_rotation(error, command.as_deref()).into_owned()
        }
    };
    (error.to_string(), to_do)
}

/// Something refuses requests from here before Bold BI judges them.
pub(super) fn allow(method: &str, path: &str, own_address: Option<IpAddr>) -> String {
    let from = own_address.map_or_else(|| "this machine".to_owned(), |own| format!("`{own}`"));
    format!(
        "allow {method} from {from} to `{path}` in Bold BI's list of allowed addresses, and in each \
         firewall or proxy in between. Behind NAT they see another address: look for the refusal in \
         their logs"
    )
}

fn new_secret_refused(file: &Path, grant: Grant, said: &str) -> (String, String) {
    let found = format!(
        "Bold BI refuses the new secret from `{}` ({said}); the configured one was not tried",
        file.display()
    );
    let to_do = match grant {
        Grant::EmbedSecret => {
            "copy the embed secret again from this site's Settings > Embed; do not install this file"
        }
        Grant::ClientCredentials => {
            "compare it with the client in the installation's administration; do not install this file"
        }
        Grant::Password => {
            "compare it with the user's password in Bold BI; do not install this file"
        }
        Grant::Token => "create another token in Bold BI; do not install this file",
    };
    (found, to_do.to_owned())
}

/// Asks for the target by a request without a credential, so that it cannot repeat one.
async fn redirected(error: &ExchangeError, path: &str, probe: &Probe) -> (String, String) {
    let target = probe.post_nothing(path).await.ok().and_then(|response| response.redirect);
    match target {
        Some(target) => (
            format!("{error}: it leads to `{target}`"),
            "set the server's `url` to that address, up to `/api`; if it is a sign-in page, exempt the \
             token endpoint from that sign-in"
                .to_owned(),
        ),
        None => (error.to_string(), hint(error).to_owned()),
    }
}

fn is_truncated(cause: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    cause.downcast_ref::<ConnectionFault>().is_some_and(ConnectionFault::is_truncated)
}

fn now() -> String {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    OffsetDateTime::now_utc().format(form).unwrap_or_default()
}
