//! The cost of the gateway under load: requests that go to the stand-in directly and through the
//! gateway, in turns, so that both meet the same machine. Loopback only; it ends by itself, with 1
//! if any response was not the right one.
//!
//! `cargo bench --bench load -- --help`; see `benches/README.md`.
#![expect(clippy::cast_precision_loss, reason = "figures are read to three digits")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use clap::Parser;
use tokio::task::yield_now;
use tokio::time::timeout;

mod client;
mod gateway;
mod listening;
mod processors;
mod table;
mod upstream;

use client::{Connection, Plan, Until, drive};
use gateway::{AccessLog, Gateway, Start};
use processors::Processors;
use table::{Figures, markdown, spread};
use upstream::request;

/// Load on the gateway, side by side with none in between
#[derive(Debug, Parser)]
struct Options {
    /// How often each target gets its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long a turn takes, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Tenants, asked in turn
    #[arg(long, default_value_t = 100)]
    tenants: usize,
    /// Requests per second, for latencies at a rate that all can serve; as fast as possible if not
    /// given
    #[arg(long)]
    rate: Option<f64>,
    /// Instead of times, count the gateway's instructions per request (needs valgrind)
    #[arg(long)]
    callgrind: bool,
    /// The gateway; the one built with this bench if not given
    #[arg(long, default_value = env!("CARGO_BIN_EXE_boldgate"))]
    gateway: PathBuf,
    /// Cargo says it to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let options = Options::parse();
    // One thread for load and upstream, so that nothing but the gateway competes for its processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            timeout(options.limit(), run(&options)).await.map_err(|_| "it takes too long")?
        })
    });
    match result {
        Ok(report) => {
            say(&report);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            warn(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<String, Failure> {
    let processors = Processors::divide()?;
    if processors.count > 1 {
        // This thread never sleeps while there is load, so the gateway's writes need not wake it.
        // In a virtual machine a wake-up is dear, and would count as the gateway's.
        tokio::spawn(async {
            loop {
                yield_now().await;
            }
        });
    }
    let upstream = upstream::start(options.tenants).await?;
    if options.callgrind {
        return instructions(options, &processors, &upstream).await;
    }
    let tokens = upstream::tokens(&upstream, options.tenants).await?;
    let with_token = tokens.iter().enumerate().map(|(site, token)| request(site, Some(token)));
    let bare = Arc::new((0..options.tenants).map(|site| request(site, None)).collect::<Vec<_>>());
    let gateway = |log| Gateway::start(&options.start(&upstream, log), &processors);
    let mut targets = [
        Target::new(0, "direct", None, Arc::new(with_token.collect())),
        Target::new(1, "gateway", Some(gateway(AccessLog::Nowhere)?), Arc::clone(&bare)),
        Target::new(2, "gateway, log in a file", Some(gateway(AccessLog::File)?), bare),
    ];
    for round in 1..=options.rounds {
        for target in &mut targets {
            target.turn(options, upstream.addr()).await?;
        }
        // The order alternates, so that no gateway always runs after the same other one.
        targets.reverse();
        warn(&format!("round {round} of {}", options.rounds));
    }
    targets.sort_by_key(|target| target.place);
    let permits = targets.len();
    all_exchanged_once(&upstream, options, permits)?;
    Ok(report(options, &processors, &targets))
}

/// A server that is put under load, and its figures, one for each round.
struct Target {
    place: usize,
    name: &'static str,
    /// None when the load goes to the upstream itself.
    gateway: Option<Gateway>,
    requests: Arc<Vec<Vec<u8>>>,
    per_second: Figures,
    median: Figures,
    slow: Figures,
    cpu: Figures,
    memory: Figures,
    most_memory: Figures,
    /// Processors that were busy with what is no part of the bench.
    others: Figures,
}

impl Target {
    fn new(
        place: usize,
        name: &'static str,
        gateway: Option<Gateway>,
        requests: Arc<Vec<Vec<u8>>>,
    ) -> Self {
        Self {
            place,
            name,
            gateway,
            requests,
            per_second: Vec::new(),
            median: Vec::new(),
            slow: Vec::new(),
            cpu: Vec::new(),
            memory: Vec::new(),
            most_memory: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Loads it for a while.
    async fn turn(&mut self, options: &Options, upstream: SocketAddr) -> Result<(), Failure> {
        let address = self.gateway.as_ref().map_or(upstream, |gateway| gateway.address);
        let connections = open(address, options.connections).await?;
        // All tokens are in the cache when it begins.
        let warm_up = Until::Sent(2 * (options.tenants + options.connections));
        let mut plan = Plan { requests: Arc::clone(&self.requests), until: warm_up, rate: None };
        let (connections, first) = drive(connections, &plan).await?;

        plan.until = Until::Passed(Duration::from_secs_f64(options.seconds));
        plan.rate = options.rate;
        let cpu = || self.gateway.as_ref().map_or(Ok(0), Gateway::cpu);
        let (before, own, busy) = (cpu()?, processors::own()?, processors::busy()?);
        let (_, mut load) = drive(connections, &plan).await?;
        let used = cpu()? - before;
        let all = processors::busy()?.saturating_sub(busy);
        let others = all.saturating_sub(used + processors::own()? - own);
        if first.wrong + load.wrong > 0 {
            let wrong = first.wrong + load.wrong;
            return Err(format!("{}: {wrong} responses were not 200", self.name).into());
        }

        self.per_second.push(load.per_second());
        self.median.push(load.quantile(500));
        self.slow.push(load.quantile(990));
        self.others.push(others as f64 / load.elapsed.as_nanos() as f64);
        if let Some(gateway) = &self.gateway {
            let (now, most) = gateway.memory()?;
            self.cpu.push(used as f64 / 1e3 / load.requests() as f64);
            self.memory.push(now as f64 / 1024.0);
            self.most_memory.push(most as f64 / 1024.0);
        }
        Ok(())
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.name.into(),
            spread(&self.per_second, 0),
            spread(&self.median, 0),
            spread(&self.slow, 0),
            spread(&self.cpu, 1),
            spread(&self.memory, 1),
            spread(&self.most_memory, 1),
        ]
    }
}

/// Instructions per request: the difference of two runs of different length, so that the start and
/// the end of the process do not count.
async fn instructions(
    options: &Options,
    processors: &Processors,
    upstream: &StandIn,
) -> Result<String, Failure> {
    let mut totals = Vec::new();
    let requests: Vec<_> = (0..options.tenants).map(|site| request(site, None)).collect();
    let requests = Arc::new(requests);
    for count in COUNTED {
        let gateway = Gateway::start(&options.start(upstream, AccessLog::Nowhere), processors)?;
        let connections = open(gateway.address, options.connections).await?;
        let plan = Plan { requests: Arc::clone(&requests), until: Until::Sent(count), rate: None };
        let (connections, load) = drive(connections, &plan).await?;
        if load.wrong > 0 {
            return Err(format!("{} responses were not 200", load.wrong).into());
        }
        drop(connections);
        totals.push(gateway.stop()?.ok_or("valgrind has counted nothing")?);
    }
    all_exchanged_once(upstream, options, COUNTED.len())?;
    let more = totals[1].saturating_sub(totals[0]) as f64 / (COUNTED[1] - COUNTED[0]) as f64;
    Ok(format!("instructions of the gateway per request: {more:.0} (in user space)"))
}

async fn open(address: SocketAddr, count: usize) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Connection::open(address).await?);
    }
    Ok(connections)
}

/// A token that was refused would have been replaced without a trace in the responses.
fn all_exchanged_once(
    upstream: &StandIn,
    options: &Options,
    permits: usize,
) -> Result<(), Failure> {
    let (is, should) = (upstream.token_requests(), (options.tenants * permits) as u64);
    if is == should {
        return Ok(());
    }
    Err(format!("there were {is} token exchanges where {should} are enough").into())
}

fn report(options: &Options, processors: &Processors, targets: &[Target]) -> String {
    let head = [
        "target",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "gateway's CPU µs/request",
        "its memory MiB",
        "its most memory MiB",
    ];
    let rows: Vec<_> = targets.iter().map(Target::row).collect();
    let pace = match options.rate {
        Some(rate) => format!("at {rate} requests/s"),
        None => "as fast as possible".into(),
    };
    let others: Figures = targets.iter().flat_map(|target| &target.others).copied().collect();
    format!(
        "{} rounds of {} s, {} connections, {} tenants, {} bytes, {pace}; {} processors.\n\
         Median (least–most) of the rounds.\n\n{}\n\
         Every response was 200, every token exchanged once.\n\
         Processors busy with other work meanwhile: {}\n",
        options.rounds,
        options.seconds,
        options.connections,
        options.tenants,
        upstream::BODY,
        processors.count,
        markdown(&head, &rows),
        spread(&others, 2)
    )
}

impl Options {
    fn start(&self, upstream: &StandIn, access_log: AccessLog) -> Start<'_> {
        Start {
            program: &self.gateway,
            upstream: upstream.addr(),
            tenants: self.tenants,
            access_log,
            counted: self.callgrind,
        }
    }

    /// Nothing may take longer than this, whatever happens.
    fn limit(&self) -> Duration {
        let turns = f64::from(self.rounds) * 3.0 * (self.seconds + 5.0);
        Duration::from_secs_f64(60.0 + if self.callgrind { 600.0 } else { turns })
    }
}

#[expect(clippy::print_stdout, reason = "it is what the bench is for")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "how it goes, apart from the result")]
pub(crate) fn warn(line: &str) {
    eprintln!("{line}");
}

/// Requests of the two runs that are counted.
const COUNTED: [usize; 2] = [4_000, 12_000];
