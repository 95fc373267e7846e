//! A changed secret is proven before the tokens of the former one are dropped.

use super::*;
use crate::policy::Subject;

/// A source whose tenant is changed to other secrets, each with a version of its own.
struct Rotation {
    script: Arc<Script>,
    source: TokenSource,
    telemetry: Arc<Telemetry>,
}

impl Rotation {
    fn new() -> Self {
        let (script, telemetry) = (Script::giving(10 * HOUR), Arc::<Telemetry>::default());
        telemetry.register_tenant("tenant-0");
        let source = script.observed_source(Arc::clone(&telemetry));
        Self { script, source, telemetry }
    }

    /// Activates the secret of this version. Returns the permit of its own user.
    fn activate(&self, version: u64) -> Permit {
        let permit = permits(1, version).remove(0);
        let reissue = of_version(version).reissue();
        let servers = [Arc::clone(&permit.tenant().server)];
        self.source.reconfigure(self.script.clone(), reissue, &servers, || ());
        permit
    }

    async fn token(&self, permit: &Permit) -> Result<Arc<AccessToken>, NoToken> {
        self.source.token(permit).await.map(|lookup| lookup.token)
    }

    /// The numbers of calls by secrets of these versions.
    fn calls(&self, version: u64) -> usize {
        self.script.calls.lock().iter().filter(|(_, of)| *of == version).count()
    }

    fn is_alarmed(&self) -> bool {
        self.telemetry.tenant("tenant-0").secret_is_unproven()
    }
}

fn of_version(version: u64) -> Policy {
    let tenant = Tenant::clone(permits(1, version)[0].tenant());
    let read = |_: &http::Method, _: &str| RouteClass::Read;
    let routes = Routes {
        classify: read,
        classify_installation: read,
        takes_name: |_, _| false,
        masked: |_, _| None,
        ui: |_, _, _| None,
    };
    Policy::new(&Tenants::new(vec![tenant]).unwrap(), routes, HashMap::new(), None)
}

fn refused() -> ExchangeErrorKind {
    ExchangeErrorKind::Refused { status: 401, detail: "" }
}

