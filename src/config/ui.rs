//! The key `ui` of a listener: the servers whose static files and data service it passes on.

use std::collections::HashSet;
use std::sync::Arc;

use crate::tenant::{UiServer, UiServers};

use super::Check;
use super::field::{Field, some};
use super::finding::Noted;
use super::place::Place;
use super::servers::Servers;
use super::tenants::FoundTenants;

impl Check<'_> {
    /// The servers that a listener passes on; `None` if not given.
    pub(super) fn ui_servers(
        self,
        at: &Place<'_>,
        names: Field<Vec<Field<String>>>,
        servers: &Servers,
        tenants: &FoundTenants,
    ) -> Result<Option<Arc<UiServers>>, Noted> {
        let Some(names) = names.optional()? else { return Ok(None) };
        let several = names.len() > 1;
        let mut known = HashSet::new();
        let found = some(names, at, SERVERS, self.notes, |at, name| {
            let found = servers.find(at, &name, self)?;
            if found.passes_ui == Ok(false) {
                let problem = format!("found a server without `servers.{name}.ui: pass`");
                return Err(self.notes.add(at.finding(problem, SERVERS)));
            }
            if !known.insert(name.clone()) {
                return Err(self.notes.add(at.finding("found the same server again", "each once")));
            }
            let Some(hosts) = tenants.hosts_on(&name) else {
                let problem = "found a server without a tenant";
                return Err(self.notes.add(at.finding(problem, "a server that a tenant is on")));
            };
            if several && hosts.is_empty() {
                let problem = "found a server beside others whose tenants have no `hosts`";
                let finding = at.finding(problem, "one server, or servers with different hosts");
                return Err(self.notes.add(finding.hint(DIFFERENT)));
            }
            let hosts = if several { hosts } else { HashSet::new() };
            Ok(UiServer { server: found.server.clone()?, hosts })
        })?;
        Ok(Some(Arc::new(found.into_iter().collect())))
    }
}

const SERVERS: &str = "names of servers with `ui: pass`";
const DIFFERENT: &str = "static files have the same paths on all servers, so that the host alone tells which one is meant: \
                         give the tenants `hosts`, or each server a listener of its own";
