//! The actions of the admin API: who may request one, what it does, and its line in the audit log.
//! An action that has begun goes on when its client has gone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::attempts::Attempts;
use super::command::AdminCommand;
use super::credential::Operator;
use super::page_origin;
use super::reloads::{NoReload, ReloadPort, ReloadReport};
use super::reply::{ActionFailure, ActionSuccess, in_words};
use super::{AdminClient, AdminServer};
use crate::boldbi;
use crate::gateway::Gateway;
use crate::store::{FleetAction, StoreState};
use crate::telemetry::{
    ActionOutcome, AdminAction, AuditClient, AuditEvent, AuditLine, LogLevel, Telemetry,
};
use crate::tenant::{DisabledBy, SwitchError, Tenant};
use crate::token::HoldOrder;

/// The parts of the gateway that actions change.
pub struct Controls {
    /// The gateway in force; `None` once it has ended.
    gateway: Box<dyn Fn() -> Option<Arc<Gateway>> + Send + Sync>,
    reloads: Arc<ReloadPort>,
    telemetry: Arc<Telemetry>,
    /// Bounds the exchanges of actions. All other actions end at once.
    exchanges: Semaphore,
    attempts: Attempts,
}

/// A request for an action, for its audit line.
struct Attempt {
    at: SystemTime,
    action: Option<AdminAction>,
    client: AuditClient,
    operator: Option<Operator>,
    command: Option<AdminCommand>,
}

impl Controls {
    /// Changes the gateway that `gateway` gives, and reloads by `reloads`.
    pub fn new(
        telemetry: Arc<Telemetry>,
        reloads: Arc<ReloadPort>,
        gateway: impl Fn() -> Option<Arc<Gateway>> + Send + Sync + 'static,
    ) -> Self {
        let (gateway, exchanges) = (Box::new(gateway), Semaphore::new(MAX_EXCHANGES));
        Self { gateway, reloads, telemetry, exchanges, attempts: Attempts::default() }
    }

    /// Whether the token store of the fleet is away. The first trial of a start says nothing.
    pub(super) fn is_store_away(&self) -> bool {
        let store = (self.gateway)().and_then(|gateway| gateway.token_store());
        store.is_some_and(|store| store.condition().state == StoreState::Away)
    }

    /// Counts and audits a request without a valid credential for something else than an action.
    pub(super) fn refused_reader(&self, client: &AdminClient, failure: &ActionFailure) {
        self.ended(&Attempt::new(None, client), &Err(failure));
    }

    async fn perform(&self, command: &AdminCommand) -> Result<ActionSuccess, ActionFailure> {
        let gateway = (self.gateway)().ok_or_else(stopping)?;
        match command {
            AdminCommand::RefreshToken { tenant } => {
                let turn = self.exchanges.try_acquire().map_err(|_| ActionFailure::busy())?;
                let refreshed = refresh_token(&gateway, tenant, &self.telemetry).await;
                drop(turn);
                refreshed
            }
            AdminCommand::DropTokens { tenant, subject } => {
                if gateway.tenants().named(tenant).is_none() {
                    return Err(unknown_tenant(tenant));
                }
                // Before the tokens here are dropped, so that none comes again from the store.
                let (of_tenant, of_subject) = (tenant.clone(), subject.clone());
                let action = FleetAction::Drop { tenant: of_tenant, subject: of_subject };
                let told = gateway.announce(&action).await;
                let is_unproven = gateway.has_unproven_secret(tenant);
                let dropped = gateway
                    .drop_tokens(tenant, subject.as_deref())
                    .ok_or_else(|| unknown_tenant(tenant))?;
                let of_user = subject.is_some();
                let message = super::drop_report::message(tenant, of_user, dropped, is_unproven);
                let success = of_fleet(message, told).with("dropped", dropped);
                Ok(if is_unproven { success.with("secret_unproven", true) } else { success })
            }
            AdminCommand::DisableTenant { tenant } => {
                let changed = gateway.set_enabled(tenant, false);
                let changed = changed.map_err(|error| cannot_switch(tenant, error))?;
                let action = FleetAction::Disable { tenant: tenant.clone() };
                let told = gateway.announce(&action).await;
                let lasts = if told == Some(true) {
                    "reloads, and restarts while the token store keeps it"
                } else {
                    "reloads and not a restart"
                };
                let message = format!(
                    "tenant `{tenant}` {} disabled: its requests get 503 (`tenant_disabled`). That \
                     outlives {lasts}; for good, set `tenants.{tenant}.disabled: true`",
                    if changed { "is" } else { "was already" }
                );
                Ok(of_fleet(message, told).with("changed", changed))
            }
            AdminCommand::EnableTenant { tenant } => {
                let changed = gateway.set_enabled(tenant, true);
                let changed = changed.map_err(|error| cannot_switch(tenant, error))?;
                let message = if changed {
                    format!("tenant `{tenant}` is enabled")
                } else {
                    format!("tenant `{tenant}` was enabled already")
                };
                let action = FleetAction::Enable { tenant: tenant.clone() };
                let told = gateway.announce(&action).await;
                Ok(of_fleet(message, told).with("changed", changed))
            }
            AdminCommand::HoldExchanges { tenant, seconds, number, .. } => {
                let order = match seconds {
                    0 => HoldOrder::Release(*number),
                    seconds => HoldOrder::Hold(Duration::from_secs(*seconds)),
                };
                let begun = gateway.hold_exchanges(tenant, order);
                let begun = begun.ok_or_else(|| unknown_tenant(tenant))?;
                let message = if let Some(number) = number {
                    format!("hold {number} of exchanges of tenant `{tenant}` has ended")
                } else if begun.is_none() {
                    format!("exchanges of tenant `{tenant}` are held no longer")
                } else {
                    format!(
                        "exchanges of tenant `{tenant}` wait for another secret, for {seconds} s at \
                         most; cached tokens serve on"
                    )
                };
                let success = ActionSuccess::new(message).with("seconds", *seconds);
                Ok(if let Some(begun) = begun { success.with("hold", begun) } else { success })
            }
            AdminCommand::Reload => self.reload().await,
            AdminCommand::SetLogLevel(level) => Ok(self.set_log_level(*level)),
        }
    }

