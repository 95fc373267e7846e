//! A refusal as its request's record has it: the audit line, the log line with its advice, and the
//! outcome.

use std::fmt::Display;

use http::{Method, StatusCode};
use tracing::field::display;

use super::Record;
use super::embed_hints::{class_hint, embed_hint};
use crate::boldbi::may_be_by_secret;
use crate::caller::jwt::JwtError;
use crate::caller::{CallerError, CallerName, TriedIssuer};
use crate::cors::UnlistedPage;
use crate::descriptors;
use crate::outbound::{PROXY_CONNECT, PROXY_LOGIN, PROXY_REFUSED};
use crate::policy::{Forbidden, MaskedFault, RouteClass, Subject};
use crate::proxy::downstream::Peer;
use crate::refusal::{Overdue, Refusal, RefusalResponse};
use crate::telemetry::{
    AuditEvent, AuditLine, AuditLog, EmbedOutcome, LogLimiter, Reason, RequestOutcome, Telemetry,
};
use crate::tenant::{Grant, TenantName};

impl Record {
    /// Records a refusal, and writes its audit line. A failure inside or behind the gateway is
    /// logged with its cause, and a refused credential too, at `info`.
    pub(in crate::proxy) fn refused(
        &mut self,
        refusal: &Refusal,
        peer: &Peer,
        telemetry: &Telemetry,
    ) {
        let response = refusal.response();
        self.refusal = Some(response.code);
        self.reason = refusal.reason();
        if let Refusal::Embed { why, .. } = refusal {
            // The log has one line for many: this request's lines have its own cause.
            self.embed_fault = Some(why.to_string().into());
        }
        if self.reason == Some(Reason::CertificateUnknown) {
            let certificate = peer.info.certificate.as_deref();
            self.certificate = certificate.map(|known| known.fingerprint().into());
        }
        telemetry.refusals.count(response.code, self.reason);
        if self.tenant().is_none() {
            self.tenant = refusal.tenant().cloned();
        }
        if self.caller.is_none() {
            self.caller = refusal.caller().cloned();
        }
        self.audit(refusal, &response, &telemetry.audit);
        // A 501 is about the client's request, and a tenant is disabled on purpose: nothing has
        // failed.
        let has_failed = response.status.is_server_error()
            && response.status != StatusCode::NOT_IMPLEMENTED
            && !matches!(refusal, Refusal::TenantDisabled { .. });
        self.outcome = if has_failed {
            let limiter = self.metrics.as_ref().map(|metrics| metrics.log_limiter());
            let limiter = limiter.unwrap_or_else(|| telemetry.no_tenant.log_limiter());
            match refusal {
                Refusal::Exchange(error) if may_be_by_secret(&error.cause.kind) => {
                    self.warn_of_secret(limiter, response.code, error, telemetry);
                }
                _ => {
                    let (tried, hint) = (refusal.tried(), hint(refusal));
                    self.warn_once(Some(limiter), response.code, refusal, tried, hint);
                }
            }
            RequestOutcome::Failed
        } else if let Refusal::Origin { .. }
        | Refusal::Embed { .. }
        | Refusal::CallerHeader
        | Refusal::Forbidden { why: Forbidden::Masked(_), .. } = refusal
        {
            // Neither the page nor the browser shows the reason.
            let tenant = self.tenant().map(|name| telemetry.tenant(name.as_str()));
            if let (Refusal::Embed { why, .. }, Some(tenant)) = (refusal, &tenant) {
                tenant.embedded(if why.is_about_user() {
                    EmbedOutcome::UserRefused
                } else {
                    EmbedOutcome::PageRefused
                });
            }
            let log_limiter = tenant.as_ref().unwrap_or(&telemetry.no_tenant).log_limiter();
            self.warn_once(Some(log_limiter), response.code, refusal, None, hint(refusal));
            RequestOutcome::Refused
        } else {
            self.log_refused(refusal, response.code, telemetry);
            RequestOutcome::Refused
        };
        self.stage_refused();
    }

    /// Logs a refusal that the client has to do something about: at `info` every few seconds for
    /// each tenant, code and reason, the others at `debug`.
    fn log_refused(&self, refusal: &Refusal, code: &'static str, telemetry: &Telemetry) {
        let (id, reason) = (self.id.as_str(), self.reason());
        let repeated = match (self.reason, refusal, self.tenant()) {
            (Some(reason), Refusal::Caller { .. }, _) => telemetry.refusals.allow_line(reason),
            (_, _, Some(tenant)) => {
                telemetry.tenant(tenant.as_str()).log_limiter().allow_reason(code, reason)
            }
            (_, _, None) => telemetry.no_tenant.log_limiter().allow_reason(code, reason),
        };
        match repeated {
            Some(repeated) => tracing::info!(
                boldgate.refusal = code,
                boldgate.reason = reason,
                boldgate.tried_caller = refusal.tried().map(TriedIssuer::callers),
                boldgate.issuer = refusal.tried().map(TriedIssuer::issuer),
                boldgate.tenant = self.tenant().map(TenantName::as_str),
                boldgate.caller = self.caller.as_ref().map(CallerName::as_str),
                tls.client.hash.sha256 = self.certificate.as_deref(),
                request.id = id,
                repeated = (repeated > 0).then_some(repeated),
                hint = hint(refusal),
                "{refusal}"
            ),
            None => tracing::debug!(
                boldgate.refusal = code,
                boldgate.reason = reason,
                request.id = id,
                "{refusal}"
            ),
        }
    }

