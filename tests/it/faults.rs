//! The gateway while the world around it fails: every fault scripted, one gateway through all of
//! them, and the time until all is well again.

use std::fmt::Write;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::scripts::{Script, Shows, one_of_two_addresses, scripts};
use crate::support::faults::lane::{Came, Lane, Sample};
use crate::support::faults::question::Verdict;
use crate::support::gateway::Gateway;

mod keys;
mod scripts;

/// Each lane is a server of its own, so that faults run side by side, and so that a fault of one
/// server would show in the traffic of another. Nothing ever happens to the last.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_needs_a_restart_or_gives_a_client_what_is_not_its_own() {
    let scripts = shuffled(scripts(), SEED);
    assert!(scripts.len() >= 40, "there are {} scripts", scripts.len());
    let addresses = shuffled(one_of_two_addresses(), SEED);
    let mut lanes = Vec::new();
    for name in TWO_ADDRESSES {
        let groups = addresses.len().div_ceil(TWO_ADDRESSES.len());
        lanes.push(Lane::at_two_addresses(name, groups).await);
    }
    for name in LANES {
        lanes.push(Lane::start(name, scripts.len().div_ceil(LANES.len() - 1)).await);
    }
    let gateway = Gateway::start(&config(&lanes));
    for lane in &mut lanes {
        lane.load(gateway.address());
    }
    let calm = lanes.pop().unwrap();
    let mut running = JoinSet::new();
    let others = lanes.split_off(TWO_ADDRESSES.len());
    for (lanes, scripts) in [(lanes, addresses), (others, scripts)] {
        let count = lanes.len();
        for (at, lane) in lanes.into_iter().enumerate() {
            let mine: Vec<_> = scripts.iter().copied().skip(at).step_by(count).collect();
            running.spawn(through(lane, mine));
        }
    }
    let mut reports: Vec<Report> = running.join_all().await.into_iter().flatten().collect();
    reports.sort_by_key(|report| report.name);
    print(&reports);
    let faults: String = reports.iter().flat_map(|report| &report.wrongs).cloned().collect();
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
    assert_eq!(calm.ledger.take_wrongs(), [""; 0]);
}

/// At a steady load, so that there is always something on its way when the tokens go.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_tokens_are_revoked_in_mid_load_nothing_fails_and_each_permit_exchanges_once() {
    const ROUNDS: usize = 3;
    const PERMITS: usize = 64;
    let mut lane = Lane::patient("r", ROUNDS, PERMITS).await;
    let gateway = Gateway::start(&config(std::slice::from_ref(&lane)));
    lane.load(gateway.address());
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        lane.turn_to(round);
        let mut samples = Vec::new();
        assert!(lane.is_well(Instant::now(), MOST, &mut samples).await, "{samples:?}");
        sleep(LEAST).await;
        let exchanges = lane.stand_in.token_requests();
        lane.stand_in.revoke_all();
        assert!(lane.is_well(Instant::now(), MOST, &mut samples).await, "{samples:?}");
        sleep(LEAST).await;
        let more = lane.stand_in.token_requests() - exchanges;
        assert_eq!(more, PERMITS as u64, "one exchange for each permit");
        all.append(&mut samples);
    }
    all.append(&mut lane.take());
    let wrong: Vec<_> = all.iter().filter(|sample| !sample.is_right()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(lane.ledger.take_wrongs(), [""; 0]);
    let (slowest, count) = (all.iter().map(|s| s.ended - s.begun).max().unwrap(), all.len());
    println!(
        "all tokens revoked {ROUNDS} times: {count} requests, 0 failed, {PERMITS} exchanges of \
         {PERMITS} permits each time; the slowest request {slowest:?}"
    );
}

/// What became of a script.
struct Report {
    name: &'static str,
    requests: usize,
    failed: usize,
    first: Duration,
    all: Duration,
    recovers: Duration,
    wrongs: Vec<String>,
}

/// Runs the scripts one after the other.
async fn through(lane: Lane, scripts: Vec<Script>) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut before = Vec::new();
    for (at, script) in scripts.into_iter().enumerate() {
        lane.turn_to(at);
        let warm = lane.is_well(Instant::now(), MOST, &mut before).await;
        let report = run(&lane, &script, before.split_off(0), warm).await;
        let (name, first, all) = (report.name, report.first, report.all);
        println!("fault {name}: first answer after {first:.0?}, recovered in {all:.0?}");
        reports.push(report);
    }
    reports
}