    /// The tenant of this name in the configuration in force.
    fn known_tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        let gateway = (self.gateway)()?;
        gateway.tenants().named(name).cloned()
    }

    async fn reload(&self) -> Result<ActionSuccess, ActionFailure> {
        let report = match self.reloads.request() {
            Ok(report) => report.await.map_err(|_| stopping())?,
            Err(NoReload::Busy) => return Err(ActionFailure::busy()),
            Err(NoReload::Away) => return Err(stopping()),
        };
        match report {
            ReloadReport::Applied { generation, needs_restart, warnings } => {
                let mut message =
                    format!("the changed configuration is active: generation {generation}");
                if !needs_restart.is_empty() {
                    message += &format!("; {} need a restart", needs_restart.join(", "));
                }
                Ok(ActionSuccess::new(message)
                    .with("result", "applied")
                    .with("generation", generation)
                    .with("needs_restart", needs_restart)
                    .with("warnings", warnings))
            }
            ReloadReport::Unchanged => {
                let message = "the files hold the active configuration: nothing has changed";
                Ok(ActionSuccess::new(message).with("result", "unchanged"))
            }
            ReloadReport::Refused { findings } => {
                let error = "the changed configuration is refused: the active one stays as a whole";
                let hint = "correct the findings; `boldgate check` shows faults of the files";
                Err(ActionFailure::new(StatusCode::CONFLICT, "reload_refused", error, hint)
                    .with("findings", findings))
            }
            ReloadReport::Unreadable { error, hint } => {
                let error = format!(
                    "the files cannot be read, and the active configuration stays: {error}"
                );
                Err(ActionFailure::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "files_unreadable",
                    error,
                    hint,
                ))
            }
        }
    }

    fn set_log_level(&self, level: Option<LogLevel>) -> ActionSuccess {
        let control = &self.telemetry.log_level;
        let configured = control.configured();
        let level = level.unwrap_or(configured);
        control.set(level, "the admin API");
        let message = if level == configured {
            format!("the log level is {level}, the configured one")
        } else {
            format!("the log level is {level} until it is set again or the process restarts")
        };
        ActionSuccess::new(message)
            .with("level", level.to_string())
            .with("configured", configured.to_string())
    }

    /// Counts a request, and writes its audit line. Lines about requests without a valid credential
    /// are bounded.
    fn ended(&self, attempt: &Attempt, result: &Result<&ActionSuccess, &ActionFailure>) {
        let outcome = match result {
            Ok(_) => ActionOutcome::Success,
            Err(_) if attempt.command.is_some() => ActionOutcome::Failure,
            Err(_) if attempt.operator.is_some() => ActionOutcome::Refused,
            Err(_) => ActionOutcome::Unauthorized,
        };
        self.telemetry.actions.ended(attempt.action, outcome);
        let (code, error, status) = match result {
            Ok(_) => ("success", None, StatusCode::OK),
            Err(failure) => (failure.code, Some(&*failure.error), failure.status),
        };
        let suppressed = match attempt.operator {
            Some(_) => 0,
            None => match self.attempts.allow() {
                Some(suppressed) => suppressed,
                None => return,
            },
        };
        let (action, operator) = (attempt.action.map(AdminAction::as_str), &attempt.operator);
        let (kind, operator) =
            (operator.as_ref().map(Operator::kind), operator.as_ref().map(Operator::name));
        let tenant = attempt.command.as_ref().and_then(AdminCommand::tenant);
        let client = attempt.client.address.map(tracing::field::display);
        // The name of a tenant that is not known may be any text, which is for the audit log alone.
        // So may the body of a request that is not understood.
        let known = tenant.and_then(|name| self.known_tenant(name));
        let is_told = tenant.is_none() || known.is_some();
        let is_own_text = attempt.command.is_some() || attempt.operator.is_none();
        if let Err(failure) = result {
            tracing::warn!(
                action,
                boldgate.tenant = known.as_ref().map(|tenant| tenant.name.as_str()),
                server.address = known.as_ref().map(|tenant| tenant.server.origin().clone()),
                operator = kind,
                client.address = client,
                boldgate.reason = code,
                error = error.filter(|_| is_told && is_own_text),
                hint = failure.hint,
                suppressed = (suppressed > 0).then_some(suppressed),
                "an action of the admin API was refused or failed"
            );
        } else {
            tracing::info!(
                action,
                boldgate.tenant = tenant,
                operator = kind,
                client.address = client,
                "an operator's action"
            );
        }
        self.telemetry.audit.write(&AuditLine {
            begun: attempt.at,
            request_id: None,
            caller: None,
            permission: None,
            tenant,
            subject: attempt.command.as_ref().and_then(AdminCommand::subject),
            grant: None,
            outcome: code,
            event: AuditEvent::AdminAction {
                action,
                operator,
                client: attempt.client,
                message: result.as_ref().ok().map(|success| &*success.message),
                // A body that is not understood may hold anything.
                error: error.filter(|_| attempt.command.is_some()),
                status: status.as_u16(),
                suppressed,
            },
        });
    }
}

