//! The actions that this gateway knows, and which of those that it reads are new: an action counts
//! once, and never after a newer one for the same tenant. Pure.

use std::collections::{HashMap, HashSet};

use ring::aead::NONCE_LEN;

use super::SeenActions;
use super::fleet_action::FleetAction;
use super::identity::Identity;

/// The nonce of a sealed action, by which it is known again.
pub(super) type ActionNonce = [u8; NONCE_LEN];

/// The order of actions: their sealed time, then their nonce. The place in the stream counts for
/// nothing, because others may write there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ActionStamp {
    /// In milliseconds since 1970.
    pub(super) at: u64,
    pub(super) nonce: ActionNonce,
}

/// The place of an entry in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) milliseconds: u64,
    pub(super) number: u64,
}

/// The judgement of an action that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActionNews {
    /// It is to be followed.
    New,
    /// This gateway has announced it.
    Own,
    /// It is known, or older than one that is known.
    Known,
    /// It is older than the last reading, which did not find it.
    Late,
    /// It is from the future.
    Early,
}

/// All that is known.
#[derive(Default)]
pub(super) struct KnownActions {
    /// The sealed time of the newest action.
    newest: u64,
    last: HashMap<(String, ActionKind), ActionStamp>,
    /// How many drops of single users are among the last ones.
    users: usize,
    /// The time of the newest drop of a single user that was forgotten.
    forgotten: u64,
    /// The nonces of announcements that this gateway has not read yet.
    own: HashSet<ActionNonce>,
    /// The entry that was read last; `None` at the beginning of the stream.
    last_entry: Option<EntryId>,
    /// When the stream was last read to its end, in milliseconds since 1970.
    caught_up: Option<u64>,
}

/// Actions of one kind replace each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ActionKind {
    /// Disable and enable.
    Switch,
    /// Drop the tokens of a user; of all for `None`.
    Drop(Option<String>),
}

impl KnownActions {
    /// The time that an announcement at `now` has: after all that is known, whatever the clocks of
    /// the gateways.
    pub(super) fn next_time(&self, now: u64) -> u64 {
        now.max(self.newest.saturating_add(1))
    }

    /// Notes an action that is about to be announced.
    pub(super) fn announce(&mut self, action: &FleetAction, stamp: ActionStamp) {
        if self.own.len() >= MAX_OWN {
            self.own.clear();
        }
        self.own.insert(stamp.nonce);
        self.note(action, stamp);
    }

    /// Judges an action that was read at `now`, and notes it.
    pub(super) fn read(
        &mut self,
        action: &FleetAction,
        stamp: ActionStamp,
        now: u64,
    ) -> ActionNews {
        if self.own.remove(&stamp.nonce) {
            return ActionNews::Own;
        }
        if stamp.at > now.saturating_add(MAX_SKEW_MILLISECONDS) {
            return ActionNews::Early;
        }
        if self.last.get(&key(action)).is_some_and(|last| *last >= stamp) {
            return ActionNews::Known;
        }
        // It would have been found then, if somebody had not kept it for later.
        if self.caught_up.is_some_and(|at| stamp.at.saturating_add(MAX_SKEW_MILLISECONDS) < at) {
            return ActionNews::Late;
        }
        self.note(action, stamp);
        ActionNews::New
    }

    fn note(&mut self, action: &FleetAction, stamp: ActionStamp) {
        self.newest = self.newest.max(stamp.at);
        let (key, known) = (key(action), self.last.len());
        let is_of_user = key.1.is_of_user();
        let last = self.last.entry(key).or_insert(stamp);
        *last = stamp.max(*last);
        self.users += usize::from(is_of_user && self.last.len() > known);
        if self.users > MAX_USERS {
            self.forget_older_users();
        }
    }

    /// Forgets the older half of the drops of single users. Tokens of any user that are as old
    /// count as dropped from then on: that costs an exchange, and brings no dropped token back.
    fn forget_older_users(&mut self) {
        let of_users = self.last.iter().filter(|((_, kind), _)| kind.is_of_user());
        let mut times: Vec<_> = of_users.map(|(_, stamp)| stamp.at).collect();
        let middle = times.len() / 2;
        let (_, &mut middle, _) = times.select_nth_unstable(middle);
        self.forgotten = self.forgotten.max(middle);
        self.last.retain(|(_, kind), stamp| !kind.is_of_user() || stamp.at > middle);
        self.users = self.last.keys().filter(|(_, kind)| kind.is_of_user()).count();
    }

