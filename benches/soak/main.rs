//! The gateway through everything at once: many tenants and callers, keep-alive and fresh connections,
//! bursts, clients that leave, revoked tokens, a network and a token endpoint that fail. Every answer
//! is checked by who asked, every token by the server. It ends with 1 if one token or answer was
//! somebody else's, or a write was done twice. Loopback only.
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
use tokio::time::{Instant, timeout};

mod chaos;
#[path = "../../tests/it/faults/client.rs"]
mod client;
mod gateway;
#[path = "../load/listening.rs"]
mod listening;
mod load;
mod population;
#[path = "../../tests/it/faults/proxy.rs"]
#[expect(
    dead_code,
    reason = "what changes bytes is for the tests: here it would look like a mix-up"
)]
mod proxy;
#[path = "../../tests/it/faults/question.rs"]
mod question;
mod random;

use chaos::Chaos;
use gateway::Gateway;
use load::{Outcome, Plan, work};
use proxy::FaultProxy;
use question::Ledger;
use random::Random;

/// Every kind of trouble at once, and whether anybody gets what is not theirs
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
    /// Callers of each tenant
    #[arg(long, default_value_t = 4)]
    callers: usize,
    /// Whether the configuration is replaced and SIGHUP sent, too
    #[arg(long)]
    reloads: bool,
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
    // A thousand requests a second, and not one slower.
    let limit = Duration::from_secs(60 + options.requests / 1000);
    let result = timeout(limit, run(&options)).await;
    match result.unwrap_or_else(|_| Err("it takes too long".into())) {
        Ok(report) => {
            say(&report.text);
            if report.wrongs == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            say(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

struct Report {
    text: String,
    wrongs: usize,
}

async fn run(options: &Options) -> Result<Report, Failure> {
    let askers = population::askers(options.tenants, options.callers);
    let ledger = Ledger::default();
    let stand_in = StandIn::start(StandInOptions {
        sites: population::sites(&askers),
        token_lifetime: Duration::from_secs(24 * 60 * 60),
        record: false,
        witness: Some(ledger.witness()),
        ..StandInOptions::default()
    })
    .await?;
    let proxy = FaultProxy::start(stand_in.addr());
    let mut gateway = Gateway::start(&options.gateway, |secret| {
        population::configuration(&askers, proxy.address, secret)
    })?;
    let mut random = Random(options.seed);
    let plan = Arc::new(Plan {
        gateway: gateway.address,
        askers: askers.clone(),
        requests: options.requests,
        next: AtomicU64::new(0),
    });
    let mut chaos = Chaos {
        stand_in: &stand_in,
        proxy: &proxy,
        askers: &askers,
        reloads: options.reloads,
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
    tokio::select! {
        outcomes = workers.join_all() => outcomes.into_iter().for_each(|one| outcome.add(one)),
        () = chaos.reign(&mut gateway) => {}
    }
    let elapsed = begun.elapsed();
    let done = chaos.done;
    let memory = gateway.memory()?;
    let complaints = gateway.complaints.load(Relaxed);
    gateway.stop()?;
    let wrongs = ledger.take_wrongs();
    Ok(report(
        options,
        outcome,
        &Facts {
            elapsed,
            done,
            memory,
            complaints,
            acted: proxy.acted(),
            wrongs,
            exchanges: stand_in.token_requests(),
        },
    ))
}

/// What was seen elsewhere than by the clients.
struct Facts {
    elapsed: Duration,
    done: BTreeMap<&'static str, u64>,
    memory: u64,
    complaints: u64,
    /// How often the network did something to a connection or to bytes.
    acted: u64,
    wrongs: Vec<String>,
    exchanges: u64,
}

fn report(options: &Options, mut outcome: Outcome, facts: &Facts) -> Report {
    let seconds = facts.elapsed.as_secs_f64();
    let per_second = 1000 * u128::from(options.requests) / facts.elapsed.as_millis().max(1);
    let mut text = format!(
        "{} requests of {} tenants × {} callers by {} clients, seed {}: {seconds:.1} s, \
         {per_second} requests/s\n",
        options.requests, options.tenants, options.callers, options.clients, options.seed,
    );
    for (end, count) in &outcome.ends {
        let _ = writeln!(text, "{count:>10}  {end}");
    }
    let troubles: Vec<_> = facts.done.iter().map(|(what, n)| format!("{what} {n}")).collect();
    let _ = writeln!(
        text,
        "meanwhile: {}; the network did something {} times",
        troubles.join(", "),
        facts.acted
    );
    let (p50, p99) = (outcome.quantile(500), outcome.quantile(990));
    let _ = writeln!(
        text,
        "right answers: p50 {p50:.1} ms, p99 {p99:.1} ms; {} exchanges; {} lines of complaint; the \
         gateway has {} MiB",
        facts.exchanges, facts.complaints, facts.memory
    );
    let wrongs = outcome.wrongs.len() + facts.wrongs.len();
    let _ = writeln!(
        text,
        "tokens, answers or writes that were somebody else's, mangled or done twice: {wrongs}"
    );
    for wrong in outcome.wrongs.iter().chain(&facts.wrongs).take(20) {
        let _ = writeln!(text, "  {wrong}");
    }
    // What never works proves nothing.
    let right = outcome.ends.get("200, right").copied().unwrap_or_default();
    let too_few = right * 2 < options.requests;
    if too_few {
        text += "fewer than half of the answers were right: the run proves nothing\n";
    }
    Report { text, wrongs: wrongs + usize::from(too_few) }
}

#[expect(clippy::print_stdout, reason = "it is what the bench is for")]
fn say(line: &str) {
    println!("{line}");
}
