//! Leases: who exchanges for the fleet. A failed exchange is told apart from a holder that died.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::identity::Identity;
use super::names::ValueNames;
use super::{Inner, LeaseState, StoredToken, TokenStore, Unanswered, milliseconds, push_lookup};

/// The right to exchange for the fleet. It ends by itself.
pub struct StoreLease {
    names: Vec<ValueNames>,
    owner: String,
    length: Duration,
}

/// The attempt to take a lease.
pub enum Claim {
    /// It is taken, and this was found meanwhile.
    Taken(StoreLease, Option<StoredToken>),
    /// It is of another replica.
    NotTaken(LeaseState),
}

/// The reply to the request for a lease, and those to a lookup.
type ClaimReply = (Option<String>, Option<Vec<u8>>, i64, Vec<Vec<u8>>, Option<Vec<u8>>);

impl TokenStore {
    /// Takes the lease under every key, so that replicas that list them in another order see it.
    ///
    /// # Errors
    /// As [`TokenStore::get`].
    pub async fn claim(&self, identity: &Identity, length: Duration) -> Result<Claim, Unanswered> {
        let owner = data_encoding::HEXLOWER.encode(&fastrand::u128(..).to_be_bytes());
        let mut lease = StoreLease { names: Vec::new(), owner, length };
        let mut found = Vec::new();
        for key in &self.inner.ordered {
            let names = self.names(key, identity);
            let mut pipeline = redis::pipe();
            pipeline.cmd("SET").arg(names.lease()).arg(&lease.owner).arg("NX").arg("PX");
            pipeline.arg(milliseconds(length));
            push_lookup(&mut pipeline, &names);
            let reply = self.inner.link.request::<ClaimReply>(&names, &pipeline).await;
            let (taken, sealed, ttl, refused, holder) = match reply {
                Ok(reply) => reply,
                Err(fault) => {
                    // The reply may have been lost after the lease was taken.
                    lease.names.push(names);
                    self.release(lease).await;
                    return Err(self.unanswered(fault));
                }
            };
            if taken.is_some() {
                lease.names.push(names);
            }
            let lookup = self.read(key, identity, (sealed, ttl, refused, holder));
            let state = lookup.as_ref().map_or(LeaseState::Taken, |lookup| lookup.lease);
            found.push(lookup);
            if taken.is_none() {
                self.release(lease).await;
                return Ok(Claim::NotTaken(state));
            }
        }
        match self.best(found) {
            Ok(lookup) => Ok(Claim::Taken(lease, lookup.token)),
            Err(Unanswered) => {
                self.release(lease).await;
                Err(Unanswered)
            }
        }
    }

    /// Extends `lease` again and again. It never ends.
    pub async fn extend(&self, lease: &StoreLease) {
        let mut ticks = interval(lease.length / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.inner.of_owner(lease, EXTEND, milliseconds(lease.length)).await;
        }
    }

    /// Ends `lease`.
    pub async fn release(&self, lease: StoreLease) {
        self.end(lease, RELEASE, 0).await;
    }

    /// Ends `lease`: its exchange has failed, and the others need not wait to fail in a row.
    pub async fn failed(&self, lease: StoreLease) {
        self.end(lease, FAIL, milliseconds(FAILED_FOR)).await;
    }

    /// Ends `lease` by `script`. Where the store gives no reply, other gateways with a way to it
    /// would wait for the end of the lease: it is released in the background once there is a way.
    async fn end(&self, lease: StoreLease, script: &'static str, milliseconds: u64) {
        if self.inner.of_owner(&lease, script, milliseconds).await {
            return;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let end = Instant::now() + lease.length;
            while Instant::now() < end {
                sleep(RELEASE_PAUSE).await;
                if inner.of_owner(&lease, RELEASE, 0).await {
                    return;
                }
            }
        });
    }
}

impl Inner {
    /// Runs `script` where the lease is still of its owner. False without a reply.
    async fn of_owner(&self, lease: &StoreLease, script: &str, milliseconds: u64) -> bool {
        let replies = lease.names.iter().map(async |names| {
            let mut pipeline = redis::pipe();
            pipeline.cmd("EVAL").arg(script).arg(1).arg(names.lease());
            pipeline.arg(&lease.owner).arg(milliseconds).ignore();
            self.link.request::<()>(names, &pipeline).await
        });
        join_all(replies).await.into_iter().all(|reply| reply.is_ok())
    }
}

/// The pause between two attempts to release a lease.
const RELEASE_PAUSE: Duration = Duration::from_millis(100);
/// How long a failure is remembered: those who wait ask at least that often.
const FAILED_FOR: Duration = Duration::from_millis(500);
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const EXTEND: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
                      return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";
const FAIL: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
                    redis.call('SET', KEYS[1], 'failed', 'PX', ARGV[2]) end return 0";
