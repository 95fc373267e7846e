//! Exchanges wait for a changed secret, once and for a time that is known.

use super::*;
use crate::embed::{EmbedGrant, EmbedOrder, EmbedReply};
use crate::policy::Subject;
use crate::tenant::{EmbedMode, EmbedSettings, EmbedVia};

/// The permit of a tenant whose secret has this version, and which waits for 30 s.
fn permit_of(version: u64, grant: crate::tenant::Grant) -> Permit {
    let mut tenant = Tenant::clone(permits(1, version)[0].tenant());
    tenant.credential.hold = HOLD;
    tenant.credential.grant = grant;
    operator_permit(tenant)
}

fn operator_permit(tenant: Tenant) -> Permit {
    policy_of(&tenant).operator_permit(&Arc::new(tenant)).clone()
}

fn policy_of(tenant: &Tenant) -> Policy {
    let read = |_: &http::Method, _: &str| RouteClass::Read;
    let routes = Routes {
        classify: read,
        classify_installation: read,
        takes_name: |_, _| false,
        masked: |_, _| None,
        ui: |_, _, _| None,
    };
    Policy::new(&Tenants::new(vec![tenant.clone()]).unwrap(), routes, HashMap::new(), None)
}

/// A source whose secret of version 0 was accepted, and is refused from now on.
struct Refused {
    script: Arc<Script>,
    source: TokenSource,
    own: Permit,
}

impl Refused {
    async fn new() -> Self {
        let own = permit_of(0, Grant::EmbedSecret);
        let script = Script::giving(HOUR);
        let source = script.source();
        source.token(&own).await.unwrap();
        script.becomes(|_| Err(refused()));
        Self { script, source, own }
    }

    fn activate(&self, version: u64) -> Permit {
        activate(&self.source, &self.script, version)
    }

    /// Asks for the token of another user, in the background.
    fn ask(&self, user: &str) -> tokio::task::JoinHandle<(Duration, Result<TokenLookup, NoToken>)> {
        let (source, permit) = (self.source.clone(), of_user(&self.own, user));
        tokio::spawn(async move {
            let begun = Instant::now();
            let result = source.token(&permit).await;
            (begun.elapsed(), result)
        })
    }
}

fn of_user(own: &Permit, user: &str) -> Permit {
    Permit::of_subject(own, Subject::parse(user).unwrap())
}

