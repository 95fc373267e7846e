//! The families of metrics whose series are those of tenants. A series appears with the first
//! traffic of its tenant, and a rare one with its first event: with a hundred thousand tenants, a
//! page of all of them would be longer than what a scrape may read.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;
use strum::VariantArray;

use super::outcome::{ALL, NONE};
use super::tenant_metrics::{TenantCounters, TenantMetrics};
use super::{EmbedOutcome, ExchangeOutcome, RefreshOutcome, RequestOutcome};

/// The tenants that metrics have series of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TenantSeries {
    /// Each tenant that had traffic.
    #[default]
    Used,
    /// None: the tenants are counted together.
    None,
}

/// A family of metrics with series for tenants.
#[derive(Debug)]
pub(super) struct TenantFamily {
    /// Its name, without the suffix of its samples.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: TenantKind,
    /// The samples of a tenant, sorted by the value of their own label.
    samples: Vec<TenantSample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TenantKind {
    Counter,
    /// 0 or 1; together, the number of tenants with 1.
    Flag,
    /// A number that means nothing for several tenants together, in this unit.
    Gauge(Option<&'static str>),
    Histogram,
}

impl TenantKind {
    /// The type and the unit on the page.
    pub(super) fn shown(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Counter => ("counter", None),
            Self::Flag => ("gauge", None),
            Self::Gauge(unit) => ("gauge", unit),
            Self::Histogram => ("histogram", Some("seconds")),
        }
    }
}

#[derive(Debug)]
struct TenantSample {
    /// A label beside the tenant's.
    label: Option<(&'static str, &'static str)>,
    value: Value,
    /// Whether it is on the page while it is 0.
    shows_zero: bool,
}

/// Reads a number.
struct Value(Box<dyn Fn(&TenantCounters) -> u64 + Send + Sync>);

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Value")
    }
}

impl TenantSample {
    fn new(value: impl Fn(&TenantCounters) -> u64 + Send + Sync + 'static) -> Self {
        Self { label: None, value: Value(Box::new(value)), shows_zero: true }
    }

    /// The same, on the page from its first event on.
    fn once_not_zero(self) -> Self {
        Self { shows_zero: false, ..self }
    }

    fn labelled(self, name: &'static str, value: &'static str) -> Self {
        Self { label: Some((name, value)), ..self }
    }
}

/// One sample for each outcome; `usual` ones are there while they are 0.
fn by_outcome<O>(usual: &[O], value: fn(&TenantCounters, usize) -> u64) -> Vec<TenantSample>
where
    O: VariantArray + Copy + PartialEq + Into<&'static str>,
{
    let samples = O::VARIANTS.iter().enumerate().map(|(index, outcome)| {
        let sample = TenantSample::new(move |counts| value(counts, index));
        let sample = sample.labelled("outcome", (*outcome).into());
        if usual.contains(outcome) { sample } else { sample.once_not_zero() }
    });
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by_key(|sample| sample.label);
    samples
}

