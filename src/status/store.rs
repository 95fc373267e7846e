//! The token store of the fleet.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::store::{StoreState, TokenStore};
use crate::telemetry::timestamp;

/// The token store, as this gateway uses it.
#[derive(Debug, Serialize)]
pub(super) struct TokenStoreStatus {
    state: StoreState,
    since: String,
    breaker_open: bool,
    /// How often the breaker has opened since the section was last changed.
    breaker_opened: u64,
    last_fault: Option<StoreFaultStatus>,
    /// Name and version, as the store says them.
    engine: Option<String>,
    /// The master that sentinels have named.
    master: Option<String>,
    sealing_keys: Vec<SealingKeyStatus>,
    unopened_actions: UnopenedActionsStatus,
    #[serde(skip)]
    has_foreign_key: bool,
}

/// Entries among operators' actions that no sealing key opens.
#[derive(Debug, Serialize)]
struct UnopenedActionsStatus {
    count: u64,
    last: Option<String>,
}

/// The last fault, even if the store is in use again.
#[derive(Debug, Serialize)]
struct StoreFaultStatus {
    at: String,
    /// The error in words.
    cause: String,
}

/// A sealing key, by its number in the configuration.
#[derive(Clone, Copy, Debug, Serialize)]
struct SealingKeyStatus {
    number: usize,
    /// Whether new tokens are sealed with it.
    seals: bool,
    /// How many tokens it has opened.
    opened: u64,
}

impl TokenStoreStatus {
    pub(super) fn of(store: &TokenStore) -> Self {
        let now = store.condition();
        let unopened = store.unopened_actions();
        let is_recent = |at: SystemTime| at.elapsed().is_ok_and(|since| since < FOREIGN_KEY_SHOWN);
        let keys = store.opened().into_iter().enumerate();
        let key =
            |(index, opened)| SealingKeyStatus { number: index + 1, seals: index == 0, opened };
        Self {
            state: now.state,
            since: timestamp(now.since),
            breaker_open: now.state == StoreState::Away,
            breaker_opened: now.breaker_opened,
            last_fault: now
                .last_fault
                .map(|fault| StoreFaultStatus { at: timestamp(fault.at), cause: fault.cause }),
            engine: now.engine.map(|engine| engine.to_string()),
            master: now.master,
            sealing_keys: keys.map(key).collect(),
            has_foreign_key: unopened.last.is_some_and(is_recent),
            unopened_actions: UnopenedActionsStatus {
                count: unopened.count,
                last: unopened.last.map(timestamp),
            },
        }
    }

    /// The problem while it is away, in words.
    pub(super) fn problem(&self) -> Option<String> {
        let cause = self.last_fault.as_ref().map_or("no cause is known", |fault| &fault.cause);
        let since = &self.since;
        self.breaker_open.then(|| {
            format!(
                "the token store cannot be used since {since} ({cause}): this gateway exchanges for \
                 itself, see `doctor`"
            )
        })
    }
    /// The problem of a fleet whose gateways have different sealing keys, in words.
    pub(super) fn split(&self) -> Option<String> {
        let last = self.unopened_actions.last.as_deref().unwrap_or_default();
        self.has_foreign_key.then(|| {
            format!(
                "no sealing key of this gateway opens {} of the operators' actions in the token \
                 store, the last one of {last}: compare `token_store.sealing_keys` of all gateways",
                self.unopened_actions.count
            )
        })
    }
}

/// An action that cannot be opened is a problem for so long.
const FOREIGN_KEY_SHOWN: Duration = Duration::from_secs(3600);
