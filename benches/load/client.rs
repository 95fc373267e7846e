//! The load: keep-alive connections that send requests and check every response.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep_until};

/// A connection that is used for one request after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads the whole response: its status and its body.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::other("the connection was closed before a response"));
            }
            if let Some((status, body)) = response(&self.buffer)? {
                return Ok((status, &self.buffer[body..]));
            }
        }
    }
}

/// Status of a response and where its body begins, once all of it is there.
fn response(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = content_length(head.headers)
        .ok_or_else(|| io::Error::other("a response without Content-Length"))?;
    Ok((bytes.len() >= body + length).then_some((head.code.unwrap_or(0), body)))
}

fn content_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let length = headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(length.value).ok()?.parse().ok()
}

/// The requests to send, and the time to send them.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Sent in turn.
    pub(crate) requests: Arc<Vec<Vec<u8>>>,
    /// When to stop.
    pub(crate) until: Until,
    /// Requests per second on all connections together. Without it, each connection sends the next
    /// request when the last is answered.
    pub(crate) rate: Option<f64>,
}

#[derive(Clone, Copy)]
pub(crate) enum Until {
    Passed(Duration),
    Sent(usize),
}

/// The outcome.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    /// Responses with another status than 200.
    pub(crate) wrong: u64,
    /// Nanoseconds from when a request was due, or sent if that was the plan, to its response.
    latencies: Vec<u64>,
}

impl Outcome {
    pub(crate) fn requests(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that so many of a thousand requests do not exceed, in microseconds.
    pub(crate) fn quantile(&mut self, per_mille: usize) -> f64 {
        let at = (self.latencies.len() * per_mille / 1000).min(self.latencies.len() - 1);
        *self.latencies.select_nth_unstable(at).1 as f64 / 1e3
    }
}

/// Follows the plan on all `connections` at the same time, and gives them back.
pub(crate) async fn drive(
    connections: Vec<Connection>,
    plan: &Plan,
) -> io::Result<(Vec<Connection>, Outcome)> {
    let started = Instant::now();
    let turns = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(work(connection, plan.clone(), Arc::clone(&turns), started));
    }
    let (mut connections, mut all) = (Vec::new(), Outcome::default());
    for result in tasks.join_all().await {
        let (connection, one) = result?;
        connections.push(connection);
        all.wrong += one.wrong;
        all.latencies.extend(one.latencies);
    }
    all.elapsed = started.elapsed();
    if all.latencies.is_empty() {
        return Err(io::Error::other("not one request was answered in time"));
    }
    Ok((connections, all))
}

async fn work(
    mut connection: Connection,
    plan: Plan,
    turns: Arc<AtomicUsize>,
    started: Instant,
) -> io::Result<(Connection, Outcome)> {
    let mut outcome = Outcome::default();
    loop {
        let turn = turns.fetch_add(1, Relaxed);
        let begin = match plan.rate {
            Some(rate) => started + Duration::from_secs_f64(turn as f64 / rate),
            None => Instant::now(),
        };
        let over = match plan.until {
            Until::Passed(time) => begin >= started + time,
            Until::Sent(most) => turn >= most,
        };
        if over {
            return Ok((connection, outcome));
        }
        wait_until(begin).await;
        let request = &plan.requests[turn % plan.requests.len()];
        let (status, _) = connection.ask(request).await?;
        outcome.wrong += u64::from(status != 200);
        outcome.latencies.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Tokio's timer is good to a millisecond; the rest of the time is waited awake.
async fn wait_until(moment: Instant) {
    if let Some(early) = moment.checked_sub(Duration::from_millis(2))
        && early > Instant::now()
    {
        sleep_until(early).await;
    }
    while Instant::now() < moment {
        yield_now().await;
    }
}
