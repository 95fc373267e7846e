//! The token store that replicas have in common: Redis or Valkey. It holds sealed tokens, leases of
//! those who exchange, digests of refused tokens, and operators' actions. It is never a reason to
//! fail: what it does not give within its timeout, a gateway does for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use crate::telemetry::{StoreOutcome, Telemetry};

mod actions;
mod cause;
mod condition;
mod connection;
mod fleet_action;
mod identity;
mod keeper;
mod known_actions;
mod lease;
mod link;
mod names;
mod probe;
mod repair;
mod seal;
mod settings;
mod token_record;
mod trials;

use actions::Actions;
pub use cause::StoreCause;
pub use condition::{StoreCondition, StoreEngine, StoreFault, StoreState};
pub use fleet_action::{FleetAction, FollowedAction, UnopenedActions};
pub use identity::Identity;
pub use lease::{Claim, StoreLease};
use link::{Link, NoReply};
use names::ValueNames;
pub use probe::{ProbeFault, StoreProbe};
use seal::Unsealable;
pub use seal::{NotASealingKey, SealingKey};
pub use settings::{StoreLogin, StoreNode, StoreSettings, StoreTarget, StoreTls};
use token_record::TokenRecord;

/// The store, as one gateway uses it.
pub struct TokenStore {
    inner: Arc<Inner>,
    keeper: AbortHandle,
}

/// The parts that its background task works on as well.
struct Inner {
    link: Link,
    actions: Actions,
    /// The keys in the order that is the same on all replicas.
    ordered: Vec<SealingKey>,
    /// How many tokens were opened by each key, in the order of the settings.
    opened: Vec<AtomicU64>,
}

/// A token from the store.
pub struct StoredToken {
    /// Its text.
    pub token: Zeroizing<Vec<u8>>,
    /// The time since it was asked for.
    pub age: Duration,
    /// The time to its end.
    pub left: Duration,
}

/// The values that the store holds for an identity.
pub struct StoredValues {
    /// The token, unless it was refused or dropped.
    pub token: Option<StoredToken>,
    /// The one who exchanges.
    pub lease: LeaseState,
}

/// Whether somebody exchanges for the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Nobody.
    Free,
    /// One replica, at the moment.
    Taken,
    /// One replica has just failed.
    Failed,
}

/// The store gives no answer: it cannot be used, or a newer gateway wrote the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// The replies to a lookup: the sealed token, its remaining life, the refused digests, the lease.
type LookupReply = (Option<Vec<u8>>, i64, Vec<Vec<u8>>, Option<Vec<u8>>);

impl TokenStore {
    /// The store of `settings`. Actions of other replicas go to `act`.
    pub fn start(
        settings: StoreSettings,
        telemetry: &Telemetry,
        act: impl Fn(FollowedAction) + Send + Sync + 'static,
    ) -> Self {
        let mut ordered = settings.sealing_keys.clone();
        ordered.sort_by_key(|key| *key.id());
        let actions = Actions::new(Box::new(act));
        let opened = settings.sealing_keys.iter().map(|_| AtomicU64::default()).collect();
        let link = Link::new(settings, telemetry.token_store.clone());
        let inner = Arc::new(Inner { link, actions, ordered, opened });
        let keeper = tokio::spawn(keeper::keep(Arc::downgrade(&inner))).abort_handle();
        Self { inner, keeper }
    }

    /// Its settings.
    pub fn settings(&self) -> &StoreSettings {
        self.inner.link.settings()
    }

    /// Whether it can be used at the moment.
    pub fn is_up(&self) -> bool {
        self.inner.link.is_up()
    }

    /// Its condition.
    pub fn condition(&self) -> StoreCondition {
        self.inner.link.condition()
    }

    /// How many tokens were opened by each sealing key, in the order of the settings. The first
    /// key seals.
    pub fn opened(&self) -> Vec<u64> {
        self.inner.opened.iter().map(|count| count.load(Relaxed)).collect()
    }