impl Attempt {
    fn new(action: Option<AdminAction>, client: &AdminClient) -> Self {
        let (at, client) = (SystemTime::now(), client.told);
        Self { at, action, client, operator: None, command: None }
    }
}

impl AdminServer {
    /// The response to a request for the action of this name.
    pub(super) async fn act(
        &self,
        request: Request<Incoming>,
        client: &AdminClient,
        name: &str,
    ) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            return ActionFailure::method().response();
        }
        let mut attempt = Attempt::new(name.parse().ok(), client);
        let command = match self.admit(request, client, name, &mut attempt).await {
            Ok(command) => command,
            Err(failure) => {
                self.controls.ended(&attempt, &Err(&failure));
                return failure.response();
            }
        };
        attempt.command = Some(command.clone());
        let controls = Arc::clone(&self.controls);
        // A task of its own: it ends, and is audited, when the client has gone.
        let acting = tokio::spawn(async move {
            let result = match timeout(ACTION_TIMEOUT, controls.perform(&command)).await {
                Ok(result) => result,
                Err(_) => Err(late()),
            };
            controls.ended(&attempt, &result.as_ref());
            result
        });
        match acting.await {
            Ok(Ok(success)) => success.response(),
            Ok(Err(failure)) => failure.response(),
            Err(_) => {
                let (error, hint) = ("the action failed within the gateway", "see its log");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                ActionFailure::new(status, "internal", error, hint).response()
            }
        }
    }

    /// Decides whether a request may act, and reads its arguments. Nothing has been done when it is
    /// refused.
    async fn admit(
        &self,
        request: Request<Incoming>,
        client: &AdminClient,
        name: &str,
        attempt: &mut Attempt,
    ) -> Result<AdminCommand, ActionFailure> {
        let (head, body) = request.into_parts();
        page_origin::check(&head.headers, &head.uri, client.tls, name)
            .map_err(ActionFailure::page)?;
        let terms = self.terms.load_full();
        let certificate = client.certificate.as_ref();
        let operator = self.gate.authenticate(&terms, certificate, &head.headers).await;
        attempt.operator = Some(operator.map_err(|why| ActionFailure::credential(why, &terms))?);
        let action = attempt.action.ok_or_else(ActionFailure::unknown_action)?;
        if !is_json(&head.headers) {
            return Err(ActionFailure::content_type());
        }
        let length = head.headers.get(CONTENT_LENGTH).and_then(|text| text.to_str().ok());
        let length = length.and_then(|text| text.parse::<u64>().ok());
        if length.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(ActionFailure::body_too_large(MAX_BODY));
        }
        let body = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(ActionFailure::body_too_large(MAX_BODY));
            }
            Ok(Err(_)) | Err(_) => return Err(ActionFailure::body_incomplete()),
        };
        AdminCommand::parse(action, &body).map_err(|why| ActionFailure::body(action, &why))
    }
}

