//! The token store of the fleet.

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
}
