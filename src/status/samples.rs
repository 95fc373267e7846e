//! Samples of the last ten minutes, for sparklines. A task takes one every ten seconds from
//! counters that exist, so a request pays nothing for them.
//!
//! Memory is bounded: 1.5 KiB for the gateway as a whole, for each server, and for each of at most
//! 1,000 tenants; and the last count of each tenant.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::gateway::Gateway;
use crate::proxy::{Proxy, TenantUpstream};
use crate::telemetry::{RequestTotals, RouteMetrics};
use crate::tenant::TenantName;

/// The time from one sample to the next.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(10);

/// The samples of the gateway, its servers and its tenants.
#[derive(Default)]
pub(super) struct Samples(Mutex<SampleRings>);

#[derive(Default)]
struct SampleRings {
    /// The samples that were taken, at most [`MAX_SAMPLES`].
    taken: usize,
    all: ServerRing,
    servers: HashMap<Box<str>, ServerRing>,
    /// The counts of each tenant at the last sample.
    counted: HashMap<TenantName, TenantCount>,
    tenants: HashMap<TenantName, TenantRing>,
}

/// The requests to a server.
#[derive(Default)]
struct ServerRing {
    last: RequestTotals,
    samples: VecDeque<ServerSample>,
}

#[derive(Clone, Copy)]
struct ServerSample {
    requests: u32,
    failed: u32,
    /// In microseconds; `None` without a request.
    mean: Option<u32>,
    p95: Option<u32>,
}

/// The requests of a tenant that had some in the last ten minutes.
type TenantRing = VecDeque<TenantCount>;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct TenantCount {
    requests: u64,
    failed: u64,
    /// The time of all of them together.
    nanoseconds: u64,
}

/// Samples, the oldest first; the last is that of the last ten seconds.
#[derive(Debug, Serialize)]
pub struct RequestSamples {
    /// The time that each sample stands for.
    period_seconds: u64,
    /// Requests in that time, of all outcomes.
    requests: Vec<u64>,
    /// Of them the requests that failed in the gateway, at the server or on the way.
    failed: Vec<u64>,
    /// Their mean time, in milliseconds; `None` without a request.
    mean_ms: Vec<Option<f64>>,
    /// The time that 95 % of them did not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_ms: Option<Vec<Option<f64>>>,
}

impl Samples {
    /// Takes a sample.
    pub(super) fn take(&self, gateway: &Gateway, proxy: &Proxy, no_server: &RouteMetrics) {
        let mut servers: HashMap<&str, &RouteMetrics> = HashMap::new();
        for upstream in proxy.upstreams().iter().map(TenantUpstream::upstream) {
            servers.entry(&upstream.server().name).or_insert_with(|| upstream.routes());
        }
        let tenants = gateway.tenants().iter().map(|tenant| {
            let metrics = gateway.metrics(tenant);
            let count = TenantCount {
                requests: metrics.requests(),
                failed: metrics.faults(),
                nanoseconds: metrics.nanoseconds(),
            };
            (&tenant.name, count)
        });
        self.0.lock().take(&servers, no_server, tenants);
    }

    /// The samples of the gateway as a whole.
    pub(super) fn all(&self) -> RequestSamples {
        of_server(&self.0.lock().all)
    }

    /// The samples of a server.
    pub(super) fn server(&self, name: &str) -> Option<RequestSamples> {
        self.0.lock().servers.get(name).map(of_server)
    }

    /// The samples of a tenant, if it is sampled.
    pub(super) fn tenant(&self, name: &TenantName) -> Option<RequestSamples> {
        let recorded = self.0.lock();
        let ring = recorded.tenants.get(name)?;
        Some(RequestSamples {
            period_seconds: SAMPLE_PERIOD.as_secs(),
            requests: ring.iter().map(|sample| sample.requests).collect(),
            failed: ring.iter().map(|sample| sample.failed).collect(),
            mean_ms: ring.iter().map(|sample| sample.mean_milliseconds()).collect(),
            p95_ms: None,
        })
    }
}