    /// The actions that a token takes into account whose exchange begins now: those that are known,
    /// and those that would be if they were still in the store.
    pub(super) fn seen(&self) -> SeenActions {
        let read = self.caught_up.unwrap_or_default().saturating_sub(MAX_SKEW_MILLISECONDS);
        SeenActions { milliseconds: self.newest.max(read), number: 0 }
    }

    /// Whether a token was dropped whose exchange began when these actions were `seen`.
    pub(super) fn dropped(&self, identity: &Identity, seen: SeenActions) -> bool {
        let of =
            |subject| self.last.get(&(identity.tenant().to_owned(), ActionKind::Drop(subject)));
        let last = of(None).max(of(Some(identity.subject().to_owned())));
        let last = last.map_or(0, |last| last.at).max(self.forgotten);
        seen.milliseconds < last
    }

    pub(super) fn last_entry(&self) -> Option<EntryId> {
        self.last_entry
    }

    /// The stream was read up to this entry; `None` if it is to be read from its beginning.
    pub(super) fn read_up_to(&mut self, entry: Option<EntryId>) {
        self.last_entry = entry;
    }

    /// The stream has been read to its end by a request that began at `now`.
    pub(super) fn caught_up(&mut self, now: u64) {
        self.caught_up = Some(now);
    }

    /// Whether the stream was ever read to its end.
    pub(super) fn has_caught_up(&self) -> bool {
        self.caught_up.is_some()
    }
}

impl ActionKind {
    fn is_of_user(&self) -> bool {
        matches!(self, Self::Drop(Some(_)))
    }
}

impl EntryId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (milliseconds, number) = text.split_once('-')?;
        Some(Self { milliseconds: milliseconds.parse().ok()?, number: number.parse().ok()? })
    }

    /// The place right before it.
    pub(super) fn before(self) -> Self {
        match self.number.checked_sub(1) {
            Some(number) => Self { number, ..self },
            None => Self { milliseconds: self.milliseconds.saturating_sub(1), number: u64::MAX },
        }
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.number)
    }
}

/// The tenant and the kind of an action.
pub(super) fn key(action: &FleetAction) -> (String, ActionKind) {
    let kind = match action {
        FleetAction::Drop { subject, .. } => ActionKind::Drop(subject.clone()),
        FleetAction::Disable { .. } | FleetAction::Enable { .. } => ActionKind::Switch,
    };
    (action.tenant().to_owned(), kind)
}