/// All of them, sorted by name. An outcome that alerts look for is there from the first traffic on,
/// so that its first event is an increase.
pub(super) static FAMILIES: LazyLock<Vec<TenantFamily>> = LazyLock::new(|| {
    let counter =
        |name, help, samples| TenantFamily { name, help, kind: TenantKind::Counter, samples };
    let flag = |name, help, value: fn(&TenantCounters) -> u64| {
        let samples = vec![TenantSample::new(value)];
        TenantFamily { name, help, kind: TenantKind::Flag, samples }
    };
    let gauge = |name, help, unit, sample| {
        let (kind, samples) = (TenantKind::Gauge(unit), vec![sample]);
        TenantFamily { name, help, kind, samples }
    };
    let one = |value: fn(&TenantCounters) -> u64| vec![TenantSample::new(value)];
    let mut families = vec![
        counter(
            "boldgate_http_requests",
            "Requests by outcome",
            by_outcome(&[RequestOutcome::Served, RequestOutcome::Failed], |counts, outcome| {
                counts.requests.get(outcome)
            }),
        ),
        counter(
            "boldgate_token_exchanges",
            "Token exchanges by outcome",
            by_outcome(&[ExchangeOutcome::Success, ExchangeOutcome::Refused], |counts, outcome| {
                counts.exchanges.get(outcome)
            }),
        ),
        counter(
            "boldgate_embed_calls",
            "Calls of web pages to embed, by outcome",
            by_outcome::<EmbedOutcome>(&[], TenantCounters::embeds),
        ),
        counter(
            "boldgate_token_refreshes",
            "Refreshes of tokens ahead of their expiry, by outcome",
            by_outcome::<RefreshOutcome>(&[], |counts, outcome| counts.refreshes.get(outcome)),
        ),
        counter(
            "boldgate_token_cache_requests",
            "Requests that found their token in the cache, or had to wait for an exchange",
            vec![
                TenantSample::new(|counts| counts.cache_hits.load(Relaxed))
                    .labelled("result", "hit"),
                TenantSample::new(|counts| counts.cache_misses.load(Relaxed))
                    .labelled("result", "miss"),
            ],
        ),
        counter(
            "boldgate_tokens_rejected",
            "Responses of 401 to a token that the gateway put on, which clients got",
            one(|counts| counts.of_rare(|rare| &rare.tokens_rejected)),
        ),
        counter(
            "boldgate_replays",
            "Requests sent again with another token after the server had refused the first",
            one(|counts| counts.of_rare(|rare| &rare.replays)),
        ),
        counter(
            "boldgate_token_failures_remembered",
            "Token lookups that failed by a remembered failure, without an exchange",
            one(|counts| counts.of_rare(|rare| &rare.failures_remembered)),
        ),
        counter(
            "boldgate_token_replies_for_another_user",
            "Token replies for another user than the one asked for; none was used",
            one(|counts| counts.of_rare(|rare| &rare.replies_for_another_user)),
        ),
        flag(
            "boldgate_tenant_secret_unreadable",
            "1 while the configured secret of a tenant cannot be read, or cannot be a secret",
            |counts| counts.secret_unreadable.load(Relaxed).into(),
        ),
        flag(
            "boldgate_tenant_secret_unproven",
            "1 while the changed secret of a tenant has given no token yet",
            |counts| counts.secret_unproven.load(Relaxed).into(),
        ),
        gauge(
            "boldgate_tenant_secret_position",
            "The position of the secret that gave the last token, of a tenant with two; else 0",
            None,
            TenantSample::new(|counts| counts.secret_position.load(Relaxed).into()),
        ),
        gauge(
            "boldgate_token_expiry_timestamp_seconds",
            "When the newest token expires, as a Unix time",
            Some("seconds"),
            TenantSample::new(TenantCounters::token_expiry).once_not_zero(),
        ),
        TenantFamily {
            name: "boldgate_tenant_request_duration_seconds",
            help: "Time from the first byte of a request to the last of its response, of the first \
                   tenants with traffic, as many as `metrics.tenant_durations` says",
            kind: TenantKind::Histogram,
            samples: Vec::new(),
        },
    ];
    families.sort_by_key(|family| family.name);
    families
});

/// The tenants on a page as they are when it begins.
#[derive(Debug)]
pub(super) struct TenantsOnPage {
    /// The tenants with traffic, and the one of requests without a tenant, sorted by name.
    tenants: Vec<Arc<TenantMetrics>>,
    /// The sum of all tenants, in place of each of them.
    sum: Option<TenantCounters>,
    flags: Flags,
    shows_durations: bool,
}

