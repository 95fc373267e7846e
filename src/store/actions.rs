//! Operators' actions, for all replicas: a stream that each replica reads twice a second, and as a
//! whole when it begins to use the store.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use redis::RedisError;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::connection::StoreConnection;
use super::fleet_action::{FleetAction, FollowedAction, UnopenedActions};
use super::identity::Identity;
use super::known_actions::{ActionNews, ActionStamp, EntryId, KnownActions, key};
use super::link::{NoReply, is_wrong_type};
use super::names::ValueNames;
use super::repair::repair_stream;
use super::seal::nonce;
use super::{Inner, SeenActions};
use crate::telemetry::StoreOutcome;

/// An action in its sealed form. The nonce of the seal is its random id.
#[derive(Serialize, Deserialize)]
struct Announcement {
    /// When it was announced, in milliseconds since 1970.
    at: u64,
    #[serde(flatten)]
    action: FleetAction,
}

/// The actions that were read.
pub(super) struct Actions {
    act: Box<Act>,
    known: RwLock<KnownActions>,
    unopened: RwLock<UnopenedActions>,
    /// One reads at a time, so that each goes on where the one before has ended.
    reading: Mutex<()>,
}

type Act = dyn Fn(FollowedAction) + Send + Sync;
/// Streams with their entries, each with its id and its fields.
type StreamReply = Option<Vec<(String, Vec<StreamEntry>)>>;
type StreamEntry = (String, Vec<Vec<u8>>);

/// One reading of the stream up to its end.
struct StreamReading {
    /// When it began, in milliseconds since 1970.
    begun: u64,
    /// Whether the stream is read from its beginning again, because it was lost.
    is_again: bool,
}

/// How a reading goes on.
#[derive(PartialEq, Eq)]
enum Next {
    /// There may be more.
    Read,
    /// The end was reached.
    Done,
}

impl Actions {
    pub(super) fn new(act: Box<Act>) -> Self {
        Self {
            act,
            known: RwLock::default(),
            unopened: RwLock::default(),
            reading: Mutex::default(),
        }
    }

    pub(super) fn seen(&self) -> SeenActions {
        self.known.read().seen()
    }

    /// Whether a token was dropped whose exchange began when these actions were `seen`.
    pub(super) fn dropped(&self, identity: &Identity, seen: SeenActions) -> bool {
        self.known.read().dropped(identity, seen)
    }

    /// The entries that no sealing key opens.
    pub(super) fn unopened(&self) -> UnopenedActions {
        *self.unopened.read()
    }
}

impl Inner {
    pub(super) async fn announce(&self, action: &FleetAction) -> bool {
        let (Some(key), settings) =
            (self.link.settings().sealing_keys.first(), self.link.settings())
        else {
            return false;
        };
        // Its time is after those of all actions before it, whatever the clocks of the gateways.
        if self.link.is_up() {
            self.read_actions().await;
        }
        let at = self.actions.known.read().next_time(now());
        let announcement = Announcement { at, action: action.clone() };
        let Ok(text) = serde_json::to_vec(&announcement) else { return false };
        let Ok(sealed) = key.seal(&identity(), &text) else { return false };
        let Some(nonce) = nonce(&sealed) else { return false };
        // Before it can be read.
        self.actions.known.write().announce(action, ActionStamp { at, nonce });
        let names = ValueNames::of_actions(&settings.prefix);
        let mut pipeline = redis::pipe();
        pipeline.cmd("XADD").arg(names.stream()).arg("MAXLEN").arg("~").arg(MAX_ACTIONS);
        pipeline.arg("*").arg(FIELD).arg(sealed).ignore();
        self.link.request::<()>(&names, &pipeline).await.is_ok()
    }

    /// Reads the actions since the last ones.
    pub(super) async fn read_actions(&self) {
        let _one = self.actions.reading.lock().await;
        let names = ValueNames::of_actions(&self.link.settings().prefix);
        let mut reading = StreamReading::new();
        let mut is_repaired = false;
        loop {
            match self.link.request::<(StreamReply,)>(&names, &self.question(&names)).await {
                Ok((reply,)) => {
                    if self.take_in(reply, &mut reading) == Next::Done {
                        return;
                    }
                }
                Err(NoReply::WrongType) if !is_repaired => {
                    is_repaired = true;
                    self.repair_stream(&names).await;
                }
                Err(_) => return,
            }
        }
    }

