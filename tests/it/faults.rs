//! One gateway through all scripted faults of networks, servers and clients, and its time to
//! recover from each.

use std::fmt::Write;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::scripts::{Effect, Script, one_of_two_addresses, scripts};
use crate::support::faults::checked_request::Verdict;
use crate::support::faults::faulty_server::{FaultyServer, Outcome, Sample};
use crate::support::gateway::Gateway;

mod keys;
mod scripts;

/// Several servers, so that faults run side by side and a fault of one would show in the traffic of
/// another. The last server has no faults.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_needs_a_restart_or_gives_a_client_the_response_of_another() {
    let scripts = shuffled(scripts(), SEED);
    assert!(scripts.len() >= 40, "there are {} scripts", scripts.len());
    let addresses = shuffled(one_of_two_addresses(), SEED);
    let mut servers = Vec::new();
    for name in TWO_ADDRESSES {
        let groups = addresses.len().div_ceil(TWO_ADDRESSES.len());
        servers.push(FaultyServer::at_two_addresses(name, groups).await);
    }
    for name in SERVERS {
        servers.push(FaultyServer::start(name, scripts.len().div_ceil(SERVERS.len() - 1)).await);
    }
    let gateway = Gateway::start(&config(&servers));
    for server in &mut servers {
        server.load(gateway.address());
    }
    let calm = servers.pop().unwrap();
    let mut running = JoinSet::new();
    let others = servers.split_off(TWO_ADDRESSES.len());
    for (servers, scripts) in [(servers, addresses), (others, scripts)] {
        let count = servers.len();
        for (at, server) in servers.into_iter().enumerate() {
            let mine: Vec<_> = scripts.iter().copied().skip(at).step_by(count).collect();
            running.spawn(through(server, mine));
        }
    }
    let mut reports: Vec<Report> = running.join_all().await.into_iter().flatten().collect();
    reports.sort_by_key(|report| report.name);
    print(&reports);
    let faults: String = reports.iter().flat_map(|report| &report.violations).cloned().collect();
    assert!(faults.is_empty(), "{faults}");

    let samples = calm.take();
    let slowest = samples.iter().map(|sample| sample.ended - sample.begun).max().unwrap();
    println!("where nothing happened: {} requests, the slowest {slowest:?}", samples.len());
    for sample in &samples {
        assert!(sample.is_right(), "a fault of another server showed: {sample:?}");
    }
    for report in &reports {
        let (name, all) = (report.name, report.all);
        assert!(all <= report.recovers + slowest, "fault {name}: one failed {all:?} after its end");
    }
    assert_eq!(calm.ledger.take_violations(), [""; 0]);
}

/// The load is steady, so that requests are in flight when the tokens are revoked.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_tokens_are_revoked_in_mid_load_nothing_fails_and_each_permit_exchanges_once() {
    const ROUNDS: usize = 3;
    const PERMITS: usize = 64;
    let mut server = FaultyServer::patient("r", ROUNDS, PERMITS).await;
    let gateway = Gateway::start(&config(std::slice::from_ref(&server)));
    server.load(gateway.address());
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        server.turn_to(round);
        let mut samples = Vec::new();
        assert!(
            server.is_healthy(Instant::now(), RECOVERY_TIMEOUT, &mut samples).await,
            "{samples:?}"
        );
        sleep(MIN_FAULT_TIME).await;
        let exchanges = server.stand_in.token_requests();
        server.stand_in.revoke_all();
        assert!(
            server.is_healthy(Instant::now(), RECOVERY_TIMEOUT, &mut samples).await,
            "{samples:?}"
        );
        sleep(MIN_FAULT_TIME).await;
        let more = server.stand_in.token_requests() - exchanges;
        assert_eq!(more, PERMITS as u64, "one exchange for each permit");
        all.append(&mut samples);
    }
    all.append(&mut server.take());
    let wrong: Vec<_> = all.iter().filter(|sample| !sample.is_right()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(server.ledger.take_violations(), [""; 0]);
    let (slowest, count) = (all.iter().map(|s| s.ended - s.begun).max().unwrap(), all.len());
    println!(
        "all tokens revoked {ROUNDS} times: {count} requests, 0 failed, {PERMITS} exchanges of \
         {PERMITS} permits each time; the slowest request {slowest:?}"
    );
}

/// The outcome of a script.
struct Report {
    name: &'static str,
    requests: usize,
    failed: usize,
    first: Duration,
    all: Duration,
    recovers: Duration,
    violations: Vec<String>,
}

/// Runs the scripts one after the other.
async fn through(server: FaultyServer, scripts: Vec<Script>) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut before = Vec::new();
    for (at, script) in scripts.into_iter().enumerate() {
        server.turn_to(at);
        let warm = server.is_healthy(Instant::now(), RECOVERY_TIMEOUT, &mut before).await;
        let report = run(&server, &script, before.split_off(0), warm).await;
        let (name, first, all) = (report.name, report.first, report.all);
        println!("fault {name}: first response after {first:.0?}, recovered in {all:.0?}");
        reports.push(report);
    }
    reports
}

