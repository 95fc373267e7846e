//! Operators' actions, for all replicas: a stream that each replica reads twice a second, and as a
//! whole when it begins to use the store.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use redis::RedisError;
use serde::{Deserialize, Serialize};

use super::connection::StoreConnection;
use super::identity::Identity;
use super::names::ValueNames;
use super::{Inner, SeenActions};

/// An action of an operator that is for all replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum FleetAction {
    /// Drop the cached tokens of a tenant, or of one user of it.
    Drop {
        /// The tenant.
        tenant: String,
        /// The user; `None` for all.
        subject: Option<String>,
    },
    /// Disable a tenant.
    Disable {
        /// The tenant.
        tenant: String,
    },
    /// Enable a tenant.
    Enable {
        /// The tenant.
        tenant: String,
    },
}

impl FleetAction {
    /// Its name, as that of the admin API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drop { .. } => "drop-tokens",
            Self::Disable { .. } => "disable-tenant",
            Self::Enable { .. } => "enable-tenant",
        }
    }

    /// The tenant that it is about.
    pub fn tenant(&self) -> &str {
        match self {
            Self::Drop { tenant, .. } | Self::Disable { tenant } | Self::Enable { tenant } => {
                tenant
            }
        }
    }
}

/// An action in its sealed form.
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
    seen: RwLock<SeenActions>,
    /// The last action that dropped tokens of a tenant, or of a user of it.
    drops: RwLock<HashMap<(String, Option<String>), SeenActions>>,
    /// The actions that this gateway has announced and not read yet.
    own: Mutex<HashSet<SeenActions>>,
}

type Act = dyn Fn(FleetAction) + Send + Sync;
/// Streams with their entries, each with its id and its fields.
type StreamReply = Option<Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>>;

impl Actions {
    pub(super) fn new(act: Box<Act>) -> Self {
        Self { act, seen: RwLock::default(), drops: RwLock::default(), own: Mutex::default() }
    }

    pub(super) fn seen(&self) -> SeenActions {
        *self.seen.read()
    }

    /// Whether a token was dropped whose exchange began when these actions were `seen`.
    pub(super) fn dropped(&self, identity: &Identity, seen: SeenActions) -> bool {
        let drops = self.drops.read();
        let of = |subject| drops.get(&(identity.tenant().to_owned(), subject));
        let last = of(None).max(of(Some(identity.subject().to_owned())));
        last.is_some_and(|last| seen < *last)
    }

    fn note(&self, action: &FleetAction, id: SeenActions) {
        if let FleetAction::Drop { tenant, subject } = action {
            let mut drops = self.drops.write();
            let last = drops.entry((tenant.clone(), subject.clone())).or_default();
            *last = id.max(*last);
        }
    }
}

impl Inner {
    pub(super) async fn announce(&self, action: &FleetAction) -> bool {
        let (Some(key), settings) =
            (self.link.settings().sealing_keys.first(), self.link.settings())
        else {
            return false;
        };
        let announcement = Announcement { at: now(), action: action.clone() };
        let Ok(text) = serde_json::to_vec(&announcement) else { return false };
        let Ok(sealed) = key.seal(&identity(), &text) else { return false };
        let names = ValueNames::of_actions(&settings.prefix);
        let mut pipeline = redis::pipe();
        pipeline.cmd("XADD").arg(names.stream()).arg("MAXLEN").arg("~").arg(MAX_ACTIONS);
        pipeline.arg("*").arg(FIELD).arg(sealed);
        let Ok((id,)) = self.link.request::<(String,)>(&names, &pipeline).await else {
            return false;
        };
        let Some(id) = parse_id(&id) else { return false };
        self.actions.own.lock().insert(id);
        self.actions.note(action, id);
        true
    }

    /// Reads the actions since the last ones.
    pub(super) async fn read_actions(&self) {
        let names = ValueNames::of_actions(&self.link.settings().prefix);
        while let Ok((reply,)) =
            self.link.request::<(StreamReply,)>(&names, &self.question(&names)).await
        {
            if self.take_in(reply) < BATCH {
                break;
            }
        }
    }

    /// Reads all actions by a connection that is not in use yet.
    pub(super) async fn read_actions_by(
        &self,
        connection: &mut StoreConnection,
    ) -> Result<(), RedisError> {
        let names = ValueNames::of_actions(&self.link.settings().prefix);
        loop {
            let (reply,) = connection.send::<(StreamReply,)>(&self.question(&names)).await?;
            if self.take_in(reply) < BATCH {
                return Ok(());
            }
        }
    }

    fn question(&self, names: &ValueNames) -> redis::Pipeline {
        let SeenActions { milliseconds, number } = self.actions.seen();
        let mut pipeline = redis::pipe();
        pipeline.cmd("XREAD").arg("COUNT").arg(BATCH).arg("STREAMS").arg(names.stream());
        pipeline.arg(format!("{milliseconds}-{number}"));
        pipeline
    }

    /// Acts on what was read. Returns how many entries there were.
    fn take_in(&self, reply: StreamReply) -> usize {
        let entries: Vec<_> = reply.into_iter().flatten().flat_map(|(_, all)| all).collect();
        for (id, fields) in &entries {
            let Some(id) = parse_id(id) else { continue };
            let sealed = fields.get(1).map(Vec::as_slice).unwrap_or_default();
            if let Some(action) = self.opened(sealed, id) {
                self.actions.note(&action, id);
                if !self.actions.own.lock().remove(&id) {
                    (self.actions.act)(action);
                }
            }
            *self.actions.seen.write() = id;
        }
        entries.len()
    }

    /// The action in an entry. An entry that was written again at another time is none.
    fn opened(&self, sealed: &[u8], id: SeenActions) -> Option<FleetAction> {
        let keys = &self.link.settings().sealing_keys;
        let plain = keys.iter().find_map(|key| key.open(&identity(), sealed).ok())?;
        let Announcement { at, action } = serde_json::from_slice(&plain).ok()?;
        (at.abs_diff(id.milliseconds) <= MAX_SKEW_MILLISECONDS).then_some(action)
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

fn parse_id(text: &str) -> Option<SeenActions> {
    let (milliseconds, number) = text.split_once('-')?;
    Some(SeenActions { milliseconds: milliseconds.parse().ok()?, number: number.parse().ok()? })
}

const FIELD: &str = "a";
/// About how many actions the store keeps.
const MAX_ACTIONS: usize = 10_000;
/// Most actions that are read at once.
const BATCH: usize = 500;
/// The clocks of a gateway and of the store differ by less.
const MAX_SKEW_MILLISECONDS: u64 = 5 * 60 * 1000;
/// How often actions are read.
pub(super) const READ_INTERVAL: Duration = Duration::from_millis(500);
