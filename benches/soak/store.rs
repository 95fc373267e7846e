//! The token store of the gateways: a real redis-server behind a proxy, both of which fail on
//! purpose. Values in it are sealed, so here the proxy changes bytes, too.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::proxy::{Connect, End, Fault, FaultProxy, Faults};
use crate::random::Random;

/// A running store; dropping it ends it.
pub(crate) struct Store {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
    proxy: FaultProxy,
    random: Random,
    pub(crate) done: BTreeMap<&'static str, u64>,
}

impl Store {
    pub(crate) async fn start(random: Random) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("boldgate-soak-store-").tempdir()?;
        fs::write(folder.path().join(KEY), SEALING_KEY)?;
        // The system chooses the ports of other sockets from 32768 up.
        for try_ in 0..TRIES {
            let port = 12_000 + u16::try_from((std::process::id() * 37 + try_ * 101) % 10_000)?;
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let mut process = spawn(address, &folder)?;
            if answers(&mut process, address).await? {
                let (proxy, done) = (FaultProxy::start(address), BTreeMap::new());
                return Ok(Self { process, address, folder, proxy, random, done });
            }
        }
        Err("there is no port for redis-server".into())
    }

    /// The section of the configuration.
    pub(crate) fn section(&self) -> String {
        format!(
            "token_store:\n  redis: {{ url: \"redis://{}\" }}\n  sealing_keys: [ {{ file: {} }} ]\n  \
             timeout: 200ms\n",
            self.proxy.address,
            self.folder.path().join(KEY).display()
        )
    }

    /// Causes one fault after the other, with time between them in which the store is used, until
    /// the store cannot be brought back.
    pub(crate) async fn run(&mut self) -> Failure {
        loop {
            sleep(Duration::from_millis(1_000 + self.random.below(1_000))).await;
            let what = match self.fault() {
                Ok(what) => what,
                Err(failure) => return failure,
            };
            *self.done.entry(what).or_default() += 1;
            sleep(Duration::from_millis(50 + self.random.below(600))).await;
            if let Err(failure) = self.end_faults().await {
                return failure;
            }
        }
    }

    fn fault(&mut self) -> Result<&'static str, Failure> {
        Ok(match self.random.below(10) {
            0 => {
                kill_process(Pid::from_child(&self.process), Signal::STOP)?;
                "store stalled"
            }
            1 => {
                self.process.kill()?;
                self.process.wait()?;
                "store killed"
            }
            2 => {
                ask(self.address, "CONFIG SET maxmemory 1")?;
                "store full"
            }
            3 => {
                ask(self.address, "REPLICAOF 127.0.0.1 1")?;
                "store read-only"
            }
            4 => {
                ask(self.address, "FLUSHALL")?;
                "store flushed"
            }
            5 => {
                self.proxy.sever(*self.random.of(&[End::Reset, End::Closed]));
                "store cut off"
            }
            6 => {
                let connect = [Connect::Refused, Connect::Reset, Connect::Closed, Connect::Silent];
                self.proxy.connect(*self.random.of(&connect));
                self.proxy.sever(End::Reset);
                "no new connections to the store"
            }
            7 => {
                let to_server = self.of_network();
                self.proxy.requests(Faults { to_server, ..Faults::default() });
                "fault in requests to the store"
            }
            _ => {
                let to_gateway = self.of_network();
                self.proxy.requests(Faults { to_gateway, ..Faults::default() });
                "fault in replies of the store"
            }
        })
    }

    fn of_network(&mut self) -> Fault {
        let after = usize::try_from(self.random.below(4_000)).unwrap_or(0);
        *self.random.of(&[
            Fault::Latency(Duration::from_millis(30)),
            Fault::Rate(20_000),
            Fault::Scraps,
            Fault::StallAfter(after),
            Fault::ResetAfter(after),
            Fault::CloseAfter(after),
            Fault::HalfCloseAfter(after),
            Fault::CorruptAfter(after),
            Fault::Twice,
        ])
    }

    async fn end_faults(&mut self) -> Result<(), Failure> {
        self.proxy.end_faults();
        if self.process.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.process), Signal::CONT)?;
            ask(self.address, "CONFIG SET maxmemory 0")?;
            ask(self.address, "REPLICAOF NO ONE")?;
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            self.process = spawn(self.address, &self.folder)?;
            if answers(&mut self.process, self.address).await? {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                return Err("redis-server does not start again".into());
            }
        }
    }

    /// How often a fault of the network took effect.
    pub(crate) fn acted(&self) -> u64 {
        self.proxy.acted()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(address: SocketAddr, folder: &TempDir) -> Result<Child, Failure> {
    let child = Command::new("redis-server")
        .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir", &folder.path().display().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.map_err(|error| format!("cannot start redis-server: {error}").into())
}

/// Waits until it answers. False if it has ended: another process may have the port.
async fn answers(process: &mut Child, address: SocketAddr) -> Result<bool, Failure> {
    let (begun, own) = (Instant::now(), format!("\nprocess_id:{}\r", process.id()));
    while begun.elapsed() < LIMIT {
        if process.try_wait()?.is_some() {
            return Ok(false);
        }
        if ask(address, "INFO server").is_ok_and(|said| said.contains(&own)) {
            return Ok(true);
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err("redis-server does not answer".into())
}

/// The beginning of the reply to a command.
fn ask(address: SocketAddr, command: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    if reply.starts_with('-') {
        return Err(format!("redis-server refuses `{command}`: {reply}").into());
    }
    Ok(reply)
}

const KEY: &str = "sealing-key";
const SEALING_KEY: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
const TRIES: u32 = 20;
const LIMIT: Duration = Duration::from_secs(10);
