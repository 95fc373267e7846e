//! The way to the store, with a breaker: the first failure opens it, and the store is not asked
//! until a trial in the background has succeeded. No request waits for longer than one timeout.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use redis::{FromRedisValue, Pipeline, RedisError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::cause::StoreCause;
use super::condition::{ConditionRecord, StoreCondition, StoreState};
use super::connection::{ConnectFault, StoreConnection, master};
use super::names::ValueNames;
use super::settings::{StoreNode, StoreSettings, StoreTarget};
use super::trials;
use crate::telemetry::{LogLimiter, StoreMetrics, StoreOutcome};

/// The way to the store.
pub(super) struct Link {
    settings: StoreSettings,
    connection: RwLock<Option<UsedConnection>>,
    /// Whether the first trial has ended.
    tried: watch::Sender<bool>,
    /// How many connections there were.
    connections: AtomicU64,
    begun: Instant,
    /// Notified when the breaker opens.
    opened: Notify,
    /// The names whose request failed last: a trial asks for them.
    failed: RwLock<Option<ValueNames>>,
    record: ConditionRecord,
    /// Bounds the lines about an outage, each cause for itself.
    outage: Mutex<LogLimiter>,
    /// Whether the last line in the log says that it is away.
    is_said_away: AtomicBool,
    metrics: StoreMetrics,
}

#[derive(Clone)]
struct UsedConnection {
    number: u64,
    connection: StoreConnection,
    /// The master that it leads to, if sentinels have named it.
    master: Option<StoreNode>,
}

/// Why a request has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoReply {
    /// The store cannot be used.
    Away,
    /// The key holds something that no gateway writes.
    WrongType,
}

impl Link {
    pub(super) fn new(settings: StoreSettings, metrics: StoreMetrics) -> Self {
        Self {
            settings,
            connection: RwLock::default(),
            tried: watch::Sender::new(false),
            connections: AtomicU64::default(),
            begun: Instant::now(),
            opened: Notify::new(),
            failed: RwLock::default(),
            record: ConditionRecord::new(),
            outage: Mutex::default(),
            is_said_away: AtomicBool::new(true),
            metrics,
        }
    }

