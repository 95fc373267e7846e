//! The actions with their arguments, as the bodies of requests have them: strict JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::telemetry::{AdminAction, LogLevel};

/// An action with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminCommand {
    RefreshToken {
        tenant: String,
    },
    DropTokens {
        tenant: String,
        subject: Option<String>,
    },
    DisableTenant {
        tenant: String,
    },
    EnableTenant {
        tenant: String,
    },
    /// A time of zero ends the hold: that of this number, or any.
    HoldExchanges {
        tenant: String,
        seconds: u64,
        number: Option<u64>,
        subject: Option<String>,
    },
    Reload,
    /// `None` returns to the configured level.
    SetLogLevel(Option<LogLevel>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantBody {
    tenant: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensBody {
    tenant: String,
    #[serde(default)]
    subject: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldBody {
    tenant: String,
    seconds: u64,
    /// The administrator that changes the secret, for the audit log.
    #[serde(default)]
    subject: Option<String>,
    /// The only hold to be ended.
    #[serde(default)]
    hold: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelBody {
    /// It must be given, be it as `null`.
    #[serde(deserialize_with = "nullable")]
    level: Option<String>,
}

impl AdminCommand {
    /// The arguments of `action` in a body.
    ///
    /// # Errors
    /// The fault of the body, with a part of it perhaps.
    pub(super) fn parse(action: AdminAction, body: &[u8]) -> Result<Self, String> {
        Ok(match action {
            AdminAction::RefreshToken => {
                let TenantBody { tenant } = read(body)?;
                Self::RefreshToken { tenant }
            }
            AdminAction::DropTokens => {
                let TokensBody { tenant, subject } = read(body)?;
                Self::DropTokens { tenant, subject }
            }
            AdminAction::DisableTenant => {
                let TenantBody { tenant } = read(body)?;
                Self::DisableTenant { tenant }
            }
            AdminAction::EnableTenant => {
                let TenantBody { tenant } = read(body)?;
                Self::EnableTenant { tenant }
            }
            AdminAction::HoldExchanges => {
                let HoldBody { tenant, seconds, subject, hold: number } = read(body)?;
                if seconds > MAX_HOLD_SECONDS {
                    return Err(format!("`seconds` is more than {MAX_HOLD_SECONDS}"));
                }
                if seconds > 0 && number.is_some() {
                    return Err("`hold` is for the end of a hold, with 0 `seconds`".to_owned());
                }
                Self::HoldExchanges { tenant, seconds, number, subject }
            }
            AdminAction::Reload => {
                let EmptyBody {} = read(body)?;
                Self::Reload
            }
            AdminAction::LogLevel => {
                let LevelBody { level } = read(body)?;
                let level = level.map(|level| level.parse().map_err(|_| UNKNOWN_LEVEL.to_owned()));
                Self::SetLogLevel(level.transpose()?)
            }
        })
    }

    /// The body that `action` takes, for hints.
    pub(super) fn form(action: AdminAction) -> &'static str {
        match action {
            AdminAction::DropTokens => {
                "{\"tenant\": \"…\", \"subject\": \"…\"}, the latter optional"
            }
            AdminAction::HoldExchanges => {
                "{\"tenant\": \"…\", \"seconds\": 60, \"subject\": \"…\"}, at most 120 seconds, 0 to \
                 end it, the last one optional; to end one hold alone, `hold` with its number"
            }
            AdminAction::Reload => "{}",
            AdminAction::LogLevel => "{\"level\": \"debug\"}, or null for the configured level",
            AdminAction::RefreshToken | AdminAction::DisableTenant | AdminAction::EnableTenant => {
                "{\"tenant\": \"…\"}"
            }
        }
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        match self {
            Self::RefreshToken { tenant }
            | Self::DropTokens { tenant, .. }
            | Self::HoldExchanges { tenant, .. }
            | Self::DisableTenant { tenant }
            | Self::EnableTenant { tenant } => Some(tenant),
            Self::Reload | Self::SetLogLevel(_) => None,
        }
    }

    pub(super) fn subject(&self) -> Option<&str> {
        match self {
            Self::DropTokens { subject, .. } | Self::HoldExchanges { subject, .. } => {
                subject.as_deref()
            }
            _ => None,
        }
    }
}

/// An object of JSON. A list would fill the fields of a struct, too.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not an object of JSON".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn nullable<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(value)
}

/// Clients wait that long at most.
const MAX_HOLD_SECONDS: u64 = 120;
const UNKNOWN_LEVEL: &str = "`level` is none of error, warn, info, debug, trace and null";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(action: AdminAction, body: &str) -> Option<AdminCommand> {
        AdminCommand::parse(action, body.as_bytes()).ok()
    }

    #[test]
    fn bodies_are_read_strictly() {
        use AdminAction::{DisableTenant, DropTokens, EnableTenant, RefreshToken, Reload};
        let tenant = || "acme".to_owned();
        let acme = "{\"tenant\": \"acme\"}";
        let all = AdminCommand::DropTokens { tenant: tenant(), subject: None };
        assert_eq!(
            parse(RefreshToken, acme),
            Some(AdminCommand::RefreshToken { tenant: tenant() })
        );
        assert_eq!(
            parse(DisableTenant, acme),
            Some(AdminCommand::DisableTenant { tenant: tenant() })
        );
        assert_eq!(
            parse(EnableTenant, acme),
            Some(AdminCommand::EnableTenant { tenant: tenant() })
        );
        assert_eq!(parse(DropTokens, acme), Some(all.clone()));
        assert_eq!(parse(DropTokens, "{\"tenant\":\"acme\",\"subject\":null}"), Some(all));
        let one = AdminCommand::DropTokens { tenant: tenant(), subject: Some("jane".to_owned()) };
        assert_eq!(parse(DropTokens, " {\"subject\":\"jane\",\"tenant\":\"acme\"}\n"), Some(one));
        assert_eq!(parse(Reload, "{}"), Some(AdminCommand::Reload));
        let hold = |seconds, subject: Option<&str>| AdminCommand::HoldExchanges {
            tenant: tenant(),
            seconds,
            number: None,
            subject: subject.map(str::to_owned),
        };
        let parse_hold = |body: &str| parse(AdminAction::HoldExchanges, body);
        assert_eq!(parse_hold("{\"tenant\":\"acme\",\"seconds\":120}"), Some(hold(120, None)));
        let by = "{\"tenant\":\"acme\",\"seconds\":0,\"subject\":\"jane\"}";
        assert_eq!(parse_hold(by), Some(hold(0, Some("jane"))));
        for wrong in ["121", "-1", "\"30\"", "1.5", "null"] {
            assert_eq!(parse_hold(&format!("{{\"tenant\":\"acme\",\"seconds\":{wrong}}}")), None);
        }
        assert_eq!(parse_hold(acme), None);
        let one = AdminCommand::HoldExchanges {
            tenant: tenant(),
            seconds: 0,
            number: Some(7),
            subject: None,
        };
        assert_eq!(parse_hold("{\"tenant\":\"acme\",\"seconds\":0,\"hold\":7}"), Some(one));
        assert_eq!(parse_hold("{\"tenant\":\"acme\",\"seconds\":1,\"hold\":7}"), None);
        for (action, wrong) in [
            (RefreshToken, ""),
            (RefreshToken, "{}"),
            (RefreshToken, "[\"acme\"]"),
            (RefreshToken, "\"acme\""),
            (RefreshToken, "{\"tenant\": null}"),
            (RefreshToken, "{\"tenant\": \"acme\"} {}"),
            (RefreshToken, "{\"tenant\": \"acme\", \"tenant\": \"bolt\"}"),
            (RefreshToken, "{\"tenant\": \"acme\", \"subject\": \"jane\"}"),
            (RefreshToken, "{\"Tenant\": \"acme\"}"),
            (DropTokens, "{\"tenant\": \"acme\", \"subject\": [\"jane\"]}"),
            (Reload, ""),
            (Reload, "[]"),
            (Reload, "null"),
            (Reload, "{\"now\": true}"),
        ] {
            assert_eq!(parse(action, wrong), None, "{action:?} {wrong}");
        }
    }

    #[test]
    fn a_log_level_is_one_of_the_words_or_null_and_never_left_out() {
        let parse = |body| parse(AdminAction::LogLevel, body);
        let debug = Some(AdminCommand::SetLogLevel(Some(LogLevel::Debug)));
        assert_eq!(parse("{\"level\": \"debug\"}"), debug);
        assert_eq!(parse("{\"level\": null}"), Some(AdminCommand::SetLogLevel(None)));
        for wrong in ["{}", "{\"level\": \"loud\"}", "{\"level\": \"DEBUG\"}", "{\"level\": 1}"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
