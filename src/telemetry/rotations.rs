//! The tenants whose secret has a rotation that has begun and not ended.

use std::sync::Arc;

use parking_lot::Mutex;

/// The result of the last look at the journals.
#[derive(Debug, Default)]
pub struct UnfinishedRotations(Mutex<LookedUp>);

/// Names of tenants in order, and for each the command that ends its rotation.
#[derive(Debug, Default)]
struct LookedUp {
    tenants: Arc<[String]>,
    commands: Vec<String>,
}

impl UnfinishedRotations {
    /// Takes the tenants of a new look, in the order of their names, each with the command that
    /// ends its rotation.
    pub fn found(&self, rotations: impl IntoIterator<Item = (String, String)>) {
        let (tenants, commands): (Vec<_>, Vec<_>) = rotations.into_iter().unzip();
        *self.0.lock() = LookedUp { tenants: tenants.into(), commands };
    }

    /// The names of the tenants.
    pub fn tenants(&self) -> Arc<[String]> {
        Arc::clone(&self.0.lock().tenants)
    }

    /// The command that ends the rotation of this tenant's secret; `None` if there is none.
    pub fn command(&self, tenant: &str) -> Option<String> {
        let found = self.0.lock();
        let at = found.tenants.binary_search_by(|known| known.as_str().cmp(tenant)).ok()?;
        found.commands.get(at).cloned()
    }
}