/// The permit of another user than the credential's own.
fn of_user(own: &Permit, user: &str) -> Permit {
    Permit::of_subject(own, Subject::parse(user).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_is_proven_in_the_background_and_then_the_former_tokens_go() {
    let rotation = Rotation::new();
    let before = rotation.activate(0);
    let (own, other) = (before.clone(), of_user(&before, "b@example.com"));
    let old = [rotation.token(&own).await.unwrap(), rotation.token(&other).await.unwrap()];
    let own = rotation.activate(1);
    let other = of_user(&own, "b@example.com");
    // While the proof is under way, both serve without an exchange of their own.
    assert!(rotation.token(&own).await.unwrap().is_same(&old[0]));
    assert!(rotation.token(&other).await.unwrap().is_same(&old[1]));
    assert!(rotation.is_alarmed());
    sleep(2 * LATENCY).await;
    assert_eq!((rotation.calls(1), rotation.is_alarmed()), (1, false), "one proof is enough");
    assert!(!rotation.token(&own).await.unwrap().is_same(&old[0]));
    assert_eq!(rotation.calls(1), 1, "the proof gave the token");
    assert!(!rotation.token(&other).await.unwrap().is_same(&old[1]));
    assert_eq!((rotation.calls(0), rotation.calls(1)), (2, 2));
}

/// As after a leak: all tokens are dropped first, then the secret is changed.
#[tokio::test(start_paused = true)]
async fn a_changed_secret_is_proven_although_no_token_is_cached_if_the_former_was_accepted() {
    let rotation = Rotation::new();
    rotation.activate(0);
    rotation.activate(1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rotation.calls(1), 0, "nothing is known of a tenant that nobody has used");

    let before = rotation.activate(0);
    rotation.token(&before).await.unwrap();
    assert_eq!(rotation.source.drop_tokens(&before.tenant().name, None), 1);
    rotation.script.becomes(|_| Err(refused()));
    rotation.activate(2);
    assert!(rotation.is_alarmed());
    sleep(2 * LATENCY).await;
    assert_eq!((rotation.calls(2), rotation.is_alarmed()), (1, true), "the typo is told");
    rotation.script.becomes(new_tokens(HOUR));
    let own = rotation.activate(3);
    sleep(2 * LATENCY).await;
    assert_eq!((rotation.calls(3), rotation.is_alarmed()), (1, false));
    rotation.token(&own).await.unwrap();
    // Another reload with the same secret proves nothing again.
    rotation.activate(3);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rotation.calls(3), 1);
}

#[tokio::test(start_paused = true)]
async fn while_a_changed_secret_is_refused_the_former_tokens_serve_for_an_hour() {
    let rotation = Rotation::new();
    let before = rotation.activate(0);
    let old = rotation.token(&before).await.unwrap();
    rotation.script.becomes(|_| Err(refused()));
    let begun = Instant::now();
    let own = rotation.activate(1);
    while begun.elapsed() < Duration::from_secs(3580) {
        assert!(rotation.token(&own).await.unwrap().is_same(&old), "{:?}", begun.elapsed());
        // A user without a token gets the refusal of the new secret.
        let error = rotation.token(&of_user(&own, "b@example.com")).await.unwrap_err();
        assert_eq!(error.cause.kind.code(), "credential_refused");
        sleep(Duration::from_secs(10)).await;
    }
    assert!(rotation.is_alarmed());
    sleep(Duration::from_secs(30)).await;
    let error = rotation.token(&own).await.unwrap_err();
    assert_eq!(error.cause.kind.code(), "credential_refused");
    assert_eq!(rotation.calls(0), 1, "the former secret is used no more");
    let attempts = rotation.calls(1);
    assert!((20..=45).contains(&attempts), "{attempts} of two users, backing off to five minutes");
    // The right secret ends it.
    rotation.script.becomes(new_tokens(HOUR));
    let own = rotation.activate(2);
    rotation.token(&own).await.unwrap();
    assert!(!rotation.is_alarmed());
}

#[tokio::test(start_paused = true)]
async fn the_hour_begins_with_the_first_change_and_a_return_to_the_former_secret_is_a_change() {
    let rotation = Rotation::new();
    let before = rotation.activate(0);
    let old = rotation.token(&before).await.unwrap();
    rotation.script.becomes(|_| Err(refused()));
    let begun = Instant::now();
    for version in 1..5 {
        let own = rotation.activate(version);
        sleep(HOUR / 8).await;
        assert!(rotation.token(&own).await.unwrap().is_same(&old), "{version}");
        assert!(rotation.is_alarmed());
    }
    let own = rotation.activate(5);
    sleep(HOUR.saturating_sub(begun.elapsed()) + Duration::from_secs(1)).await;
    rotation.token(&own).await.unwrap_err();
    // The same with a return within the hour.
    rotation.script.becomes(new_tokens(10 * HOUR));
    let own = rotation.activate(6);
    let old = rotation.token(&own).await.unwrap();
    rotation.script.becomes(|_| Err(refused()));
    rotation.activate(7);
    sleep(Duration::from_secs(1)).await;
    rotation.script.becomes(new_tokens(10 * HOUR));
    let own = rotation.activate(6);
    assert!(rotation.token(&own).await.unwrap().is_same(&old), "no request waits");
    sleep(2 * LATENCY).await;
    assert!(!rotation.is_alarmed());
    assert!(!rotation.token(&own).await.unwrap().is_same(&old));
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_is_under_way_at_the_next_change_proves_nothing() {
    let rotation = Rotation::new();
    let before = rotation.activate(0);
    let old = rotation.token(&before).await.unwrap();
    rotation.activate(1);
    sleep(LATENCY / 2).await;
    assert_eq!(rotation.calls(1), 1, "the proof is under way");
    let own = rotation.activate(2);
    rotation.script.becomes(|_| Err(refused()));
    sleep(2 * LATENCY).await;
    assert!(rotation.is_alarmed());
    assert!(rotation.token(&own).await.unwrap().is_same(&old));
}

#[tokio::test(start_paused = true)]
async fn dropped_tokens_are_gone_at_once_those_of_a_former_secret_too() {
    let rotation = Rotation::new();
    let before = rotation.activate(0);
    rotation.token(&before).await.unwrap();
    rotation.token(&of_user(&before, "b@example.com")).await.unwrap();
    let name = before.tenant().name.clone();
    assert_eq!(rotation.source.drop_tokens(&name, Some("b@example.com")), 1);
    rotation.token(&before).await.unwrap();
    assert_eq!(rotation.script.calls(), 2, "control: the other user's token stays");
    rotation.script.becomes(|_| Err(refused()));
    let own = rotation.activate(1);
    rotation.token(&own).await.unwrap();
    assert_eq!(rotation.source.drop_tokens(&name, None), 1);
    rotation.token(&own).await.unwrap_err();
    assert_eq!(rotation.source.drop_tokens(&name, None), 0);
}