/// How many tenants have a flag.
#[derive(Debug, Default)]
struct Flags(Vec<(&'static str, u64)>);

impl TenantsOnPage {
    pub(super) fn of_each(mut tenants: Vec<Arc<TenantMetrics>>, shows_durations: bool) -> Self {
        tenants.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        Self { tenants, sum: None, flags: Flags::default(), shows_durations }
    }

    /// The page of all tenants together; `sum` has the counts of removed ones.
    pub(super) fn together(
        tenants: &[Arc<TenantMetrics>],
        none: Arc<TenantMetrics>,
        sum: TenantCounters,
    ) -> Self {
        let known = || tenants.iter().filter_map(|tenant| tenant.known());
        known().for_each(|counts| sum.add(counts));
        let flags = FAMILIES.iter().filter(|family| family.kind == TenantKind::Flag);
        let flags = flags.map(|family| {
            let count = known().map(|counts| (family.samples[0].value.0)(counts)).sum();
            (family.name, count)
        });
        let flags = Flags(flags.collect());
        Self { tenants: vec![none], sum: Some(sum), flags, shows_durations: false }
    }

    /// How many parts a family has, to be written one by one.
    pub(super) fn parts(&self) -> usize {
        self.tenants.len() + usize::from(self.sum.is_some())
    }

    /// Writes a part of `family`.
    pub(super) fn write(&self, family: &TenantFamily, part: usize, page: &mut String) {
        let is_sum = self.sum.is_some() && part == 0;
        if let (true, Some(sum)) = (is_sum, &self.sum) {
            // `_all` sorts before `_none`.
            return self.write_sum(family, sum, page);
        }
        let tenant = &self.tenants[part - usize::from(self.sum.is_some())];
        let Some(counts) = tenant.known() else {
            // Requests without a tenant are counted from 0 on.
            if tenant.name() == NONE && family.name == REQUESTS {
                family.write_all(NONE, &TenantCounters::default(), page);
            }
            return;
        };
        if tenant.name() == NONE {
            // Nothing else is counted without a tenant.
            if family.name == REQUESTS {
                family.write_all(NONE, counts, page);
            }
        } else if family.kind == TenantKind::Histogram {
            if let Some(durations) = counts.durations().filter(|_| self.shows_durations) {
                write_histogram(family.name, tenant.name(), durations, page);
            }
        } else {
            for sample in &family.samples {
                let value = (sample.value.0)(counts);
                if value > 0 || sample.shows_zero {
                    family.write(tenant.name(), sample, value, page);
                }
            }
        }
    }

    fn write_sum(&self, family: &TenantFamily, sum: &TenantCounters, page: &mut String) {
        match family.kind {
            TenantKind::Counter => family.write_all(ALL, sum, page),
            TenantKind::Flag => {
                let found = self.flags.0.iter().find(|(name, _)| *name == family.name);
                let count = found.map_or(0, |(_, count)| *count);
                family.write(ALL, &family.samples[0], count, page);
            }
            TenantKind::Gauge(_) | TenantKind::Histogram => {}
        }
    }
}

impl TenantFamily {
    fn write_all(&self, tenant: &str, counts: &TenantCounters, page: &mut String) {
        for sample in &self.samples {
            self.write(tenant, sample, (sample.value.0)(counts), page);
        }
    }

    fn write(&self, tenant: &str, sample: &TenantSample, value: u64, page: &mut String) {
        page.push_str(self.name);
        if self.kind == TenantKind::Counter {
            page.push_str("_total");
        }
        // The characters of a tenant's name need no escape.
        page.push_str("{tenant=\"");
        page.push_str(tenant);
        if let Some((name, value)) = sample.label {
            for part in ["\",", name, "=\"", value] {
                page.push_str(part);
            }
        }
        page.push_str("\"} ");
        page.push_str(itoa::Buffer::new().format(value));
        page.push('\n');
    }
}

/// The lines of a histogram as the registry writes them.
fn write_histogram(
    name: &'static str,
    tenant: &str,
    durations: &super::DurationHistogram,
    page: &mut String,
) {
    let labels = [("tenant".to_owned(), tenant.to_owned())];
    let mut registry = Registry::with_labels(labels.into_iter().map(|(n, v)| (n.into(), v.into())));
    registry.register(name, "", durations.clone());
    let mut text = String::new();
    encode_registry(&mut text, &registry).expect("writing to a string does not fail");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{line}");
    }
}

const REQUESTS: &str = "boldgate_http_requests";