    /// The entries among operators' actions that none of the sealing keys opens.
    pub fn unopened_actions(&self) -> UnopenedActions {
        self.inner.actions.unopened()
    }

    /// Looks under every key.
    ///
    /// # Errors
    /// When the store cannot be used, or a newer gateway wrote the value.
    pub async fn get(&self, identity: &Identity) -> Result<StoredValues, Unanswered> {
        let keys = &self.inner.link.settings().sealing_keys;
        let found = join_all(keys.iter().map(|key| self.look_under(key, identity))).await;
        self.best(found)
    }

    async fn look_under(
        &self,
        key: &SealingKey,
        identity: &Identity,
    ) -> Result<StoredValues, Unanswered> {
        let names = self.names(key, identity);
        let mut reply = self.inner.link.request(&names, &lookup(&names)).await;
        if matches!(reply, Err(NoReply::WrongType)) {
            self.inner.repair(&names).await;
            reply = self.inner.link.request(&names, &lookup(&names)).await;
        }
        self.read(key, identity, reply.map_err(|fault| self.unanswered(fault))?)
    }

    /// The best of what was found under the keys.
    fn best(
        &self,
        found: Vec<Result<StoredValues, Unanswered>>,
    ) -> Result<StoredValues, Unanswered> {
        let mut best = StoredValues { token: None, lease: LeaseState::Free };
        for one in found {
            let StoredValues { token, lease } = one?;
            if token.as_ref().map(|t| t.left) > best.token.as_ref().map(|t| t.left) {
                best.token = token;
            }
            if lease != LeaseState::Free {
                best.lease = lease;
            }
        }
        let is_hit = best.token.is_some();
        self.count(if is_hit { StoreOutcome::Hit } else { StoreOutcome::Miss });
        Ok(best)
    }

    fn read(
        &self,
        key: &SealingKey,
        identity: &Identity,
        (sealed, ttl, refused, lease): LookupReply,
    ) -> Result<StoredValues, Unanswered> {
        let lease = match lease.as_deref() {
            None => LeaseState::Free,
            Some(FAILED) => LeaseState::Failed,
            Some(_) => LeaseState::Taken,
        };
        let none = Ok(StoredValues { token: None, lease });
        let Some(sealed) = sealed else { return none };
        let record = match key.open(identity, &sealed).map(|plain| TokenRecord::read(&plain)) {
            Ok(Some(record)) => record,
            Err(Unsealable::Format) => {
                self.count(StoreOutcome::Unusable);
                self.inner.warn_of_value(Some(identity.tenant()), "a newer gateway wrote it");
                return Err(Unanswered);
            }
            Ok(None) | Err(Unsealable::Broken) => {
                self.count(StoreOutcome::Unusable);
                let reason = "somebody has changed it, or moved it to another name";
                self.inner.warn_of_value(Some(identity.tenant()), reason);
                return none;
            }
        };
        let keys = &self.inner.link.settings().sealing_keys;
        if let Some(number) = keys.iter().position(|known| known == key) {
            self.inner.opened[number].fetch_add(1, Relaxed);
        }
        let digest = key.refused(identity, &record.token);
        if refused.contains(&digest) || self.inner.actions.dropped(identity, record.seen) {
            return none;
        }
        Ok(StoredValues { token: record.at(SystemTime::now(), ttl), lease })
    }

