//! The gateway through everything at once: many tenants and callers, keep-alive and fresh
//! connections, bursts, clients that abort, revoked tokens, a network and a token endpoint that
//! fail. The client checks each response, the server each token. It ends with 1 if one
//! token or response was of another request, or a write was done twice. Loopback only.
//!
//! `cargo bench --bench soak -- --help`; see `benches/README.md`.
#![expect(unreachable_pub, reason = "what the fault tests share with it is public there")]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use boldgate::boldbi::stand_in::{StandIn, StandInOptions};
use clap::Parser;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

mod chaos;
#[path = "../../tests/it/support/faults/checked_request.rs"]
mod checked_request;
#[path = "../../tests/it/support/faults/client.rs"]
mod client;
mod gateway;
mod issuer;
#[path = "../load/listening.rs"]
mod listening;
mod load;
mod population;
#[path = "../../tests/it/support/faults/proxy.rs"]
mod proxy;
mod random;
mod store;

use chaos::{Chaos, Files};
use checked_request::Ledger;
use gateway::Gateway;
use load::{Outcome, Plan, work};
use population::Population;
use proxy::FaultProxy;
use random::Random;
use store::Store;

/// All kinds of faults at once; checks that no client gets a response of another
#[derive(Debug, Parser)]
struct Options {
    /// How many requests are made
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// Clients at the same time
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Tenants
    #[arg(long, default_value_t = 64)]
    tenants: usize,
    /// Users of each tenant as whom requests act
    #[arg(long, default_value_t = 4)]
    subjects: usize,
    /// Whether secrets are rotated and the configuration is changed, too
    #[arg(long)]
    reloads: bool,
    /// Two gateways with a token store in common, which has faults of its own; needs `redis-server`
    #[arg(long)]
    store: bool,
    /// Decides all choices
    #[arg(long, default_value_t = 0x601d)]
    seed: u64,
    /// The gateway; the one built with this bench if not given
    #[arg(long, default_value = env!("CARGO_BIN_EXE_boldgate"))]
    gateway: PathBuf,
    /// Cargo says it to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // A hanging request is found after 10 s; this bound is for a gateway that has become slow.
    let limit = Duration::from_secs(120 + options.requests / MIN_REQUESTS_PER_SECOND);
    let result = timeout(limit, run(&options)).await;
    match result.unwrap_or_else(|_| Err("it takes too long".into())) {
        Ok(report) => {
            print(&report.text);
            if report.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            print(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

struct Report {
    text: String,
    violations: usize,
}

async fn run(options: &Options) -> Result<Report, Failure> {
    let population = Population::new(options.tenants, options.subjects)?;
    let ledger = Ledger::default();
    let stand_in = StandIn::start(StandInOptions {
        sites: population.sites(),
        token_lifetime: Duration::from_secs(24 * 60 * 60),
        record: false,
        observer: Some(ledger.observer()),
        ..StandInOptions::default()
    })
    .await?;
    let proxy = FaultProxy::start(stand_in.addr());
    let mut random = Random(options.seed);
    let mut store =
        if options.store { Some(Store::start(Random(options.seed).fork()).await?) } else { None };
    let section = store.as_ref().map(Store::section).unwrap_or_default();
    let gateways: Vec<Gateway> = (0..if options.store { 2 } else { 1 })
        .map(|_| {
            Gateway::start(&options.gateway, population.files(), |folder| {
                population.configuration(proxy.address, folder, 0) + &section
            })
        })
        .collect::<Result<_, _>>()?;
    let mut memory = vec![most_memory(&gateways)?];
    let plan = Arc::new(Plan {
        gateways: gateways.iter().map(|gateway| gateway.address).collect(),
        identities: population.identities.clone(),
        requests: options.requests,
        next: AtomicU64::new(0),
    });
    let mut chaos = Chaos {
        stand_in: &stand_in,
        proxy: &proxy,
        population: &population,
        users: population.users(),
        files: options.reloads.then(Files::default),
        section: &section,
        random: random.fork(),
        revoked: HashMap::new(),
        done: BTreeMap::new(),
    };
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..options.clients {
        workers.spawn(work(Arc::clone(&plan), random.fork()));
    }
    let mut outcome = Outcome::default();
    // After a tenth of the requests the gateway has the memory that these tenants and clients need.
    // More at the end would be a leak.
    let tenth = async {
        while plan.next.load(Relaxed) < options.requests / 10 {
            sleep(Duration::from_millis(20)).await;
        }
        most_memory(&gateways)
    };
    let all = async { tokio::join!(workers.join_all(), tenth) };
    tokio::select! {
        (outcomes, tenth) = all => {
            for one in outcomes {
                outcome.add(one);
            }
            memory.push(tenth?);
        }
        failure = chaos.run(&gateways) => return Err(failure),
        failure = faults_of(&mut store) => return Err(failure),
    }
    let elapsed = begun.elapsed();
    let mut done = chaos.done;
    memory.push(most_memory(&gateways)?);
    let warnings = gateways.iter().map(|gateway| gateway.warnings.load(Relaxed)).sum();
    let taken = gateways.iter().map(Gateway::taken_from_store).sum::<Result<u64, _>>()?;
    for gateway in gateways {
        gateway.stop()?;
    }
    let mut acted = proxy.acted();
    if let Some(store) = store {
        done.extend(store.done.iter());
        acted += store.acted();
    }
    let violations = ledger.take_violations();
    Ok(report(
        options,
        outcome,
        &Facts {
            elapsed,
            done,
            memory,
            warnings,
            acted,
            taken: options.store.then_some(taken),
            violations,
            exchanges: stand_in.token_requests(),
        },
    ))
}

/// The faults of the store, if there is one; it never ends without.
async fn faults_of(store: &mut Option<Store>) -> Failure {
    match store {
        Some(store) => store.run().await,
        None => std::future::pending().await,
    }
}

/// MiB of the gateway that has most.
fn most_memory(gateways: &[Gateway]) -> Result<u64, Failure> {
    let all = gateways.iter().map(Gateway::memory).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().max().unwrap_or_default())
}

/// The observations beside those of the clients.
struct Facts {
    elapsed: Duration,
    done: BTreeMap<&'static str, u64>,
    /// MiB of the gateway at the start, after a tenth of the requests, and at the end.
    memory: Vec<u64>,
    warnings: u64,
    /// How often a fault of the network took effect.
    acted: u64,
    /// Tokens that were taken from the store, if there is one.
    taken: Option<u64>,
    violations: Vec<String>,
    exchanges: u64,
}

fn report(options: &Options, mut outcome: Outcome, facts: &Facts) -> Report {
    let seconds = facts.elapsed.as_secs_f64();
    let per_second = 1000 * u128::from(options.requests) / facts.elapsed.as_millis().max(1);
    let mut text = format!(
        "{} requests of {} tenants × {} subjects by {} clients, seed {}: {seconds:.1} s, \
         {per_second} requests/s\n",
        options.requests, options.tenants, options.subjects, options.clients, options.seed,
    );
    for (end, count) in &outcome.ends {
        let _ = writeln!(text, "{count:>10}  {end}");
    }
    let faults: Vec<_> = facts.done.iter().map(|(what, n)| format!("{what} {n}")).collect();
    let _ = writeln!(
        text,
        "meanwhile {} faults and changes: {}; the network took effect {} times",
        facts.done.values().sum::<u64>(),
        faults.join(", "),
        facts.acted
    );
    let (p50, p99) = (outcome.quantile(500), outcome.quantile(990));
    let worst = outcome.quantile(1000);
    let _ = writeln!(
        text,
        "right responses: p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms; {} exchanges; {} warnings \
         or errors\nthe gateway's memory: {} MiB at the start, after a tenth and at the end",
        facts.exchanges,
        facts.warnings,
        facts.memory.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    );
    let violations = outcome.violations.len() + facts.violations.len();
    let _ = writeln!(
        text,
        "tokens, responses or writes that were of another request, mangled or done twice: {violations}"
    );
    for wrong in outcome.violations.iter().chain(&facts.violations).take(20) {
        let _ = writeln!(text, "  {wrong}");
    }
    if let Some(taken) = facts.taken {
        let _ = writeln!(text, "two gateways took {taken} tokens from their store");
    }
    let unused = facts.taken == Some(0);
    if unused {
        text += "the store gave no token: the run proves nothing\n";
    }
    // A run in which most requests fail proves nothing.
    let right = outcome.ends.get("200, right").copied().unwrap_or_default();
    let too_few = right * 2 < options.requests;
    if too_few {
        text += "fewer than half of the responses were right: the run proves nothing\n";
    }
    Report { text, violations: violations + usize::from(too_few) + usize::from(unused) }
}

/// Requests a second at least. A busy machine makes 240 in the development profile.
const MIN_REQUESTS_PER_SECOND: u64 = 150;

#[expect(clippy::print_stdout, reason = "it is what the bench is for")]
fn print(line: &str) {
    println!("{line}");
}