impl SampleRings {
    fn take<'t>(
        &mut self,
        servers: &HashMap<&str, &RouteMetrics>,
        no_server: &RouteMetrics,
        tenants: impl ExactSizeIterator<Item = (&'t TenantName, TenantCount)>,
    ) {
        self.taken = (self.taken + 1).min(MAX_SAMPLES);
        self.servers.retain(|name, _| servers.contains_key(&**name));
        let mut all = totals(no_server);
        for (name, metrics) in servers {
            metrics.add_to(&mut all);
            self.servers.entry((*name).into()).or_default().push(totals(metrics));
        }
        self.all.push(all);

        let configured = tenants.len();
        let mut present = HashSet::with_capacity(configured);
        for (name, now) in tenants {
            let last = self.counted.insert(name.clone(), now).unwrap_or_default();
            // A tenant that was removed and returns counts from 0.
            let last = if now.requests < last.requests { TenantCount::default() } else { last };
            let sample = TenantCount {
                requests: now.requests - last.requests,
                failed: now.failed.saturating_sub(last.failed),
                nanoseconds: now.nanoseconds.saturating_sub(last.nanoseconds),
            };
            self.add_tenant(name, sample);
            present.insert(name);
        }
        if self.counted.len() > configured {
            self.counted.retain(|name, _| present.contains(name));
        }
        let is_shown = |name: &TenantName, ring: &TenantRing| {
            present.contains(name) && ring.iter().any(|sample| sample.requests > 0)
        };
        self.tenants.retain(|name, ring| is_shown(name, ring));
    }

    fn add_tenant(&mut self, name: &TenantName, sample: TenantCount) {
        let has_room = self.tenants.len() < MAX_TENANTS;
        if let Some(ring) = self.tenants.get_mut(name) {
            push(ring, sample);
        } else if sample.requests > 0 && has_room {
            // The samples before had no request.
            let mut ring: TenantRing = vec![TenantCount::default(); self.taken - 1].into();
            push(&mut ring, sample);
            self.tenants.insert(name.clone(), ring);
        }
    }
}

impl TenantCount {
    fn mean_milliseconds(self) -> Option<f64> {
        let mean = Duration::from_nanos(self.nanoseconds.checked_div(self.requests)?);
        Some(mean.as_secs_f64() * 1000.0)
    }
}

impl ServerRing {
    fn push(&mut self, now: RequestTotals) {
        let durations = now.durations.since(&self.last.durations);
        let sample = ServerSample {
            requests: narrow(now.ended.saturating_sub(self.last.ended).into()),
            failed: narrow(now.failed.saturating_sub(self.last.failed).into()),
            mean: durations.mean().map(|mean| narrow(mean.as_micros())),
            p95: durations.quantile(0.95).map(|p95| narrow(p95.as_micros())),
        };
        push(&mut self.samples, sample);
        self.last = now;
    }
}

fn totals(metrics: &RouteMetrics) -> RequestTotals {
    let mut totals = RequestTotals::default();
    metrics.add_to(&mut totals);
    totals
}

fn push<T>(ring: &mut VecDeque<T>, sample: T) {
    if ring.len() == MAX_SAMPLES {
        ring.pop_front();
    }
    ring.push_back(sample);
}

fn narrow(value: u128) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn of_server(ring: &ServerRing) -> RequestSamples {
    let each = || ring.samples.iter();
    let milliseconds = |time: Option<u32>| time.map(|time| f64::from(time) / 1000.0);
    RequestSamples {
        period_seconds: SAMPLE_PERIOD.as_secs(),
        requests: each().map(|sample| sample.requests.into()).collect(),
        failed: each().map(|sample| sample.failed.into()).collect(),
        mean_ms: each().map(|sample| milliseconds(sample.mean)).collect(),
        p95_ms: Some(each().map(|sample| milliseconds(sample.p95)).collect()),
    }
}