    /// Stores a token that was obtained `age` ago and ends in `left`, under the first key. `seen`
    /// is from [`TokenStore::seen`], read before its exchange began.
    pub async fn put(
        &self,
        identity: &Identity,
        token: &[u8],
        (age, left): (Duration, Duration),
        seen: SeenActions,
    ) {
        let Some(key) = self.inner.link.settings().sealing_keys.first() else { return };
        let now = SystemTime::now();
        let record = TokenRecord {
            seen,
            obtained: now.checked_sub(age).unwrap_or(UNIX_EPOCH),
            end: now + left,
            token: Zeroizing::new(token.to_vec()),
        };
        let Ok(sealed) = key.seal(identity, &record.write()) else { return };
        let names = self.names(key, identity);
        let mut pipeline = redis::pipe();
        // A server may give a token out again that it has refused.
        let digest = key.refused(identity, token);
        pipeline.cmd("LREM").arg(names.refused()).arg(0).arg(digest).ignore();
        pipeline.cmd("SET").arg(names.token()).arg(sealed).arg("PX");
        pipeline.arg(milliseconds(left)).ignore();
        if self.inner.link.request::<()>(&names, &pipeline).await.is_ok() {
            self.count(StoreOutcome::Stored);
        }
    }

    /// Keeps the digest of a token that the server has refused, for the rest of its life.
    pub async fn refuse(&self, identity: &Identity, token: &[u8], left: Duration) {
        let keys = &self.inner.link.settings().sealing_keys;
        join_all(keys.iter().map(async |key| {
            let (names, digest) = (self.names(key, identity), key.refused(identity, token));
            let (list, left) = (names.refused(), milliseconds(left));
            let mut pipeline = redis::pipe();
            pipeline.cmd("LREM").arg(&list).arg(0).arg(&digest).ignore();
            pipeline.cmd("LPUSH").arg(&list).arg(&digest).ignore();
            pipeline.cmd("LTRIM").arg(&list).arg(0).arg(MAX_REFUSED - 1).ignore();
            // Never shorter than another refused token needs.
            pipeline.cmd("PEXPIRE").arg(&list).arg(left).arg("NX").ignore();
            pipeline.cmd("PEXPIRE").arg(&list).arg(left).arg("GT").ignore();
            let mut kept = self.inner.link.request::<()>(&names, &pipeline).await;
            if kept == Err(NoReply::WrongType) {
                self.inner.repair(&names).await;
                kept = self.inner.link.request::<()>(&names, &pipeline).await;
            }
            if kept.is_ok() {
                self.count(StoreOutcome::Refused);
            }
        }))
        .await;
    }

    /// The actions that this gateway knows: a token of an exchange that begins now is of no earlier
    /// time than theirs.
    pub fn seen(&self) -> SeenActions {
        self.inner.actions.seen()
    }

    /// Tells the other replicas of an operator's action. Returns whether the store took it.
    pub async fn announce(&self, action: &FleetAction) -> bool {
        self.inner.announce(action).await
    }

    fn names(&self, key: &SealingKey, identity: &Identity) -> ValueNames {
        ValueNames::of(&self.inner.link.settings().prefix, key, identity)
    }

    fn unanswered(&self, fault: NoReply) -> Unanswered {
        if fault == NoReply::WrongType {
            self.count(StoreOutcome::Unusable);
        }
        Unanswered
    }

    fn count(&self, outcome: StoreOutcome) {
        self.inner.link.metrics().count(outcome);
    }
}

impl Drop for TokenStore {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The newest action that a gateway knows, by its sealed time in milliseconds; the number is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeenActions {
    milliseconds: u64,
    number: u64,
}

fn lookup(names: &ValueNames) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    push_lookup(&mut pipeline, names);
    pipeline
}

fn push_lookup(pipeline: &mut redis::Pipeline, names: &ValueNames) {
    pipeline.cmd("GET").arg(names.token());
    pipeline.cmd("PTTL").arg(names.token());
    pipeline.cmd("LRANGE").arg(names.refused()).arg(0).arg(-1);
    pipeline.cmd("GET").arg(names.lease());
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_MILLISECONDS)
}

/// The value of a lease whose exchange has failed.
const FAILED: &[u8] = b"failed";
/// Most refused tokens of one permit whose digests are kept.
const MAX_REFUSED: isize = 16;
/// A hundred years: the store refuses times that no token has.
const MAX_MILLISECONDS: u64 = 100 * 365 * 86_400 * 1000;