    fn audit(&self, refusal: &Refusal, response: &RefusalResponse, audit: &AuditLog) {
        let (granted, known) = (self.granted.as_ref(), refusal.facts());
        let permission = match (granted, known) {
            (Some(granted), _) => Some(granted.by),
            (None, known) => known.and_then(|known| known.permission),
        };
        let permission = permission.map(|permission| permission.to_string());
        let subject = match (granted, known) {
            (Some(granted), _) => granted.injects.then(|| granted.permit.subject()),
            (None, known) => known.and_then(|known| known.subject.as_ref()),
        };
        let grant = granted.map(|granted| granted.permit.tenant().credential.grant);
        let class = granted.map(|granted| granted.class).or(known.map(|known| known.class));
        audit.write(&AuditLine {
            begun: self.begun,
            request_id: Some(&self.id),
            caller: self.caller.as_ref().map(CallerName::as_str),
            permission: permission.as_deref(),
            tenant: self.tenant().map(TenantName::as_str),
            subject: subject.map(Subject::as_str),
            grant: grant.or(known.map(|known| known.grant)).map(Grant::as_str),
            outcome: response.code,
            event: AuditEvent::Refusal {
                client: self.client,
                method: self.method.as_ref().map(Method::as_str),
                path: self.path(),
                certificate: self.certificate.as_deref(),
                reason: self.reason(),
                embed_fault: self.embed_fault.as_deref(),
                tried: refusal.tried().map(|tried| (tried.callers(), tried.issuer())),
                class: class.map(RouteClass::as_str),
                status: response.status.as_u16(),
                embed: self.embed.as_ref().map(|embed| embed.audited(refusal.embed_secret())),
            },
        });
    }

    /// Logs a failure, with the field names of the access log. Repetitions for the same tenant are
    /// logged every few seconds only; `repeated` counts those in between.
    pub(super) fn warn(&self, code: &'static str, failure: &dyn Display, hint: Option<&str>) {
        self.warn_once(
            self.metrics.as_ref().map(|metrics| metrics.log_limiter()),
            code,
            failure,
            None,
            hint,
        );
    }

    fn warn_once(
        &self,
        log_limiter: Option<&LogLimiter>,
        code: &'static str,
        failure: &dyn Display,
        tried: Option<&TriedIssuer>,
        hint: Option<&str>,
    ) {
        let reason = self.reason();
        let repeated =
            log_limiter.map_or(Some(0), |log_limiter| log_limiter.allow_reason(code, reason));
        let id = self.id.as_str();
        let tenant = self.tenant().map(display);
        let server = self.granted.as_ref().map(|granted| granted.permit.tenant().server.origin());
        let Some(repeated) = repeated else {
            self.debug_repeated(code, failure);
            return;
        };
        tracing::warn!(
            boldgate.refusal = code,
            boldgate.reason = reason,
            boldgate.tried_caller = tried.map(TriedIssuer::callers),
            boldgate.issuer = tried.map(TriedIssuer::issuer),
            boldgate.tenant = tenant,
            server.address = server,
            request.id = id,
            repeated = (repeated > 0).then_some(repeated),
            hint,
            "{failure}"
        );
    }

    /// Logs a failure at `debug`, whose line at `warn` is not due again.
    pub(super) fn debug_repeated(&self, code: &'static str, failure: &dyn Display) {
        let server = self.granted.as_ref().map(|granted| granted.permit.tenant().server.origin());
        tracing::debug!(
            boldgate.refusal = code,
            boldgate.reason = self.reason(),
            boldgate.tenant = self.tenant().map(display),
            server.address = server,
            request.id = self.id.as_str(),
            "{failure}"
        );
    }
}

fn caller_hint(why: &CallerError) -> Option<&'static str> {
    Some(match why {
        CallerError::Jwt(JwtError::NoKeys, _) => {
            "the gateway has no keys of this issuer: the line about its keys has the cause; check that \
             `jwks_url` of the caller can be reached from here, or give it a `jwks_file` as well"
        }
        CallerError::Jwt(JwtError::TooLarge, _) => {
            "let the identity provider put fewer claims into its tokens: long lists of groups are a \
             common reason"
        }
        CallerError::NotInBasic(_) => {
            "set `api_key_in_authorization: true` of the caller, if its clients can send the key only \
             so; else let them send it in the header for API keys"
        }
        _ => return None,
    })
}