/// Runs a script until it has shown.
async fn run(lane: &Lane, script: &Script, mut samples: Vec<Sample>, warm: bool) -> Report {
    let (exchanges, acted) = (lane.stand_in.token_requests(), lane.acted());
    let begun = Instant::now();
    (script.begin)(lane);
    if script.revokes {
        lane.stand_in.revoke_all();
    }
    let mut shown = false;
    let least = script.settles.map_or(LEAST, |settles| settles + SETTLED);
    while begun.elapsed() < least || (!shown && begun.elapsed() < MOST) {
        sleep(Duration::from_millis(5)).await;
        samples.append(&mut lane.take());
        let mut during = samples.iter().filter(|sample| sample.ended >= begun);
        shown = match script.shows {
            Shows::Slow(time) => during.any(|s| s.is_right() && s.ended - s.begun >= time),
            Shows::Exchange => lane.stand_in.token_requests() > exchanges,
            Shows::Nothing => lane.acted() > acted,
            Shows::Broken => during.any(|s| s.came == Came::Broken),
            Shows::Status(status) => during.any(|s| status_of(s) == Some(status)),
            Shows::AnyStatus => {
                during.any(|s| status_of(s).is_some_and(|status| script.may.contains(&status)))
            }
        };
    }
    lane.calm();
    let ended = Instant::now();
    let well = lane.is_well(ended, MOST, &mut samples).await;

    let mut wrongs: Vec<String> = lane.ledger.take_wrongs();
    if !warm {
        wrongs.push("all was not well before it".into());
    }
    let during = samples.iter().filter(|sample| sample.ended >= begun);
    let before = samples.iter().filter(|sample| sample.ended < begun);
    wrongs.extend(before.filter(|s| !s.is_right()).map(|s| format!("before it: {:?}", s.came)));
    wrongs.extend(during.clone().filter(|s| !allowed(script, s)).map(|s| format!("{:?}", s.came)));
    if let Some(settles) = script.settles {
        let settled = during.clone().filter(|s| s.begun > begun + settles && s.begun < ended);
        let failed = settled.filter(|sample| !sample.is_right());
        wrongs.extend(failed.map(|s| format!("after {settles:?} there was still {:?}", s.came)));
    }
    let failed = during.clone().filter(|sample| !sample.is_right());
    let after = |sample: &Sample| sample.ended.saturating_duration_since(ended);
    let right = samples.iter().filter(|sample| sample.begun >= ended && sample.is_right());
    let report = Report {
        name: script.name,
        requests: during.clone().count(),
        failed: failed.clone().count(),
        first: right.map(after).min().unwrap_or(MOST),
        all: failed.map(after).max().unwrap_or_default(),
        recovers: script.recovers,
        wrongs: Vec::new(),
    };
    if !well {
        wrongs.push(format!("not every client is served again after {MOST:?}"));
    }
    if !shown {
        wrongs.push(format!("it did not show as {:?}: the check proves nothing", script.shows));
    }
    wrongs.sort();
    wrongs.dedup();
    wrongs.truncate(5);
    let wrongs = wrongs.iter().map(|wrong| format!("fault {}: {wrong}\n", script.name)).collect();
    Report { wrongs, ..report }
}

fn allowed(script: &Script, sample: &Sample) -> bool {
    match &sample.came {
        Came::Answer(Verdict::Right) => true,
        Came::Answer(Verdict::Status(status)) => script.may.contains(status),
        Came::Answer(Verdict::Mangled(_)) => script.mangles,
        Came::Answer(Verdict::Foreign(_)) | Came::Hung => false,
        Came::Broken => script.breaks,
    }
}

fn status_of(sample: &Sample) -> Option<u16> {
    match sample.came {
        Came::Answer(Verdict::Status(status)) => Some(status),
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

fn config(lanes: &[Lane]) -> String {
    let mut parts = [const { String::new() }; 3];
    for lane in lanes {
        for (part, more) in parts.iter_mut().zip(lane.config()) {
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

/// In an order that the seed decides, so that what one fault leaves behind meets others than its
/// neighbours.
fn shuffled(mut scripts: Vec<Script>, mut seed: u64) -> Vec<Script> {
    for last in (1..scripts.len()).rev() {
        // SplitMix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let choice = (mixed ^ (mixed >> 31)) % (last as u64 + 1);
        scripts.swap(last, usize::try_from(choice).unwrap());
    }
    scripts
}

/// Their servers have two addresses.
const TWO_ADDRESSES: [&str; 2] = ["x", "y"];
/// Nothing ever happens to the last.
const LANES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "calm"];
const SEED: u64 = 0x00b0_1d6a_7e00_0001;
/// So long a fault lasts at least.
const LEAST: Duration = Duration::from_millis(100);
/// So long it goes on when another address has taken over.
const SETTLED: Duration = Duration::from_millis(500);
/// So long is waited for it to show, and for recovery, at most.
const MOST: Duration = Duration::from_secs(10);
