//! Exchanges wait for a changed secret, once and for a time that is known.

use super::*;
use crate::policy::Subject;

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
        let permit = permit_of(version, Grant::EmbedSecret);
        let reissue = policy_of(permit.tenant()).reissue();
        let servers = [Arc::clone(&permit.tenant().server)];
        self.source.reconfigure(self.script.clone(), reissue, &servers, || ());
        permit
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
