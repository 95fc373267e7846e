//! The servers whose static files and data service a listener passes on to pages. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use super::Server;
use crate::host::canonical;

/// The servers that a listener passes on. Several of them have different hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UiServers(Vec<UiServer>);

/// A server that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiServer {
    /// The server.
    pub server: Arc<Server>,
    /// The hosts that mean it, each [`canonical`]; empty if every host does.
    pub hosts: HashSet<String>,
}

impl UiServers {
    /// The server that a request for `host`, without a port, means.
    pub fn of_host(&self, host: Option<&str>) -> Option<&Arc<Server>> {
        let host = host.map(canonical);
        let means = |ui: &&UiServer| {
            ui.hosts.is_empty() || host.as_ref().is_some_and(|host| ui.hosts.contains(&**host))
        };
        self.0.iter().find(means).map(|ui| &ui.server)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.0.iter().map(|ui| &ui.server)
    }
}

impl FromIterator<UiServer> for UiServers {
    fn from_iter<I: IntoIterator<Item = UiServer>>(servers: I) -> Self {
        Self(servers.into_iter().collect())
    }
}
