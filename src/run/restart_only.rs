//! The settings that a reload cannot change.

use crate::config::{ListenAddress, Settings, SocketAccess};

/// The settings that a reload cannot change.
#[derive(Clone)]
pub(super) struct RestartOnly {
    admin_address: ListenAddress,
    admin_access: SocketAccess,
    pub(super) admin_status: bool,
    admin_tls: bool,
    pub(super) max_connections: usize,
    token_cache_entries: u64,
}

impl RestartOnly {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            admin_address: settings.admin.address.clone(),
            admin_access: settings.admin.access,
            admin_status: settings.admin.status,
            admin_tls: settings.admin.tls.is_some(),
            max_connections: settings.limits.max_connections,
            token_cache_entries: settings.limits.token_cache_entries,
        }
    }

    /// The keys with other values in `other`.
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("admin.address", self.admin_address == other.admin_address),
            ("admin.mode", self.admin_access.mode == other.admin_access.mode),
            ("admin.group", self.admin_access.group == other.admin_access.group),
            ("admin.status", self.admin_status == other.admin_status),
            ("admin.tls", self.admin_tls == other.admin_tls),
            ("limits.max_connections", self.max_connections == other.max_connections),
            ("limits.token_cache_entries", self.token_cache_entries == other.token_cache_entries),
        ];
        keys.into_iter().filter_map(|(key, same)| (!same).then_some(key)).collect()
    }
}
