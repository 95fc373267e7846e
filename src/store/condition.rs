//! The condition of the store as operators see it: in use or not, since when, and why.

use std::collections::HashMap;
use std::fmt;
use std::time::SystemTime;

use parking_lot::Mutex;
use redis::{Value, from_redis_value};
use serde::Serialize;

/// The condition of the store at one moment.
#[derive(Clone, Debug)]
pub struct StoreCondition {
    /// Whether it is in use.
    pub state: StoreState,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// How often the breaker has opened.
    pub breaker_opened: u64,
    /// The last fault, even if the store is in use again.
    pub last_fault: Option<StoreFault>,
    /// The engine, once it has said what it is.
    pub engine: Option<StoreEngine>,
    /// The master that it leads to, if sentinels have named it.
    pub master: Option<String>,
}

/// Whether the store is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// The first trial has not ended.
    Connecting,
    /// It is.
    InUse,
    /// The breaker is open: the gateway exchanges for itself.
    Away,
}

/// A fault of the store.
#[derive(Clone, Debug)]
pub struct StoreFault {
    /// When it was noticed.
    pub at: SystemTime,
    /// Its cause in words, without a secret.
    pub cause: String,
}

/// The program that the store is, as it names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEngine {
    name: String,
    version: String,
}

impl StoreEngine {
    /// The engine in a reply to `HELLO`, which any user may send.
    pub(super) fn read(reply: &HashMap<String, Value>) -> Option<Self> {
        let text = |key: &str| {
            let text: String = from_redis_value(reply.get(key)?.clone()).ok()?;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            (!text.is_empty() && text.len() <= MAX_NAME && text.chars().all(is_plain))
                .then_some(text)
        };
        Some(Self { name: text("server")?, version: text("version")? })
    }

    /// Whether it is a Redis that lacks commands which the gateway sends.
    pub fn is_too_old(&self) -> bool {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        self.name == "redis" && major.is_some_and(|major| major < MIN_REDIS)
    }
}

impl fmt::Display for StoreEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// The record of a store's condition.
pub(super) struct ConditionRecord(Mutex<StoreCondition>);

impl ConditionRecord {
    pub(super) fn new() -> Self {
        Self(Mutex::new(StoreCondition {
            state: StoreState::Connecting,
            since: SystemTime::now(),
            breaker_opened: 0,
            last_fault: None,
            engine: None,
            master: None,
        }))
    }

    pub(super) fn get(&self) -> StoreCondition {
        self.0.lock().clone()
    }

    /// The store is in use from now on, by `master` if sentinels have named it.
    pub(super) fn in_use(&self, master: Option<String>) {
        let mut now = self.0.lock();
        now.enter(StoreState::InUse);
        now.master = master;
    }

    /// A request or a trial has failed: the store is not in use from now on.
    pub(super) fn away(&self, cause: String) {
        let mut now = self.0.lock();
        if now.state != StoreState::Away {
            now.breaker_opened += 1;
        }
        now.enter(StoreState::Away);
        now.master = None;
        now.last_fault = Some(StoreFault { at: SystemTime::now(), cause });
    }

    pub(super) fn learn(&self, engine: Option<StoreEngine>) {
        self.0.lock().engine = engine;
    }
}

impl StoreCondition {
    fn enter(&mut self, state: StoreState) {
        if self.state != state {
            self.state = state;
            self.since = SystemTime::now();
        }
    }
}

/// The first Redis with `PEXPIRE … GT`.
const MIN_REDIS: u32 = 7;
/// Most characters of an engine's name, and of its version.
const MAX_NAME: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(server: &str, version: &str) -> HashMap<String, Value> {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        HashMap::from([("server".into(), text(server)), ("version".into(), text(version))])
    }

    #[test]
    fn an_engine_is_read_from_its_greeting_and_an_old_one_is_known() {
        let engine = |server, version| StoreEngine::read(&reply(server, version));
        let current = engine("redis", "7.0.15").unwrap();
        assert_eq!((current.to_string().as_str(), current.is_too_old()), ("redis 7.0.15", false));
        assert!(engine("redis", "6.2.14").unwrap().is_too_old());
        assert!(!engine("valkey", "8.1.1").unwrap().is_too_old());
        assert!(!engine("other", "1.0").unwrap().is_too_old(), "its numbers are its own");
        assert_eq!(engine("redis", "<b>7</b>"), None);
        assert_eq!(engine("redis", &"7".repeat(41)), None);
        assert_eq!(StoreEngine::read(&HashMap::new()), None);
    }

    #[test]
    fn the_record_keeps_the_begin_of_a_state_and_the_last_fault() {
        let record = ConditionRecord::new();
        assert_eq!(record.get().state, StoreState::Connecting);
        record.away("refused".into());
        let first = record.get();
        record.away("no reply".into());
        let second = record.get();
        assert_eq!((second.state, second.since), (StoreState::Away, first.since));
        assert_eq!((second.breaker_opened, &*second.last_fault.unwrap().cause), (1, "no reply"));
        record.in_use(Some("10.0.0.1:6379".into()));
        let third = record.get();
        assert_eq!(
            (third.state, third.master.as_deref()),
            (StoreState::InUse, Some("10.0.0.1:6379"))
        );
        assert_eq!(third.last_fault.unwrap().cause, "no reply", "it stays for operators");
        record.away("reset".into());
        assert_eq!((record.get().breaker_opened, record.get().master), (2, None));
    }
}