    pub(super) fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    pub(super) fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.read().is_some()
    }

    pub(super) fn condition(&self) -> StoreCondition {
        self.record.get()
    }

    /// Sends `pipeline`, all of whose keys are of `names`.
    pub(super) async fn request<T: FromRedisValue>(
        &self,
        names: &ValueNames,
        pipeline: &Pipeline,
    ) -> Result<T, NoReply> {
        self.first_trial().await;
        let Some(mut open) = self.connection.read().clone() else {
            self.metrics.count(StoreOutcome::HeldBack);
            return Err(NoReply::Away);
        };
        let begun = Instant::now();
        let sent = timeout(self.settings.timeout, open.connection.send(pipeline)).await;
        self.metrics.seconds.observe(begun.elapsed());
        match sent {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) if is_wrong_type(&error) => Err(NoReply::WrongType),
            Ok(Err(error)) => {
                self.metrics.count(StoreOutcome::Failed);
                self.fail(open.number, names, &error.to_string());
                Err(NoReply::Away)
            }
            Err(_) => {
                self.metrics.count(StoreOutcome::Timeout);
                let error = format!("no reply within {:?}", self.settings.timeout);
                self.fail(open.number, names, &error);
                Err(NoReply::Away)
            }
        }
    }

    /// Waits for the first trial, so that a gateway that has just started uses the tokens of the
    /// others; not for long, because the store may be down.
    async fn first_trial(&self) {
        let mut tried = self.tried.subscribe();
        if !*tried.borrow() {
            let _ = timeout_at(self.begun + TRIAL_TIMEOUT, tried.wait_for(|tried| *tried)).await;
        }
    }

    /// Opens the breaker, unless the connection `number` has been replaced.
    fn fail(&self, number: u64, names: &ValueNames, error: &str) {
        let mut connection = self.connection.write();
        if connection.as_ref().is_none_or(|open| open.number != number) {
            return;
        }
        *connection = None;
        let cause = StoreCause::of(error);
        let error = cause.in_words(self.settings.harmless(error));
        self.begin_outage();
        self.record.away(error.clone());
        drop(connection);
        *self.failed.write() = Some(names.clone());
        self.opened.notify_one();
        if let Some(repeated) = self.outage.lock().allow_reason("use", Some(cause.into())) {
            self.is_said_away.store(true, Relaxed);
            tracing::warn!(
                store = %self.settings.target,
                error = error.as_str(),
                repeated = (repeated > 0).then_some(repeated),
                hint = cause.hint(),
                "the token store cannot be used: this gateway exchanges for itself until it is back"
            );
        }
    }

    /// An outage after a time of use is a new one. Others are the same, with short pauses.
    fn begin_outage(&self) {
        let before = self.record.get();
        let used = before.since.elapsed().unwrap_or_default();
        if before.state == StoreState::InUse && used > USED {
            *self.outage.lock() = LogLimiter::default();
        }
    }

    /// Waits until the breaker opens, for `max` at most.
    pub(super) async fn until_opened(&self, max: Duration) {
        let _ = timeout(max, self.opened.notified()).await;
    }

    /// Opens the breaker if sentinels name another master than the one that is connected to.
    pub(super) async fn check_master(&self, names: &ValueNames) {
        let open = self.connection.read().clone();
        let Some(UsedConnection { number, master: Some(known), .. }) = open else { return };
        // Sentinels that cannot be asked say nothing about the master.
        if let Ok(Ok(now)) = timeout(TRIAL_TIMEOUT, master(&self.settings)).await
            && now != known
        {
            self.fail(number, names, &format!("the sentinels name another master, {now}"));
        }
    }

    /// Tries to connect, all commands, and to read by `first`; then the breaker closes.
    pub(super) async fn trial(
        &self,
        names: &ValueNames,
        first: impl AsyncFnOnce(&mut StoreConnection) -> Result<(), RedisError>,
    ) {
        let failed = self.failed.read().clone();
        let probed = failed.as_ref().unwrap_or(names);
        let tried = timeout(TRIAL_TIMEOUT, self.connect(probed)).await;
        let opened = match tried {
            Ok(Ok((mut connection, master))) => {
                match timeout(TRIAL_TIMEOUT, first(&mut connection)).await {
                    Ok(Ok(())) => Ok((connection, master)),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("no reply within {TRIAL_TIMEOUT:?}")),
                }
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {TRIAL_TIMEOUT:?}")),
        };
        match opened {
            Ok((connection, master)) => {
                let number = self.connections.fetch_add(1, Relaxed);
                let leads_to = master.as_ref().map(ToString::to_string);
                let mut used = self.connection.write();
                self.record.in_use(leads_to);
                *used = Some(UsedConnection { number, connection, master });
                drop(used);
                if self.is_said_away.swap(false, Relaxed) {
                    tracing::info!(store = %self.settings.target, "the token store is in use");
                }
            }
            Err(error) => {
                let cause = StoreCause::of(&error);
                let error = cause.in_words(self.settings.harmless(&error));
                self.record.away(error.clone());
                let allowed = self.outage.lock().allow_reason("trial", Some(cause.into()));
                if let Some(repeated) = allowed {
                    self.is_said_away.store(true, Relaxed);
                    tracing::warn!(
                        store = %self.settings.target,
                        error,
                        repeated = (repeated > 0).then_some(repeated),
                        hint = cause.hint(),
                        "no trial of the token store succeeds"
                    );
                }
            }
        }
        self.tried.send_replace(true);
    }

    /// Asks the store what it is. A store that does not say so is used all the same.
    pub(super) async fn learn_engine(&self) {
        let open = self.connection.read().clone();
        let Some(UsedConnection { mut connection, .. }) = open else { return };
        let asked = timeout(TRIAL_TIMEOUT, connection.engine()).await;
        self.record.learn(asked.ok().and_then(Result::ok).flatten());
    }

    /// A connection that takes writes where `names` are kept.
    async fn connect(
        &self,
        names: &ValueNames,
    ) -> Result<(StoreConnection, Option<StoreNode>), ConnectFault> {
        let is_sentinel = matches!(self.settings.target, StoreTarget::Sentinel { .. });
        let master = if is_sentinel { Some(master(&self.settings).await?) } else { None };
        let mut connection = StoreConnection::open(&self.settings, master.as_ref()).await?;
        // A store without one of the commands would fail again at once.
        connection.send::<()>(&trials::pipeline(names)).await?;
        Ok((connection, master))
    }
}

/// The error of a pipeline has no code of its own: it lists those of its requests as text.
pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE") || error.to_string().contains("WRONGTYPE")
}

/// Bounds a trial, and the wait for the first one after a start.
pub(super) const TRIAL_TIMEOUT: Duration = Duration::from_millis(700);
/// A store that was used for longer has come back for good.
const USED: Duration = Duration::from_secs(10);
