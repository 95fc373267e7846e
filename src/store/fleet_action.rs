//! Operators' actions that are for the whole fleet.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// An action of an operator that is for all replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum FleetAction {
    /// Drop the cached tokens of a tenant, or of one user of it.
    Drop {
        /// The tenant.
        tenant: String,
        /// The user; `None` for all.
        subject: Option<String>,
    },
    /// Disable a tenant.
    Disable {
        /// The tenant.
        tenant: String,
    },
    /// Enable a tenant.
    Enable {
        /// The tenant.
        tenant: String,
    },
}

/// An action that another gateway has announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedAction {
    /// The action.
    pub action: FleetAction,
    /// The time since it was announced, by the clocks of the two.
    pub age: Duration,
    /// Whether it was in the store before this gateway read the actions for the first time.
    pub is_taken_over: bool,
}

/// Entries among the actions that none of the sealing keys opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnopenedActions {
    /// How many were read.
    pub count: u64,
    /// When the last one was written or read.
    pub last: Option<SystemTime>,
}

impl FleetAction {
    /// Its name, as that of the admin API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drop { .. } => "drop-tokens",
            Self::Disable { .. } => "disable-tenant",
            Self::Enable { .. } => "enable-tenant",
        }
    }

    /// The tenant that it is about.
    pub fn tenant(&self) -> &str {
        match self {
            Self::Drop { tenant, .. } | Self::Disable { tenant } | Self::Enable { tenant } => {
                tenant
            }
        }
    }
}
