//! The token store of the fleet, for as long as the configuration has it unchanged.

use std::sync::Arc;

use super::connections::Connections;
use crate::store::{StoreSettings, TokenStore};
use crate::telemetry::Telemetry;

/// The store of `settings`: `before` if nothing about it has changed. Operators' actions at other
/// gateways change the generation in force.
pub(super) fn store(
    settings: Option<StoreSettings>,
    before: Option<Arc<TokenStore>>,
    connections: &Arc<Connections>,
    telemetry: &Telemetry,
) -> Option<Arc<TokenStore>> {
    let settings = settings?;
    if let Some(before) = before.filter(|before| *before.settings() == settings) {
        return Some(before);
    }
    let connections = Arc::downgrade(connections);
    let follow = move |action| {
        if let Some(connections) = connections.upgrade() {
            connections.generation().gateway.follow(&action);
        }
    };
    Some(Arc::new(TokenStore::start(settings, telemetry, follow)))
}