/// The success of an action that is for the whole fleet; `told` whether the store took it. Nobody
/// knows which gateways read it.
fn of_fleet(message: String, told: Option<bool>) -> ActionSuccess {
    match told {
        None => ActionSuccess::new(message),
        Some(true) => {
            let more = "it is in the token store: gateways with the same store, prefix and sealing \
                        key follow within a second of reading it";
            ActionSuccess::new(format!("{message}; {more}")).with("fleet", "published")
        }
        Some(false) => {
            let more = "the token store did not take it, so the other gateways of the fleet may not \
                        follow: repeat this at each of them, or once the store is back";
            ActionSuccess::new(format!("{message}; {more}")).with("fleet", "not_published")
        }
    }
}

async fn refresh_token(
    gateway: &Gateway,
    tenant: &str,
    telemetry: &Telemetry,
) -> Result<ActionSuccess, ActionFailure> {
    let known = gateway.tenants().named(tenant);
    match known.and_then(|known| gateway.disabled_by(known)) {
        Some(DisabledBy::Configuration) => {
            return Err(cannot_switch(tenant, SwitchError::Configured));
        }
        Some(DisabledBy::Operator) => return Err(disabled_by_operator(tenant)),
        None => {}
    }
    let renewed = gateway.renew_token(tenant).await.ok_or_else(|| unknown_tenant(tenant))?;
    match renewed {
        Ok(renewal) => {
            let left =
                renewal.token.expires_at().saturating_duration_since(tokio::time::Instant::now());
            let message = format!(
                "tenant `{tenant}` has {}, which ends in {}",
                if renewal.is_new {
                    "a new token"
                } else {
                    "the same token again: Bold BI gave it out once more"
                },
                in_words(left.as_secs())
            );
            Ok(ActionSuccess::new(message)
                .with("new", renewal.is_new)
                .with("seconds_left", left.as_secs()))
        }
        Err(error) => {
            let code = error.cause.kind.code();
            let status = match code {
                "overloaded" | "configuration_changed" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            };
            let command = telemetry.unfinished_rotations.command_now(tenant).await;
            let hint = boldbi::hint_in_rotation(&error.cause, command.as_deref());
            Err(ActionFailure::new(status, code, error.to_string(), hint))
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return false };
    let essence = only.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn unknown_tenant(name: &str) -> ActionFailure {
    let error = format!("the configuration has no tenant `{}`", name.escape_debug());
    let hint = "take its name from `tenants` in the configuration, upper and lower case included";
    ActionFailure::new(StatusCode::NOT_FOUND, "tenant_unknown", error, hint)
}

fn cannot_switch(tenant: &str, error: SwitchError) -> ActionFailure {
    match error {
        SwitchError::Unknown => unknown_tenant(tenant),
        SwitchError::Configured => {
            let hint = format!("remove `tenants.{tenant}.disabled` from the configuration");
            ActionFailure::new(
                StatusCode::CONFLICT,
                "disabled_by_configuration",
                error.to_string(),
                hint,
            )
        }
    }
}

fn disabled_by_operator(tenant: &str) -> ActionFailure {
    let error = format!("tenant `{tenant}` is disabled by an operator: it needs no token");
    let hint = "enable it first, by the action `enable-tenant`";
    ActionFailure::new(StatusCode::CONFLICT, "tenant_disabled", error, hint)
}

fn stopping() -> ActionFailure {
    let error = "the gateway starts or stops, and does not reload";
    let hint = "try again once `/readyz` says that it is ready";
    ActionFailure::new(StatusCode::SERVICE_UNAVAILABLE, "not_serving", error, hint)
}

fn late() -> ActionFailure {
    let error =
        format!("the action did not end within {ACTION_TIMEOUT:?}, and may still take effect");
    ActionFailure::new(
        StatusCode::GATEWAY_TIMEOUT,
        "timeout",
        error,
        "see the log and the status API",
    )
}

/// Most exchanges that are under way for actions.
const MAX_EXCHANGES: usize = 4;
/// Bytes of the body of a request.
const MAX_BODY: usize = 4 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds the wait for an action.
pub(super) const ACTION_TIMEOUT: Duration = Duration::from_secs(25);