/// Ten minutes.
const MAX_SAMPLES: usize = 60;
/// Most tenants with samples: the first that had requests. One without a request for ten minutes
/// makes room for another.
const MAX_TENANTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{EndedRequest, RequestOutcome, Telemetry};

    fn name(index: usize) -> TenantName {
        TenantName::parse(&format!("t{index}")).unwrap()
    }

    /// Takes a sample in which tenant `index` has had this many requests so far.
    fn take(recorded: &mut SampleRings, so_far: &[u64]) {
        let names: Vec<_> = (0..so_far.len()).map(name).collect();
        // Each of them has taken 2 ms.
        let counts = so_far.iter().map(|&requests| TenantCount {
            requests,
            failed: 0,
            nanoseconds: requests * 2_000_000,
        });
        let telemetry = Telemetry::default();
        recorded.take(&HashMap::new(), &telemetry.no_server, names.iter().zip(counts));
    }

    fn requests(recorded: &SampleRings, index: usize) -> Option<Vec<u64>> {
        let ring = recorded.tenants.get(&name(index))?;
        Some(ring.iter().map(|sample| sample.requests).collect())
    }

    #[test]
    fn a_tenant_is_sampled_from_its_first_request_until_ten_minutes_after_its_last() {
        let mut recorded = SampleRings::default();
        take(&mut recorded, &[0, 5]);
        take(&mut recorded, &[2, 5]);
        take(&mut recorded, &[2, 6]);
        assert_eq!(requests(&recorded, 0).unwrap(), [0, 2, 0]);
        assert_eq!(requests(&recorded, 1).unwrap(), [5, 0, 1]);
        let means = recorded.tenants[&name(1)].iter().map(|sample| sample.mean_milliseconds());
        assert_eq!(means.collect::<Vec<_>>(), [Some(2.0), None, Some(2.0)]);
        for _ in 0..MAX_SAMPLES {
            take(&mut recorded, &[2, 6]);
        }
        assert!(requests(&recorded, 0).is_none() && requests(&recorded, 1).is_none());
        take(&mut recorded, &[3, 6]);
        let ring = requests(&recorded, 0).unwrap();
        assert_eq!((ring.len(), ring[MAX_SAMPLES - 1], ring.iter().sum()), (MAX_SAMPLES, 1, 1));
    }

    #[test]
    fn a_tenant_that_is_removed_is_forgotten_and_counts_from_0_when_it_returns() {
        let mut recorded = SampleRings::default();
        take(&mut recorded, &[1, 9]);
        take(&mut recorded, &[1]);
        assert_eq!((recorded.counted.len(), requests(&recorded, 1)), (1, None));
        take(&mut recorded, &[1, 4]);
        assert_eq!(requests(&recorded, 1).unwrap(), [0, 0, 4]);
        // It was removed and has returned between two samples.
        take(&mut recorded, &[1, 3]);
        assert_eq!(requests(&recorded, 1).unwrap(), [0, 0, 4, 3]);
    }

    #[test]
    fn at_most_a_thousand_tenants_are_sampled() {
        let mut recorded = SampleRings::default();
        take(&mut recorded, &[1; MAX_TENANTS + 500]);
        take(&mut recorded, &[2; MAX_TENANTS + 500]);
        assert_eq!(recorded.tenants.len(), MAX_TENANTS);
        assert_eq!(requests(&recorded, 0).unwrap(), [1, 1], "a sampled one stays");
    }

    #[test]
    fn a_server_has_the_rate_the_failures_and_the_times_of_each_sample() {
        let (telemetry, samples) = (Telemetry::default(), Samples::default());
        let metrics = telemetry.server("main");
        let ended = |outcome, milliseconds| {
            metrics.routes.ended(&EndedRequest {
                passed: None,
                class: None,
                outcome,
                status: Some(200),
                duration: Duration::from_millis(milliseconds),
                responded: None,
            });
        };
        let take = || {
            let servers = [("main", &*metrics.routes)].into();
            samples.0.lock().take(&servers, &telemetry.no_server, [].into_iter());
        };
        take();
        for _ in 0..20 {
            ended(RequestOutcome::Served, 40);
        }
        ended(RequestOutcome::Failed, 40);
        take();
        take();
        let shown = samples.server("main").unwrap();
        assert_eq!((shown.requests, shown.failed), (vec![0, 21, 0], vec![0, 1, 0]));
        assert_eq!(shown.mean_ms, [None, Some(40.0), None]);
        let p95 = shown.p95_ms.unwrap()[1].unwrap();
        assert!((25.0..=50.0).contains(&p95), "{p95} is in the bucket of 40 ms");
        assert_eq!(samples.all().requests, [0, 21, 0]);
        samples.0.lock().take(&HashMap::new(), &telemetry.no_server, [].into_iter());
        assert!(samples.server("main").is_none(), "a removed server is forgotten");
    }
}
