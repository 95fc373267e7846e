//! The metric of the actions of the admin API.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use strum::{EnumString, IntoStaticStr, VariantArray};

/// An action of the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AdminAction {
    /// One exchange for the token of a tenant's own user.
    RefreshToken,
    /// Drops the tokens of a tenant or of one user.
    DropTokens,
    /// Disables a tenant until it is enabled, or the gateway restarts without a token store.
    DisableTenant,
    /// Ends that.
    EnableTenant,
    /// Lets exchanges of a tenant wait for another secret.
    HoldExchanges,
    /// Reads the configuration again.
    Reload,
    /// Sets the level of the process log.
    LogLevel,
}

/// How a request for an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ActionOutcome {
    /// It was done.
    Success,
    /// It was tried and failed.
    Failure,
    /// It was not tried: an operator's request was not understood.
    Refused,
    /// It was not tried: a foreign web page, or no valid credential.
    Unauthorized,
}

/// Counts requests for actions.
#[derive(Debug)]
pub struct ActionMetrics(Family<ActionLabels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    outcome: &'static str,
}

impl AdminAction {
    /// Its name in the API, in metrics and in the audit log.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The names of all actions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::VARIANTS.iter().map(|action| action.as_str())
    }
}

impl ActionMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all: Family<ActionLabels, Counter> = Family::default();
        for action in Self::action_labels() {
            for &outcome in ActionOutcome::VARIANTS {
                drop(all.get_or_create(&ActionLabels { action, outcome: outcome.into() }));
            }
        }
        registry.register(
            "admin_actions",
            "Requests for actions of the admin API, by action and outcome",
            all.clone(),
        );
        Self(all)
    }

    /// Counts a request; the action is `None` if there is none of the requested name.
    pub fn ended(&self, action: Option<AdminAction>, outcome: ActionOutcome) {
        let action = action.map_or(super::outcome::NONE, AdminAction::as_str);
        self.0.get_or_create(&ActionLabels { action, outcome: outcome.into() }).inc();
    }

    /// The values of the label `action`.
    pub(super) fn action_labels() -> Vec<&'static str> {
        AdminAction::names().chain([super::outcome::NONE]).collect()
    }
}
