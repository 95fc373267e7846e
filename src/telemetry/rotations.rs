//! The tenants whose secret has a rotation that has begun and not ended.

use std::sync::Arc;

use parking_lot::Mutex;

/// Their names, as the last look at the journals found them.
#[derive(Debug, Default)]
pub struct UnfinishedRotations(Mutex<Arc<[String]>>);

impl UnfinishedRotations {
    /// Takes the names of a new look.
    pub fn found(&self, tenants: Vec<String>) {
        *self.0.lock() = tenants.into();
    }

    /// The names.
    pub fn tenants(&self) -> Arc<[String]> {
        Arc::clone(&self.0.lock())
    }
}