/// Runs a script until its effect was seen.
async fn run(
    server: &FaultyServer,
    script: &Script,
    mut samples: Vec<Sample>,
    warm: bool,
) -> Report {
    let (exchanges, acted) = (server.stand_in.token_requests(), server.acted());
    let begun = Instant::now();
    (script.begin)(server);
    if script.revokes {
        server.stand_in.revoke_all();
    }
    let mut shown = false;
    let least = script.settles.map_or(MIN_FAULT_TIME, |settles| settles + MIN_SETTLED_TIME);
    while begun.elapsed() < least || (!shown && begun.elapsed() < RECOVERY_TIMEOUT) {
        sleep(Duration::from_millis(5)).await;
        samples.append(&mut server.take());
        let mut during = samples.iter().filter(|sample| sample.ended >= begun);
        shown = match script.effect {
            Effect::Slow(time) => during.any(|s| s.is_right() && s.ended - s.begun >= time),
            Effect::Exchange => server.stand_in.token_requests() > exchanges,
            Effect::Nothing => server.acted() > acted,
            Effect::Broken => during.any(|s| s.outcome == Outcome::Broken),
            Effect::Status(status) => during.any(|s| status_of(s) == Some(status)),
            Effect::AnyStatus => {
                during.any(|s| status_of(s).is_some_and(|status| script.may.contains(&status)))
            }
        };
    }
    server.end_faults();
    let ended = Instant::now();
    let healthy = server.is_healthy(ended, RECOVERY_TIMEOUT, &mut samples).await;

    let mut violations: Vec<String> = server.ledger.take_violations();
    if !warm {
        violations.push("not every client was served before it".into());
    }
    let during = samples.iter().filter(|sample| sample.ended >= begun);
    let before = samples.iter().filter(|sample| sample.ended < begun);
    violations
        .extend(before.filter(|s| !s.is_right()).map(|s| format!("before it: {:?}", s.outcome)));
    violations
        .extend(during.clone().filter(|s| !allowed(script, s)).map(|s| format!("{:?}", s.outcome)));
    if let Some(settles) = script.settles {
        let settled = during.clone().filter(|s| s.begun > begun + settles && s.begun < ended);
        let failed = settled.filter(|sample| !sample.is_right());
        violations
            .extend(failed.map(|s| format!("after {settles:?} there was still {:?}", s.outcome)));
    }
    let failed = during.clone().filter(|sample| !sample.is_right());
    let after = |sample: &Sample| sample.ended.saturating_duration_since(ended);
    let right = samples.iter().filter(|sample| sample.begun >= ended && sample.is_right());
    let report = Report {
        name: script.name,
        requests: during.clone().count(),
        failed: failed.clone().count(),
        first: right.map(after).min().unwrap_or(RECOVERY_TIMEOUT),
        all: failed.map(after).max().unwrap_or_default(),
        recovers: script.recovers,
        violations: Vec::new(),
    };
    if !healthy {
        violations.push(format!("not every client is served again after {RECOVERY_TIMEOUT:?}"));
    }
    if !shown {
        violations
            .push(format!("its effect {:?} was not seen: the check proves nothing", script.effect));
    }
    violations.sort();
    violations.dedup();
    violations.truncate(5);
    let violations =
        violations.iter().map(|wrong| format!("fault {}: {wrong}\n", script.name)).collect();
    Report { violations, ..report }
}

fn allowed(script: &Script, sample: &Sample) -> bool {
    match &sample.outcome {
        Outcome::Response(Verdict::Right) => true,
        Outcome::Response(Verdict::Status(status)) => script.may.contains(status),
        Outcome::Response(Verdict::Mangled(_)) => script.mangles,
        Outcome::Response(Verdict::Foreign(_)) | Outcome::Hung => false,
        Outcome::Broken => script.breaks,
    }
}

fn status_of(sample: &Sample) -> Option<u16> {
    match sample.outcome {
        Outcome::Response(Verdict::Status(status)) => Some(status),
        _ => None,
    }
}

fn print(reports: &[Report]) {
    let mut table = format!(
        "{:<52} {:>8} {:>6} {:>9} {:>9}\n",
        "fault", "requests", "failed", "first ms", "all ms"
    );
    for Report { name, requests, failed, first, all, .. } in reports {
        let (first, all) = (first.as_millis(), all.as_millis());
        let _ = writeln!(table, "{name:<52} {requests:>8} {failed:>6} {first:>9} {all:>9}");
    }
    println!("{table}{} faults, one gateway, no restart; order {SEED:#x}", reports.len());
}

fn config(servers: &[FaultyServer]) -> String {
    let mut parts = [const { String::new() }; 3];
    for server in servers {
        for (part, more) in parts.iter_mut().zip(server.config()) {
            *part += &more;
        }
    }
    let [servers, tenants, callers] = parts;
    format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: required }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers:\n{servers}tenants:\n{tenants}callers:\n{callers}"
    )
}

/// In an order from the seed, so that the after-effects of a fault meet different faults.
fn shuffled(mut scripts: Vec<Script>, mut seed: u64) -> Vec<Script> {
    for last in (1..scripts.len()).rev() {
        // The generator is SplitMix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let choice = (mixed ^ (mixed >> 31)) % (last as u64 + 1);
        scripts.swap(last, usize::try_from(choice).unwrap());
    }
    scripts
}

/// The servers with two addresses.
const TWO_ADDRESSES: [&str; 2] = ["x", "y"];
/// The last one has no faults.
const SERVERS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "calm"];
const SEED: u64 = 0x00b0_1d6a_7e00_0001;
/// A fault lasts at least this long.
const MIN_FAULT_TIME: Duration = Duration::from_millis(100);
/// A fault lasts this long after another address has taken over.
const MIN_SETTLED_TIME: Duration = Duration::from_millis(500);
/// The deadline for the effect of a fault, and for recovery.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);
