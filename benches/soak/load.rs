//! The load: clients of every kind, each response checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::checked_request::{CheckedRequest, Identity, Kind, Verdict};
use crate::client::{Connection, Response, ResponseError};
use crate::random::Random;

/// The plan that all workers follow.
pub(crate) struct Plan {
    pub(crate) gateways: Vec<SocketAddr>,
    pub(crate) identities: Vec<Identity>,
    /// Requests in all.
    pub(crate) requests: u64,
    /// The number of the next one.
    pub(crate) next: AtomicU64,
}

/// The outcome of the load.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The number of requests for each way to end.
    pub(crate) ends: BTreeMap<String, u64>,
    /// Responses to another request, or corrupt ones.
    pub(crate) violations: Vec<String>,
    /// Microseconds of each right response.
    pub(crate) latencies: Vec<u32>,
}

impl Outcome {
    fn end(&mut self, end: &str) {
        match self.ends.get_mut(end) {
            Some(count) => *count += 1,
            None => drop(self.ends.insert(end.to_owned(), 1)),
        }
    }

    fn response(
        &mut self,
        request: &CheckedRequest,
        response: Result<Response, ResponseError>,
        begun: Instant,
    ) -> bool {
        let response = match response {
            Ok(response) => response,
            Err(ResponseError::Broken) => {
                self.end("visibly broken");
                return false;
            }
            Err(ResponseError::Hung) => {
                self.violations.push("a request got no response within 10 s".into());
                return false;
            }
        };
        match request.judge(&response) {
            Verdict::Right => {
                self.end("200, right");
                let passed = begun.elapsed().as_micros();
                self.latencies.push(u32::try_from(passed).unwrap_or(u32::MAX));
            }
            Verdict::Status(status) => {
                let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
                let code = body["code"].as_str().unwrap_or("of the server");
                self.end(&format!("{status} {code}"));
            }
            Verdict::Foreign(wrong) | Verdict::Mangled(wrong) => self.violations.push(wrong),
        }
        response.keep_alive
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (end, count) in other.ends {
            *self.ends.entry(end).or_default() += count;
        }
        self.violations.extend(other.violations);
        self.latencies.extend(other.latencies);
    }

    /// The quantile of the latencies of right responses, in milliseconds.
    pub(crate) fn quantile(&mut self, per_mille: usize) -> f64 {
        let at = self.latencies.len() * per_mille / 1000;
        let at = at.min(self.latencies.len().saturating_sub(1));
        if self.latencies.is_empty() {
            return 0.0;
        }
        f64::from(*self.latencies.select_nth_unstable(at).1) / 1e3
    }
}

/// One client after the other, of every kind, until all requests are made.
pub(crate) async fn work(plan: Arc<Plan>, mut random: Random) -> Outcome {
    let mut outcome = Outcome::default();
    let mut kept = None;
    loop {
        // Most callers go on with the connection of the caller before.
        let act = random.below(100);
        let most = if act < BURSTS { 2 + random.below(6) } else { 1 };
        let mut requests = Vec::new();
        for _ in 0..most {
            let number = plan.next.fetch_add(1, Relaxed);
            if number < plan.requests {
                requests.push(request(&plan, number, &mut random));
            }
        }
        let Some(first) = requests.first() else { return outcome };
        if act >= 100 - FRESH {
            kept = None;
        }
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(*random.of(&plan.gateways)).await,
        };
        let Ok(mut connection) = connection else {
            outcome.end("no connection");
            continue;
        };
        let begun = Instant::now();
        match act {
            _ if act < BURSTS => {
                let all = requests.iter().flat_map(|q| &q.bytes).copied().collect::<Vec<_>>();
                let mut keep_alive = connection.stream.write_all(&all).await.is_ok();
                for request in &requests {
                    if !keep_alive {
                        outcome.end("after the end of a burst");
                        continue;
                    }
                    let response = connection.next().await;
                    keep_alive = outcome.response(request, response, begun);
                }
                kept = keep_alive.then_some(connection);
            }
            _ if act < BURSTS + ABORTED_REQUESTS => {
                let some = 1 + random.below(first.bytes.len() as u64 - 1);
                let some = usize::try_from(some).unwrap_or(1);
                let _ = connection.stream.write_all(&first.bytes[..some]).await;
                tokio::task::yield_now().await;
                maybe_reset(&connection, &mut random);
                outcome.end("client aborted in the request");
            }
            _ if act < BURSTS + ABORTED_REQUESTS + ABORTED_RESPONSES => {
                let _ = connection.stream.write_all(&first.bytes).await;
                let _ = connection.stream.readable().await;
                maybe_reset(&connection, &mut random);
                outcome.end("client aborted in the response");
            }
            _ => {
                let response = connection.send(&first.bytes).await;
                let keep_alive = outcome.response(first, response, begun);
                kept = keep_alive.then_some(connection);
            }
        }
    }
}

/// Lets the connection be reset when it is dropped, half of the time.
fn maybe_reset(connection: &Connection, random: &mut Random) {
    if random.below(2) == 0 {
        let _ = connection.stream.set_zero_linger();
    }
}

fn request(plan: &Plan, number: u64, random: &mut Random) -> CheckedRequest {
    let identity = random.of(&plan.identities);
    let kind = match random.below(100) {
        0..50 => Kind::Read,
        50..70 => Kind::Write(usize::try_from(random.below(2_000)).unwrap_or(0)),
        70..74 => Kind::Write(20_000),
        74..86 => Kind::Download(5_000, false),
        86..98 => Kind::Download(3_000, true),
        _ => Kind::Download(200_000, random.below(2) == 0),
    };
    CheckedRequest::new(identity, number, kind)
}

/// Percentages: several requests in one write, an abort in a request, an abort in a response, a new
/// connection.
const BURSTS: u64 = 6;
const ABORTED_REQUESTS: u64 = 2;
const ABORTED_RESPONSES: u64 = 2;
const FRESH: u64 = 15;