const HOLD: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn users_without_a_token_wait_for_the_new_secret_after_one_exchange_by_the_old_one() {
    let held = Refused::new().await;
    let asked = ["b@example.com", "c@example.com", "d@example.com"].map(|user| held.ask(user));
    sleep(SECOND).await;
    // Only those who came at the same moment as the first refusal had asked by then.
    let before = held.script.calls();
    let later = ["e@example.com", "f@example.com"].map(|user| held.ask(user));
    sleep(9 * SECOND).await;
    assert_eq!(held.script.calls(), before, "nobody else asks by the refused secret");
    held.source.token(&held.own).await.expect("a cached token serves on");
    held.script.becomes(new_tokens(HOUR));
    let own = held.activate(1);
    for asked in asked.into_iter().chain(later) {
        let (took, result) = asked.await.unwrap();
        // The request goes on with the new configuration.
        assert!(result.unwrap_err().is_permit_revoked());
        assert!(took <= 10 * SECOND, "{took:?}");
    }
    held.source.token(&of_user(&own, "b@example.com")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_new_secret_they_fail_after_the_hold_and_the_next_ones_at_once() {
    let held = Refused::new().await;
    let first = held.ask("b@example.com");
    sleep(SECOND).await;
    let second = held.ask("c@example.com");
    for (asked, waited) in [(first, HOLD), (second, HOLD.saturating_sub(SECOND))] {
        let (took, result) = asked.await.unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.cause.kind.code(), "credential_refused");
        assert!(error.retry_after > Duration::ZERO);
        assert!(took >= waited && took < waited + SECOND, "{took:?}");
    }
    for user in ["b@example.com", "d@example.com"] {
        let (took, result) = held.ask(user).await.unwrap();
        assert_eq!(result.unwrap_err().cause.kind.code(), "credential_refused");
        assert!(took < SECOND, "one window for each version of the secret: {took:?}");
    }
    // Another secret that is refused was never accepted: nobody waits for it.
    let own = held.activate(1);
    let begun = Instant::now();
    held.source.token(&of_user(&own, "e@example.com")).await.unwrap_err();
    assert!(begun.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_background_takes_nobody_the_window() {
    let own = permit_of(0, Grant::EmbedSecret);
    let script = Script::giving(100 * SECOND);
    let source = script.source();
    source.token(&own).await.unwrap();
    script.becomes(|_| Err(refused()));
    while source.has_token(&own) {
        source.token(&own).await.unwrap();
        sleep(SECOND).await;
    }
    assert!(script.calls() > 1, "control: it was refreshed in vain");
    let begun = Instant::now();
    let error = source.token(&own).await.unwrap_err();
    assert_eq!(error.cause.kind.code(), "credential_refused");
    assert!(begun.elapsed() >= HOLD, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_first_secret_a_password_and_an_unknown_user_never_wait() {
    let (secret, password) = (permit_of(0, Grant::EmbedSecret), permit_of(0, Grant::Password));
    let unknown = || ExchangeErrorKind::Refused { status: 404, detail: "" };
    for (own, accepted_before, kind) in [
        (&secret, false, refused as fn() -> ExchangeErrorKind),
        (&password, true, refused),
        (&secret, true, unknown),
    ] {
        let script = Script::giving(SECOND);
        let source = script.source();
        if accepted_before {
            source.token(own).await.unwrap();
            sleep(2 * SECOND).await;
        }
        script.becomes(move |_| Err(kind()));
        let begun = Instant::now();
        source.token(own).await.unwrap_err();
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordered_hold_stops_exchanges_and_ends_by_itself_by_an_order_or_by_a_new_secret() {
    let held = Refused::new().await;
    held.script.becomes(new_tokens(HOUR));
    let before = held.script.calls();
    // By itself.
    let first = held.source.hold(&held.own, HoldOrder::Hold(HOLD));
    let asked = held.ask("b@example.com");
    sleep(HOLD.saturating_sub(SECOND)).await;
    assert_eq!(held.script.calls(), before);
    held.source.token(&held.own).await.expect("a cached token serves on");
    let (took, result) = asked.await.unwrap();
    result.unwrap();
    assert!(took >= HOLD && took < HOLD + SECOND, "{took:?}");
    // By an order.
    let before = held.script.calls();
    let second = held.source.hold(&held.own, HoldOrder::Hold(HOLD));
    let asked = held.ask("c@example.com");
    sleep(SECOND).await;
    assert_eq!(held.source.hold(&held.own, HoldOrder::Release(first)), None);
    sleep(SECOND).await;
    assert_eq!(held.script.calls(), before, "the order to end a hold before is not about this one");
    assert_ne!((first, second), (None, second), "each hold has a number");
    assert_eq!(held.source.hold(&held.own, HoldOrder::Release(second)), None);
    let (took, result) = asked.await.unwrap();
    result.unwrap();
    assert!(took < 3 * SECOND, "{took:?}");
    // By a new secret.
    held.source.hold(&held.own, HoldOrder::Hold(HOLD));
    let asked = held.ask("d@example.com");
    sleep(SECOND).await;
    let own = held.activate(1);
    assert!(asked.await.unwrap().1.unwrap_err().is_permit_revoked());
    held.source.token(&of_user(&own, "d@example.com")).await.unwrap();
}

/// A source whose tokens live for 100 s. The refresh that is due is under way, by a secret that is
/// refused by now.
async fn refused_refresh_under_way() -> (Arc<Script>, TokenSource, Permit) {
    let own = permit_of(0, Grant::EmbedSecret);
    let script = Script::giving(100 * SECOND);
    let source = script.source();
    source.token(&own).await.unwrap();
    script.becomes(|_| Err(refused()));
    while script.calls() == 1 {
        sleep(LATENCY / 10).await;
    }
    (script, source, own)
}

fn activate(source: &TokenSource, script: &Arc<Script>, version: u64) -> Permit {
    let permit = permit_of(version, Grant::EmbedSecret);
    let reissue = policy_of(permit.tenant()).reissue();
    let servers = [Arc::clone(&permit.tenant().server)];
    source.reconfigure(script.clone(), reissue, &servers, || ());
    permit
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_refused_refresh_waits_for_the_new_secret() {
    let (script, source, own) = refused_refresh_under_way().await;
    let token = source.token(&own).await.unwrap().token;
    assert!(source.reject(&own, &token), "the server refuses the token as well");
    let (theirs, permit) = (source.clone(), own.clone());
    let replaced = tokio::spawn(async move { theirs.replacement(&permit, None).await });
    let (theirs, permit) = (source.clone(), own.clone());
    let asked = tokio::spawn(async move { theirs.token(&permit).await });
    sleep(LATENCY * 2).await;
    assert_eq!(script.calls(), 2, "they wait for the refresh, and ask for nothing more");
    assert!(!replaced.is_finished() && !asked.is_finished());
    sleep(10 * SECOND).await;
    assert_eq!(script.calls(), 2);
    script.becomes(new_tokens(HOUR));
    let new = activate(&source, &script, 1);
    assert!(replaced.await.unwrap().unwrap_err().is_permit_revoked());
    assert!(asked.await.unwrap().unwrap_err().is_permit_revoked());
    source.token(&new).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_refused_refresh_fails_when_the_hold_ends_and_the_next_at_once() {
    let (script, source, own) = refused_refresh_under_way().await;
    let token = source.token(&own).await.unwrap().token;
    source.reject(&own, &token);
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let (source, permit) = (source.clone(), own.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                (source.replacement(&permit, None).await, begun.elapsed())
            })
        })
        .collect();
    for asked in asked {
        let (result, took) = asked.await.unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.cause.kind.code(), "credential_refused");
        assert!(took >= HOLD && took < HOLD + SECOND, "{took:?}");
        let next = error.retry_after;
        assert!(next > Duration::ZERO && next <= 10 * SECOND, "they count once: {next:?}");
    }
    let begun = Instant::now();
    source.replacement(&own, None).await.unwrap_err();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert!(script.calls() <= 3, "{}", script.calls());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_other_settings_within_the_hold_neither_ends_nor_renews_it() {
    let held = Refused::new().await;
    let first = held.ask("b@example.com");
    sleep(10 * SECOND).await;
    let own = activate(&held.source, &held.script, 0);
    let second = held.ask("c@example.com");
    sleep(10 * SECOND).await;
    assert!(!first.is_finished() && !second.is_finished());
    for (asked, waited) in [(first, HOLD), (second, 20 * SECOND)] {
        let (took, result) = asked.await.unwrap();
        assert_eq!(result.unwrap_err().cause.kind.code(), "credential_refused");
        assert!(took >= waited && took < waited + SECOND, "{took:?}");
    }
    let begun = Instant::now();
    held.source.token(&of_user(&own, "d@example.com")).await.unwrap_err();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_which_the_tenant_is_backed_off_does_not_keep_its_requests_from_waiting() {
    let own = permit_of(0, Grant::EmbedSecret);
    let script = Script::giving(100 * SECOND);
    let source = script.source();
    source.token(&own).await.unwrap();
    script.becomes(|_| Err(refused()));
    // Refreshes in vain have made the pauses long.
    sleep(99 * SECOND).await;
    let refreshes = script.calls();
    assert!(refreshes > 1, "control");
    let (theirs, permit) = (source.clone(), own.clone());
    let asked = tokio::spawn(async move { theirs.token(&permit).await });
    sleep(SECOND).await;
    assert!(!asked.is_finished());
    script.becomes(new_tokens(HOUR));
    let new = activate(&source, &script, 1);
    assert!(asked.await.unwrap().unwrap_err().is_permit_revoked());
    source.token(&new).await.unwrap();
}

/// A server whose secret may be changed at any moment. Its reply for one user takes long.
struct Rotating {
    slow: &'static str,
    is_rotated: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl TokenExchange for Rotating {
    async fn exchange(
        &self,
        permit: &Permit,
        _: SecretPosition,
    ) -> Result<AccessToken, ExchangeError> {
        let is_slow = permit.subject().as_str() == self.slow;
        sleep(if is_slow { LATENCY * 4 } else { LATENCY }).await;
        if self.is_rotated.load(SeqCst) {
            return Err(ExchangeError::new(permit, refused()));
        }
        Ok(AccessToken::new("token", Instant::now(), HOUR).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_who_got_a_token_just_before_the_refusal_of_another_does_not_make_that_one_unknown()
{
    let server = Arc::new(Rotating { slow: "slow@example.com", is_rotated: false.into() });
    let source = TokenSource::with_clock(server.clone(), 10_000, Arc::default(), clock());
    let own = permit_of(0, Grant::EmbedSecret);
    source.token(&own).await.unwrap();
    let ask = |user: &str| {
        let (source, permit) = (source.clone(), of_user(&own, user));
        tokio::spawn(async move { source.token(&permit).await })
    };
    let slow = ask("slow@example.com");
    sleep(LATENCY / 2).await;
    ask("quick@example.com").await.unwrap().unwrap();
    server.is_rotated.store(true, SeqCst);
    sleep(SECOND).await;
    assert!(!slow.is_finished(), "it waits: {:?}", slow.await);
}

/// An order of the stand-in's only dashboard.
fn order() -> EmbedOrder {
    let settings = EmbedSettings {
        modes: vec![EmbedMode::View],
        dashboards: None,
        max_lifetime: HOUR,
        via: EmbedVia::Signed,
        filters: Vec::new(),
        parameters: Vec::new(),
        attributes: Vec::new(),
        masked: false,
    };
    EmbedOrder {
        pairs: Vec::new(),
        dashboards: Vec::new(),
        via: settings.via,
        mode: EmbedMode::View,
        lifetime: settings.max_lifetime,
        grant: EmbedGrant::for_trial(&settings),
    }
}

/// An embed call of another user, in the background.
fn embed(
    source: &TokenSource,
    own: &Permit,
) -> tokio::task::JoinHandle<Result<EmbedReply, NoToken>> {
    let (source, permit) = (source.clone(), of_user(own, "e@example.com"));
    tokio::spawn(async move { source.embed(&permit, &order()).await })
}

#[tokio::test(start_paused = true)]
async fn an_embed_call_waits_though_refused_refreshes_have_left_no_user_to_compare_with() {
    let own = permit_of(0, Grant::EmbedSecret);
    let script = Script::giving(100 * SECOND);
    let source = script.source();
    let users = ["b@example.com", "c@example.com"].map(|user| of_user(&own, user));
    for user in &users {
        source.token(user).await.unwrap();
    }
    let refused_first = embed(&source, &own).await.unwrap();
    assert!(
        refused_first.is_err(),
        "control: the secret is accepted, so the call itself is refused"
    );
    script.becomes(|_| Err(refused()));
    while source.has_token(&users[0]) && source.has_token(&users[1]) {
        for user in &users {
            let _ = source.token(user).await;
        }
        sleep(SECOND).await;
    }
    let waiting = embed(&source, &own);
    sleep(10 * SECOND).await;
    assert!(!waiting.is_finished(), "it waits for the new secret");
    script.becomes(new_tokens(HOUR));
    activate(&source, &script, 1);
    assert!(waiting.await.unwrap().unwrap_err().is_permit_revoked(), "it goes on with the new one");
}

#[tokio::test(start_paused = true)]
async fn a_call_for_an_embed_token_has_its_whole_time_once_a_hold_has_ended() {
    let own = permit_of(0, Grant::EmbedSecret);
    let source = Script::giving(HOUR).source();
    let longest = own.tenant().server.timeouts.exchange * 2;
    source.hold(&own, HoldOrder::Hold(3 * longest));
    let begun = Instant::now();
    let refused = source.embed_token(&own, &order()).await.unwrap_err();
    assert!(begun.elapsed() >= 3 * longest, "it waits: {:?}", begun.elapsed());
    let kind = &refused.cause.kind;
    assert!(!matches!(kind, ExchangeErrorKind::Timeout(_)), "it asks then: {kind:?}");
}

#[tokio::test(start_paused = true)]
async fn users_who_are_refused_alone_let_no_embed_call_wait() {
    let own = permit_of(0, Grant::EmbedSecret);
    let script = Script::giving(HOUR);
    let source = script.source();
    source.token(&of_user(&own, "b@example.com")).await.unwrap();
    script.becomes(|_| Err(refused()));
    source.token(&of_user(&own, "c@example.com")).await.unwrap_err();
    script.becomes(new_tokens(HOUR));
    // Both were refused, and then the secret was accepted again.
    source.token(&of_user(&own, "d@example.com")).await.unwrap();
    let begun = Instant::now();
    embed(&source, &own).await.unwrap().unwrap_err();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}