/// The clocks of two gateways differ by less.
const MAX_SKEW_MILLISECONDS: u64 = 5 * 60 * 1000;
/// Most announcements that are kept until they are read.
const MAX_OWN: usize = 1000;
/// Most drops of single users that are known, twice as many as the store keeps actions. Others are
/// as many as there are tenants.
const MAX_USERS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn stamp(at: u64, nonce: u8) -> ActionStamp {
        ActionStamp { at, nonce: [nonce; NONCE_LEN] }
    }

    fn disable() -> FleetAction {
        FleetAction::Disable { tenant: "acme".into() }
    }

    fn enable() -> FleetAction {
        FleetAction::Enable { tenant: "acme".into() }
    }

    fn drop_of(subject: Option<&str>) -> FleetAction {
        FleetAction::Drop { tenant: "acme".into(), subject: subject.map(Into::into) }
    }

    #[test]
    fn an_action_counts_once_and_never_after_a_newer_one_of_its_kind() {
        let mut known = KnownActions::default();
        let now = HOUR;
        assert_eq!(known.read(&disable(), stamp(now, 1), now), ActionNews::New);
        assert_eq!(known.read(&disable(), stamp(now, 1), now), ActionNews::Known, "a copy");
        assert_eq!(known.read(&enable(), stamp(now + 5, 2), now), ActionNews::New);
        assert_eq!(known.read(&disable(), stamp(now + 4, 3), now), ActionNews::Known, "older");
        assert_eq!(known.read(&drop_of(None), stamp(now, 4), now), ActionNews::New, "another kind");
        assert_eq!(known.read(&drop_of(Some("jane")), stamp(now, 4), now), ActionNews::New);
        let other = FleetAction::Disable { tenant: "globex".into() };
        assert_eq!(known.read(&other, stamp(now, 5), now), ActionNews::New, "another tenant");
        known.announce(&disable(), stamp(now + 6, 6));
        assert_eq!(known.read(&disable(), stamp(now + 6, 6), now), ActionNews::Own);
        assert_eq!(known.read(&disable(), stamp(now + 6, 6), now), ActionNews::Known);
    }

    #[test]
    fn an_action_that_was_kept_for_later_or_is_from_the_future_is_none() {
        let mut known = KnownActions::default();
        let now = 10 * HOUR;
        assert_eq!(known.read(&disable(), stamp(HOUR, 1), now), ActionNews::New, "at the start");
        known.caught_up(now);
        assert_eq!(known.read(&enable(), stamp(now - HOUR, 2), now), ActionNews::Late);
        let early = now + MAX_SKEW_MILLISECONDS + 1;
        assert_eq!(known.read(&enable(), stamp(early, 3), now), ActionNews::Early);
        // Clocks differ by some minutes.
        assert_eq!(known.read(&enable(), stamp(now - 60_000, 4), now), ActionNews::New);
    }

    #[test]
    fn a_gateway_whose_clock_is_behind_announces_after_all_that_it_knows() {
        let mut known = KnownActions::default();
        known.read(&disable(), stamp(HOUR + 3000, 1), HOUR);
        assert_eq!(known.next_time(HOUR), HOUR + 3001);
        assert_eq!(known.next_time(2 * HOUR), 2 * HOUR);
    }

    #[test]
    fn a_drop_counts_for_tokens_whose_exchange_began_without_it() {
        let mut known = KnownActions::default();
        let (jane, joe) = (Identity::new("acme", "jane", &[]), Identity::new("acme", "joe", &[]));
        let before = known.seen();
        known.read(&drop_of(Some("jane")), stamp(HOUR, 1), HOUR);
        assert!(known.dropped(&jane, before) && !known.dropped(&joe, before));
        assert!(!known.dropped(&jane, known.seen()));
        known.announce(&drop_of(None), stamp(HOUR + 1, 2));
        assert!(known.dropped(&joe, before));
        // A gateway that starts after the store was flushed has read nothing, and is up to date.
        let mut late = KnownActions::default();
        late.caught_up(2 * HOUR);
        assert!(!known.dropped(&joe, late.seen()));
    }

    #[test]
    fn drops_of_many_users_are_bounded_and_bring_no_dropped_token_back() {
        let mut known = KnownActions::default();
        let user = |index: u64| format!("user{index}");
        let identity = |index: u64| Identity::new("acme", &user(index), &[]);
        known.announce(&disable(), stamp(1, 0));
        let before = known.seen();
        let count = 3 * MAX_USERS as u64;
        let mut between = before;
        for index in 1..=count {
            known.read(&drop_of(Some(&user(index))), stamp(HOUR + index, 1), 2 * HOUR);
            assert!(known.last.len() <= MAX_USERS + 1, "{}", known.last.len());
            if index == count - 10 {
                between = known.seen();
            }
        }
        assert!(known.last.len() > MAX_USERS / 3, "the newer ones are known");
        for index in [1, 2, MAX_USERS as u64, count] {
            assert!(known.dropped(&identity(index), before), "{index}");
            assert!(!known.dropped(&identity(index), known.seen()), "{index}: a new token");
        }
        let (kept, dropped) = (identity(count - 20), identity(count - 5));
        assert!(!known.dropped(&kept, between) && known.dropped(&dropped, between));
        // Actions of a whole tenant are not forgotten.
        assert_eq!(known.read(&disable(), stamp(1, 0), 2 * HOUR), ActionNews::Own);
        assert_eq!(known.read(&enable(), stamp(0, 9), 2 * HOUR), ActionNews::Known);
        known.announce(&drop_of(None), stamp(3 * HOUR, 2));
        assert!(known.dropped(&identity(7), SeenActions { milliseconds: 2 * HOUR, number: 0 }));
    }

    #[test]
    fn an_entry_is_asked_for_again_from_the_place_before_it() {
        let before = |text| EntryId::parse(text).unwrap().before().to_string();
        assert_eq!(before("7-2"), "7-1");
        assert_eq!(before("7-0"), format!("6-{}", u64::MAX));
        assert_eq!(before("0-1"), "0-0");
        assert_eq!(EntryId::parse("7"), None);
    }
}
