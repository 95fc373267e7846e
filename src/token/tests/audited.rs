//! The audit log of exchanges: one line each, for every purpose and outcome.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::telemetry::{LogSink, Reason};

type Failure = Box<dyn Fn() -> ExchangeErrorKind + Send>;

/// A source with an audit log.
struct Audited {
    source: TokenSource,
    telemetry: Arc<Telemetry>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Audited {
    fn new(script: &Arc<Script>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (telemetry, path) = (Arc::<Telemetry>::default(), folder.path().join("audit.jsonl"));
        telemetry.audit.send_to(Some(&LogSink::File(path.clone()))).unwrap();
        let source = script.observed_source(Arc::clone(&telemetry));
        Self { source, telemetry, path, _folder: folder }
    }

    /// Closes the log and reads its lines.
    fn lines(&self) -> Vec<Value> {
        self.telemetry.audit.send_to(None).unwrap();
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Purpose, request and outcome of each line.
fn summaries(lines: &[Value]) -> Vec<(&str, Option<&str>, &str)> {
    let all = lines.iter().inspect(|line| assert_eq!(line["event"], "exchange"));
    all.map(|line| {
        let text = |name: &str| line[name].as_str();
        let outcome = text("boldgate.outcome").unwrap();
        (text("boldgate.purpose").unwrap(), text("request.id"), outcome)
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn each_exchange_has_one_line_that_says_what_it_is_for_and_whose_request_began_it() {
    let script = Script::giving(HOUR);
    let audited = Audited::new(&script);
    let (source, permits) = (&audited.source, permits(2, 0));
    let portal = CallerName::new("portal");
    let initiator = |request_id| {
        Some(Initiator { request_id, caller: Some(&portal), permission: PermissionId::May(3) })
    };

    let (first, second) = tokio::join!(
        source.token_for(&permits[0], initiator("first")),
        source.token_for(&permits[0], initiator("waits for it")),
    );
    assert!(Arc::ptr_eq(&first.unwrap().token, &second.unwrap().token));
    let cached = source.token_for(&permits[0], initiator("finds it")).await.unwrap();
    assert!(cached.cached);
    assert!(source.reject(&permits[0], &cached.token));
    source.replacement(&permits[0], initiator("was refused")).await.unwrap();
    source.token(&permits[1]).await.unwrap();
    sleep(HOUR * 9 / 10).await;

    let lines = audited.lines();
    let expected = [
        ("request", Some("first"), "granted"),
        ("replacement", Some("was refused"), "granted"),
        ("warm_up", None, "granted"),
        ("refresh", None, "granted"),
        ("refresh", None, "granted"),
    ];
    assert_eq!(summaries(&lines), expected);
    assert_eq!(script.calls(), expected.len());
    let line = &lines[0];
    for (name, value) in [
        ("boldgate.caller", "portal"),
        ("boldgate.permission", "may[3]"),
        ("boldgate.tenant", "tenant-0"),
        ("boldgate.subject", "user@example.com"),
        ("boldgate.grant", "embed_secret"),
    ] {
        assert_eq!(line[name], value);
    }
    assert_eq!(line["boldgate.token_lifetime"], 3600);
    assert_eq!(line["boldgate.exchange_duration"], 0.05, "in seconds");
    assert!(lines[3].get("boldgate.caller").is_none() && lines[3].get("request.id").is_none());
    assert!(!lines.iter().any(|line| line.to_string().contains("token-1")), "never the token");
}

#[tokio::test(start_paused = true)]
async fn a_failed_exchange_has_a_line_with_its_code_and_a_remembered_failure_has_none() {
    let unreachable =
        || ExchangeErrorKind::Unreachable("no route".into(), Reason::TokenEndpointUnreachable);
    let unusable = || ExchangeErrorKind::Unusable { status: 200, fault: "it is empty" };
    let failures: [(Failure, &str); 5] = [
        (Box::new(refused), "credential_refused"),
        (Box::new(unusable), "token_reply_unusable"),
        (Box::new(|| down(None)), "token_endpoint_unavailable"),
        (Box::new(unreachable), "token_endpoint_unavailable"),
        (Box::new(|| ExchangeErrorKind::Timeout(TIMEOUT)), "token_endpoint_timeout"),
    ];
    for (failure, code) in failures {
        let script = Script::new(move |_| Err(failure()));
        let (audited, permit) = (Audited::new(&script), permit());
        audited.source.token(&permit).await.unwrap_err();
        audited.source.token(&permit).await.unwrap_err();
        let lines = audited.lines();
        assert_eq!(summaries(&lines), [("warm_up", None, code)]);
        assert!(lines[0].get("boldgate.token_lifetime").is_none());
    }
    // A token that had ended when it arrived is not granted.
    let script = Script::giving(LATENCY);
    let audited = Audited::new(&script);
    audited.source.token(&permit()).await.unwrap_err();
    assert_eq!(summaries(&audited.lines()), [("warm_up", None, "token_reply_unusable")]);
}

#[tokio::test(start_paused = true)]
async fn through_an_outage_there_are_as_many_lines_as_calls() {
    let script = Script::giving(Duration::from_secs(30));
    let (audited, permits) = (Audited::new(&script), permits(40, 0));
    let ask_all = async |time: u64| {
        for _ in 0..time {
            let mut asking = JoinSet::new();
            for permit in permits.clone() {
                let source = audited.source.clone();
                asking.spawn(async move { source.token(&permit).await.is_ok() });
            }
            asking.join_all().await;
            sleep(Duration::from_secs(1)).await;
        }
    };
    ask_all(5).await;
    script.becomes(|_| Err(down(None)));
    ask_all(60).await;
    script.becomes(new_tokens(HOUR));
    ask_all(5).await;
    // An exchange that never begins has no line: the configuration was changed.
    super::reconfigure(&audited.source, script.clone(), |_| false);
    let calls = script.calls();
    audited.source.token(&super::permits(1, 1)[0]).await.unwrap_err();
    assert_eq!(script.calls(), calls);

    let lines = audited.lines();
    assert!(
        summaries(&lines).iter().any(|(_, _, outcome)| *outcome == "token_endpoint_unavailable")
    );
    assert_eq!(lines.len(), calls);
}

#[test]
fn an_exchange_that_is_cut_off_by_the_end_of_the_gateway_has_its_line_too() {
    let script = Script::giving(HOUR);
    let audited = Audited::new(&script);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let permit = permit();
        let asked = tokio::time::timeout(LATENCY / 2, audited.source.token(&permit)).await;
        assert!(asked.is_err(), "it is under way");
    });
    assert_eq!(script.calls(), 1);
    drop(runtime);
    assert_eq!(summaries(&audited.lines()), [("warm_up", None, "abandoned")]);
}
