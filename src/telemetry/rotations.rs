//! The tenants whose secret has a rotation that has begun and not ended.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;

/// The result of the last look at the journals, and the way to a new one.
#[derive(Debug, Default)]
pub struct UnfinishedRotations {
    last: Mutex<LookedUp>,
    look: Mutex<Look>,
}

/// Names of tenants in order, and for each the command that ends its rotation.
#[derive(Debug, Default)]
struct LookedUp {
    tenants: Arc<[String]>,
    commands: Vec<String>,
}

/// Looks at the disk for one tenant, once it is set.
#[derive(Default)]
struct Look(Option<Box<LookFor>>);

type LookFor = dyn Fn(&str) -> Looking + Send + Sync;

/// The look under way, which finds the command that ends the rotation, if there is one.
type Looking = Pin<Box<dyn Future<Output = Result<Option<String>, LookFailed>> + Send>>;

/// A look at the disk that did not end in time, or did not begin.
#[derive(Clone, Copy, Debug)]
pub struct LookFailed;

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

impl UnfinishedRotations {
    /// Takes the tenants of a new look, in the order of their names, each with the command that
    /// ends its rotation.
    pub fn found(&self, rotations: impl IntoIterator<Item = (String, String)>) {
        let (tenants, commands): (Vec<_>, Vec<_>) = rotations.into_iter().unzip();
        *self.last.lock() = LookedUp { tenants: tenants.into(), commands };
    }

    /// Sets the way to look at the disk.
    pub fn look_by(&self, look: impl Fn(&str) -> Looking + Send + Sync + 'static) {
        *self.look.lock() = Look(Some(Box::new(look)));
    }

    /// The names of the tenants.
    pub fn tenants(&self) -> Arc<[String]> {
        Arc::clone(&self.last.lock().tenants)
    }

    /// The command that ends the rotation of this tenant's secret; `None` if there is none. It is
    /// looked up on the disk; where that fails, it is the result of the last look.
    pub async fn command_now(&self, tenant: &str) -> Option<String> {
        let last = self.command(tenant);
        match self.looking(tenant) {
            Some(looking) => looking.await.unwrap_or(last),
            None => last,
        }
    }

    /// Gives the same to `then`, in a task of its own where it is looked up on the disk.
    pub fn tell(&self, tenant: &str, then: impl FnOnce(Option<String>) + Send + 'static) {
        let last = self.command(tenant);
        match self.looking(tenant) {
            Some(looking) => drop(tokio::spawn(async move { then(looking.await.unwrap_or(last)) })),
            None => then(last),
        }
    }

    fn looking(&self, tenant: &str) -> Option<Looking> {
        self.look.lock().0.as_ref().map(|look| look(tenant))
    }

    /// The command by the result of the last look.
    pub fn command(&self, tenant: &str) -> Option<String> {
        let found = self.last.lock();
        let at = found.tenants.binary_search_by(|known| known.as_str().cmp(tenant)).ok()?;
        found.commands.get(at).cloned()
    }
}