    /// Reads all actions by a connection that is not in use yet.
    pub(super) async fn read_actions_by(
        &self,
        connection: &mut StoreConnection,
    ) -> Result<(), RedisError> {
        let _one = self.actions.reading.lock().await;
        let names = ValueNames::of_actions(&self.link.settings().prefix);
        let mut reading = StreamReading::new();
        let mut is_repaired = false;
        loop {
            match connection.send::<(StreamReply,)>(&self.question(&names)).await {
                Ok((reply,)) => {
                    if self.take_in(reply, &mut reading) == Next::Done {
                        return Ok(());
                    }
                }
                Err(error) if is_wrong_type(&error) && !is_repaired => {
                    is_repaired = true;
                    self.warn_of_value(None, "it is of another type, and is deleted");
                    connection.send::<()>(&repair_stream(&names)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for the last entry that was read, and for those after it.
    fn question(&self, names: &ValueNames) -> redis::Pipeline {
        let last = self.actions.known.read().last_entry();
        let after = last.map_or_else(|| "0-0".to_owned(), |last| last.before().to_string());
        let mut pipeline = redis::pipe();
        pipeline.cmd("XREAD").arg("COUNT").arg(BATCH).arg("STREAMS").arg(names.stream()).arg(after);
        pipeline
    }

    /// Acts on what was read. A stream without the entry that was read last is another one: the
    /// store has lost its memory, or somebody has deleted the entry. New entries may be at any
    /// place of it.
    fn take_in(&self, reply: StreamReply, reading: &mut StreamReading) -> Next {
        let mut entries: Vec<_> = reply.into_iter().flatten().flat_map(|(_, all)| all).collect();
        let is_full = entries.len() >= BATCH;
        let last = self.actions.known.read().last_entry();
        if let Some(last) = last {
            let first = entries.first().and_then(|(id, _)| EntryId::parse(id));
            if first != Some(last) {
                self.actions.known.write().read_up_to(None);
                // Once: somebody may delete entries all the time.
                if reading.is_again {
                    return Next::Done;
                }
                reading.is_again = true;
                tracing::warn!(
                    store = %self.link.settings().target,
                    hint = LOST_HINT,
                    "the token store has lost operators' actions: all that it has are read again"
                );
                return Next::Read;
            }
            entries.remove(0);
        }
        let (mut unopened, mut new) = (0, Vec::new());
        for (id, fields) in &entries {
            let Some(id) = EntryId::parse(id) else { continue };
            let sealed = fields.get(1).map(Vec::as_slice).unwrap_or_default();
            match self.opened(sealed) {
                Some((action, stamp)) => new.extend(self.judge(action, stamp, reading)),
                None => {
                    unopened += 1;
                    self.note_unopened(id, reading);
                }
            }
            self.actions.known.write().read_up_to(Some(id));
        }
        self.follow(new);
        self.warn_of_unopened(unopened);
        if is_full {
            return Next::Read;
        }
        self.actions.known.write().caught_up(reading.begun);
        Next::Done
    }

    /// The action in an entry, with its time and its nonce.
    fn opened(&self, sealed: &[u8]) -> Option<(FleetAction, ActionStamp)> {
        let keys = &self.link.settings().sealing_keys;
        let plain = keys.iter().find_map(|key| key.open(&identity(), sealed).ok())?;
        let Announcement { at, action } = serde_json::from_slice(&plain).ok()?;
        Some((action, ActionStamp { at, nonce: nonce(sealed)? }))
    }

    /// Follows the last action of each kind.
    fn follow(&self, mut new: Vec<FollowedAction>) {
        let mut later = HashSet::new();
        new.reverse();
        new.retain(|followed| later.insert(key(&followed.action)));
        for followed in new.into_iter().rev() {
            (self.actions.act)(followed);
        }
    }

    /// The action, if it is new.
    fn judge(
        &self,
        action: FleetAction,
        stamp: ActionStamp,
        reading: &StreamReading,
    ) -> Option<FollowedAction> {
        let mut known = self.actions.known.write();
        let is_taken_over = !known.has_caught_up();
        let news = known.read(&action, stamp, now());
        drop(known);
        let problem = match news {
            ActionNews::New => {
                let age = Duration::from_millis(reading.begun.saturating_sub(stamp.at));
                return Some(FollowedAction { action, age, is_taken_over });
            }
            ActionNews::Own => return None,
            // All of them are found again.
            ActionNews::Known if reading.is_again || is_taken_over => return None,
            ActionNews::Known => "it is known, or older than another one",
            ActionNews::Late => "it is older than the last reading, which did not find it",
            ActionNews::Early => "it is from the future",
        };
        if let Some(repeated) =
            self.link.metrics().log_limiter.allow_reason("fleet_action", Some(problem))
        {
            tracing::warn!(
                action = action.name(),
                boldgate.tenant = action.tenant(),
                store = %self.link.settings().target,
                reason = problem,
                repeated = (repeated > 0).then_some(repeated),
                hint = if news == ActionNews::Early { CLOCK_HINT } else { AGAIN_HINT },
                "an operator's action in the token store is not followed"
            );
        }
        None
    }

    fn note_unopened(&self, id: EntryId, reading: &StreamReading) {
        // Entries of before are as old as their place says.
        let is_old = reading.is_again || !self.actions.known.read().has_caught_up();
        let at = if is_old { id.milliseconds.min(reading.begun) } else { reading.begun };
        let at = UNIX_EPOCH + Duration::from_millis(at);
        let mut unopened = self.actions.unopened.write();
        unopened.count += 1;
        unopened.last = unopened.last.max(Some(at));
        self.link.metrics().count(StoreOutcome::Unusable);
    }

    fn warn_of_unopened(&self, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(repeated) = self.link.metrics().log_limiter.allow("unopened_action") {
            tracing::warn!(
                entries = count,
                store = %self.link.settings().target,
                repeated = (repeated > 0).then_some(repeated),
                hint = UNOPENED_HINT,
                "no sealing key of this gateway opens some operators' actions in the token store"
            );
        }
    }
}

impl StreamReading {
    fn new() -> Self {
        Self { begun: now(), is_again: false }
    }
}

/// Actions are sealed for this identity.
fn identity() -> Identity {
    Identity::new("", "", &[b"actions"])
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const FIELD: &str = "a";
/// About how many actions the store keeps.
const MAX_ACTIONS: usize = 10_000;
/// Most entries that are read at once: the last one before, and new ones.
const BATCH: usize = 500;
/// How often actions are read.
pub(super) const READ_INTERVAL: Duration = Duration::from_millis(500);
const LOST_HINT: &str = "it was flushed, restarted without its data or failed over, or somebody deletes \
                         entries: repeat actions of the last seconds at the other gateways";
const AGAIN_HINT: &str = "somebody writes copies of former actions to the token store: look at who may \
                          write to it";
const CLOCK_HINT: &str = "compare the clocks of the gateways: they may differ by five minutes";
const UNOPENED_HINT: &str = "give all gateways of the fleet the same `token_store.sealing_keys`, and other fleets in the \
     same store another `token_store.prefix`; if a former key was removed, its actions are of before";