/// The advice to operators about a refusal, in its log line and in `explain`.
pub(crate) fn hint(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal {
        Refusal::Origin { facts: None, .. } => {
            "if the page is one of yours, look at the host and the path that it asks for"
        }
        Refusal::Origin { page, .. } if matches!(**page, UnlistedPage::CrossSite) => {
            "a link, an image or a form of another site made a browser send this without an `Origin`: \
             no list changes that. A page of yours can use `fetch`, whose `Origin` can be listed, or \
             the caller can have a key"
        }
        Refusal::Origin { page, .. } if matches!(**page, UnlistedPage::Opaque) => {
            "a sandboxed frame, a file or a redirect has no origin that could be listed: serve the \
             page from an address of its own and list that"
        }
        Refusal::Origin { page, .. } if matches!(**page, UnlistedPage::Unnamed) => {
            "masked mode is for pages alone, of which browsers say where they are from: a proxy in \
             between must pass `Origin` and `Sec-Fetch-Site` on"
        }
        Refusal::Origin { .. } => {
            "if the page is one of yours, list its origin there; if not, a page of somebody else tries \
             to use the gateway through a user's browser"
        }
        Refusal::Embed { why, .. } => embed_hint(why),
        Refusal::Forbidden { why: Forbidden::Route(RouteClass::Embed), facts } => class_hint(facts),
        Refusal::CallerHeader => {
            "let the `serverUrl` of the page be the server's `url`, or the address that the page sends \
             its requests to, spelled alike and in `hosts` of the listener, with the path of a tenant's \
             site"
        }
        Refusal::Forbidden { why: Forbidden::Masked(fault), .. } => match fault {
            MaskedFault::Off => {
                "set `embed.masked: true` of the tenant, if pages may have its data"
            }
            MaskedFault::Route => {
                "if dashboards stay empty without this route, a newer Bold BI needs it: please report \
                 it with the version of Bold BI"
            }
            MaskedFault::Design => {
                "list `design` in `embed.modes` of the tenant, if pages may edit"
            }
        },
        Refusal::Caller { why, .. } => return caller_hint(why),
        Refusal::WaitingEvicted { .. } => {
            "find out why the issuer's keys take so long to arrive, and which clients send so many \
             requests with its JWTs, or raise `limits.unfinished_heads`"
        }
        Refusal::Exchange(error) => crate::boldbi::hint(&error.cause),
        Refusal::Overloaded { .. } => {
            "find out why Bold BI is slow, or raise `max_connections` of the server"
        }
        Refusal::NoDescriptors { .. } => descriptors::HINT,
        Refusal::TokenEnded(_) => {
            "requests wait longer for a connection than a token lives: find out why Bold BI is \
             slow, raise `max_connections` of the server, or let its tokens live longer"
        }
        Refusal::UpstreamUnreachable { hint: Some(hint), .. } => hint.as_str(),
        Refusal::UpstreamUnreachable { reason: Reason::ProxyConnect, .. } => PROXY_CONNECT,
        Refusal::UpstreamUnreachable { reason: Reason::ProxyLogin, .. } => PROXY_LOGIN,
        Refusal::UpstreamUnreachable { reason: Reason::ProxyRefused, .. } => PROXY_REFUSED,
        Refusal::UpstreamUnreachable { .. } => {
            "check that Bold BI is running and that the server's `url` names its host and port; \
             `boldgate token` with the tenant's name tries the same server"
        }
        Refusal::UpstreamInvalid { .. } => {
            "look into Bold BI's own logs, and those of proxies in between, at this time"
        }
        Refusal::BulkheadFull { .. } => {
            "one tenant sends more requests than Bold BI answers: find out which clients, or raise \
             `max_concurrent_requests` of the tenant"
        }
        Refusal::UpstreamTimeout { overdue, .. } => match overdue {
            Overdue::Connection(_) => {
                "check that the server's `url` or `addresses` name its host and port, and that no \
                 firewall drops what is sent there"
            }
            Overdue::FirstByte(_) => {
                "Bold BI is slow or hangs: look into its health; for reports that take long, raise \
                 `timeouts.first_byte` of the server (`timeouts.read`, where that is not set)"
            }
            Overdue::Read(_) | Overdue::Write(_) => {
                "Bold BI hangs in the middle of a request, or a proxy in between does: look into \
                 their health"
            }
            Overdue::Total(_) => {
                "the client, Bold BI or the network between is very slow; for transfers that take \
                 so long, raise `timeouts.total` of the server"
            }
        },
        Refusal::NotReplayable(_) => {
            "nothing needs repair: the client may send the request again, which will then carry a \
             new token"
        }
        _ => return None,
    })
}
