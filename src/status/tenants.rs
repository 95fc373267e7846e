//! The tenants: searched, sorted and paged here, so that a client never gets thousands at once.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::samples::{RequestSamples, Samples};
use super::{ShownGeneration, TenantCounts};
use crate::gateway::Gateway;
use crate::telemetry::{
    EmbedOutcome, EmbedRecord, ExchangeTimes, Telemetry, TenantMetrics, timestamp,
};
use crate::tenant::{DisabledBy, Tenant};

/// Which tenants to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantQuery {
    /// A part of a name, a server, a site or a host, in lower case; empty for all.
    search: String,
    /// Only tenants in this state; `None` for all.
    state: Option<TenantState>,
    sort: Sort,
    descending: bool,
    /// From 1.
    page: usize,
    per_page: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
enum Sort {
    Name,
    Server,
    State,
    Requests,
    Expires,
}

/// A query that is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{parameter}` is not understood: {accepted}")]
pub struct BadQuery {
    parameter: &'static str,
    accepted: &'static str,
}

/// A part of the tenants.
#[derive(Debug, Serialize)]
pub struct TenantPage {
    /// The tenants that the search has found, on all pages.
    found: usize,
    page: usize,
    per_page: usize,
    tenants: Vec<TenantStatus>,
}

/// The state of a tenant.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::EnumString, strum::Display,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TenantState {
    /// The last exchange failed.
    Failing,
    /// The secret cannot be used, and there is no former one.
    SecretUnreadable,
    /// It goes on with its former secret, because the configured one cannot be used or gives no
    /// token.
    FormerSecret,
    /// Its requests are refused, by the configuration or by an operator.
    Disabled,
    /// The last exchange gave a token.
    Ok,
    /// There was no exchange since the gateway started.
    NeverUsed,
}

/// A tenant.
#[derive(Debug, Serialize)]
pub struct TenantStatus {
    name: String,
    server: String,
    site: Option<String>,
    hosts: Vec<String>,
    state: TenantState,
    /// `configuration` or `operator`; `None` unless it is disabled.
    disabled_by: Option<&'static str>,
    grant: &'static str,
    /// The position of the secret that gave the last token; `None` unless it has two.
    secret_position: Option<u8>,
    /// Whether a rotation of its secret has begun and not ended.
    rotation_unfinished: bool,
    /// Where Bold BI keeps its user, such as `azure_ad`.
    user_source: String,
    token: Option<TokenTimes>,
    last_exchange: Option<LastExchange>,
    requests: u64,
    /// `None` unless it has `embed`.
    embed_calls: Option<EmbedCallCounts>,
    /// Tokens found in the cache, of all that were looked for; `None` if none was.
    hit_ratio: Option<f64>,
    bulkhead: Option<BulkheadUse>,
    /// `None` if it had no request for ten minutes, or too many others had.
    samples: Option<RequestSamples>,
}

/// The times of the tenant's newest token.
#[derive(Debug, Serialize)]
struct TokenTimes {
    obtained_at: String,
    expires_at: String,
    age_seconds: u64,
    /// 0 once it has expired.
    seconds_left: u64,
}

#[derive(Debug, Serialize)]
struct LastExchange {
    at: String,
    /// `success`, or the error in words.
    outcome: String,
}

/// The calls of web pages to embed since the start, by their outcomes, and the sessions of masked
/// mode.
#[derive(Debug, Serialize)]
struct EmbedCallCounts {
    granted: u64,
    cached: u64,
    refused: u64,
    page_refused: u64,
    user_refused: u64,
    failed: u64,
    masked: u64,
}

impl EmbedCallCounts {
    fn of(metrics: &TenantMetrics) -> Self {
        Self {
            granted: metrics.embed_calls(EmbedOutcome::Granted),
            cached: metrics.embed_calls(EmbedOutcome::Cached),
            refused: metrics.embed_calls(EmbedOutcome::Refused),
            page_refused: metrics.embed_calls(EmbedOutcome::PageRefused),
            user_refused: metrics.embed_calls(EmbedOutcome::UserRefused),
            failed: metrics.embed_calls(EmbedOutcome::Failed),
            masked: metrics.embed_calls(EmbedOutcome::Masked),
        }
    }
}

#[derive(Debug, Serialize)]
struct BulkheadUse {
    in_use: usize,
    limit: usize,
}

impl TenantQuery {
    /// Parses a query string; the empty one asks for the first page by name.
    ///
    /// # Errors
    /// When a parameter is not known or has a value that is not accepted.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let mut parsed = Self {
            search: String::new(),
            state: None,
            sort: Sort::Name,
            descending: false,
            page: 1,
            per_page: DEFAULT_PER_PAGE,
        };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "search" if value.len() <= MAX_SEARCH => parsed.search = value.to_lowercase(),
                "search" => return Err(bad("search", "at most 200 bytes")),
                "state" => {
                    let state = value.parse();
                    parsed.state = Some(state.map_err(|_| bad("state", STATES))?);
                }
                "sort" => {
                    let column = value.strip_prefix('-');
                    parsed.descending = column.is_some();
                    let column = column.unwrap_or(&value).parse();
                    parsed.sort = column.map_err(|_| bad("sort", SORTS))?;
                }
                "page" => {
                    let page = value.parse().ok().filter(|page| *page >= 1);
                    parsed.page = page.ok_or(bad("page", "a number from 1"))?;
                }
                "per_page" => {
                    let count = value.parse().ok();
                    let count = count.filter(|count| (1..=MAX_PER_PAGE).contains(count));
                    parsed.per_page = count.ok_or(bad("per_page", "a number from 1 to 200"))?;
                }
                _ => return Err(bad("query", "search, state, sort, page, per_page")),
            }
        }
        Ok(parsed)
    }

    fn finds(&self, tenant: &Tenant) -> bool {
        let contains = |text: &str| text.to_lowercase().contains(&self.search);
        self.search.is_empty()
            || contains(tenant.name.as_str())
            || contains(&tenant.server.name)
            || tenant.site().is_some_and(contains)
            || tenant.hosts.iter().any(|host| contains(host))
    }
}

fn bad(parameter: &'static str, accepted: &'static str) -> BadQuery {
    BadQuery { parameter, accepted }
}

/// A tenant with what it is sorted by.
struct Row<'g> {
    tenant: &'g Tenant,
    state: TenantState,
    exchange: ExchangeTimes,
    requests: u64,
}

impl<'g> Row<'g> {
    fn new(gateway: &'g Gateway, tenant: &'g Tenant) -> Self {
        let metrics = gateway.metrics(tenant);
        let (exchange, requests) = (metrics.exchange_times(), metrics.requests());
        let state = state(gateway, tenant, exchange);
        Self { tenant, state, exchange, requests }
    }

    fn compare(&self, other: &Self, sort: Sort) -> Ordering {
        match sort {
            Sort::Name => Ordering::Equal,
            Sort::Server => self.tenant.server.name.cmp(&other.tenant.server.name),
            Sort::State => self.state.cmp(&other.state),
            Sort::Requests => self.requests.cmp(&other.requests),
            Sort::Expires => self.exchange.expires_at.cmp(&other.exchange.expires_at),
        }
    }

    /// Only the rows that are shown are copied with their errors.
    fn status(
        self,
        active: &ShownGeneration,
        rotations: &[String],
        samples: &Samples,
    ) -> TenantStatus {
        let (name, metrics) = (&self.tenant.name, active.gateway.metrics(self.tenant));
        let bulkhead = active.proxy.upstreams()[self.tenant.index].bulkhead(&self.tenant.name);
        let ExchangeTimes { ended_at, obtained_at, expires_at, .. } = self.exchange;
        let error = metrics.exchange_error();
        let now = SystemTime::now();
        let token = obtained_at.zip(expires_at).map(|(obtained, expires)| TokenTimes {
            obtained_at: timestamp(obtained),
            expires_at: timestamp(expires),
            age_seconds: now.duration_since(obtained).unwrap_or_default().as_secs(),
            seconds_left: expires.duration_since(now).unwrap_or_default().as_secs(),
        });
        let is_exchanged = self.tenant.credential.grant.is_exchanged();
        let last_exchange = ended_at.filter(|_| is_exchanged).map(|at| LastExchange {
            at: timestamp(at),
            outcome: error.unwrap_or_else(|| "success".to_owned()),
        });
        TenantStatus {
            name: name.as_str().to_owned(),
            server: self.tenant.server.name.clone(),
            site: self.tenant.site().map(ToOwned::to_owned),
            hosts: self.tenant.hosts.to_vec(),
            state: self.state,
            disabled_by: active.gateway.disabled_by(self.tenant).map(|by| match by {
                DisabledBy::Configuration => "configuration",
                DisabledBy::Operator => "operator",
            }),
            grant: self.tenant.credential.grant.as_str(),
            secret_position: Some(metrics.secret_position()).filter(|position| *position > 0),
            rotation_unfinished: rotations.iter().any(|of| of == name.as_str()),
            user_source: active
                .config
                .tenant(name.as_str())
                .map_or_else(String::new, |tenant| tenant.user_source().to_owned()),
            token,
            last_exchange,
            requests: self.requests,
            embed_calls: self.tenant.embed.is_some().then(|| EmbedCallCounts::of(metrics)),
            hit_ratio: ratio(metrics.cache_hits(), metrics.cache_misses()),
            bulkhead: bulkhead.map(|(in_use, limit)| BulkheadUse { in_use, limit }),
            samples: samples.tenant(name),
        }
    }
}

fn state(gateway: &Gateway, tenant: &Tenant, exchange: ExchangeTimes) -> TenantState {
    if gateway.disabled_by(tenant).is_some() {
        return TenantState::Disabled;
    }
    let metrics = gateway.metrics(tenant);
    let is_unreadable = metrics.secret_is_unreadable();
    if is_unreadable && !tenant.credential.has_secret() {
        return TenantState::SecretUnreadable;
    }
    // A personal access token is not exchanged: its end alone decides.
    if !tenant.credential.grant.is_exchanged() && has_ended(tenant, SystemTime::now()) {
        return TenantState::Failing;
    }
    let failed = exchange.failed && tenant.credential.grant.is_exchanged();
    // The changed secret has given no token yet, and one by the former secret serves on.
    if failed && gateway.serves_by_former_secret(tenant) {
        return TenantState::FormerSecret;
    }
    match (exchange.ended_at, failed) {
        (Some(_), true) => TenantState::Failing,
        _ if is_unreadable => TenantState::FormerSecret,
        (None, _) => TenantState::NeverUsed,
        (Some(_), false) => TenantState::Ok,
    }
}

fn has_ended(tenant: &Tenant, now: SystemTime) -> bool {
    tenant.credential.token_end().is_some_and(|end| end <= now)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio is shown with a few digits")]
fn ratio(hits: u64, misses: u64) -> Option<f64> {
    let all = hits + misses;
    (all > 0).then(|| hits as f64 / all as f64)
}

/// How many tenants are in each state.
pub(super) fn counts(gateway: &Gateway, telemetry: &Telemetry) -> TenantCounts {
    let (mut counts, now) = (TenantCounts::default(), SystemTime::now());
    counts.rotation_unfinished = telemetry.unfinished_rotations.tenants().len();
    for tenant in gateway.tenants().iter() {
        counts.total += 1;
        let by_operator = gateway.disabled_by(tenant) == Some(DisabledBy::Operator);
        counts.disabled_by_operator.add_if(by_operator, tenant);
        let rejected = gateway.metrics(tenant).was_rejected_within(LATELY, now);
        counts.token_rejected.add_if(rejected, tenant);
        let embeds = gateway.metrics(tenant).known_embed_record();
        let has = |test: fn(&EmbedRecord, Duration) -> bool| {
            embeds.is_some_and(|embeds| test(embeds, LATELY))
        };
        counts.embed_failing.add_if(has(EmbedRecord::has_failed_within), tenant);
        counts.embed_user_refused.add_if(has(EmbedRecord::was_user_refused_within), tenant);
        let is_second = gateway.metrics(tenant).secret_position() == 2;
        counts.second_secret.add_if(is_second && tenant.credential.has_two_secrets(), tenant);
        let is_enabled = gateway.disabled_by(tenant).is_none();
        if let Some(end) = tenant.credential.token_end().filter(|_| is_enabled) {
            counts.token_ended.add_if(end <= now, tenant);
            counts.token_ending.add_if(end > now && end <= now + TOKEN_ENDS_SOON, tenant);
        }
        match state(gateway, tenant, gateway.metrics(tenant).exchange_times()) {
            TenantState::Ok => counts.ok += 1,
            TenantState::Failing => {
                counts.failing += 1;
                let is_exchanged = tenant.credential.grant.is_exchanged();
                counts.exchange_failing.add_if(is_exchanged, tenant);
            }
            TenantState::SecretUnreadable => counts.secret_unreadable.add_if(true, tenant),
            TenantState::FormerSecret => {
                counts.former_secret += 1;
                let is_kept = gateway.metrics(tenant).secret_is_unreadable();
                counts.unproven_secret.add_if(!is_kept, tenant);
                counts.kept_secret.add_if(is_kept, tenant);
            }
            TenantState::Disabled => counts.disabled += 1,
            TenantState::NeverUsed => counts.never_used += 1,
        }
    }
    counts
}

/// The tenants that `query` asks for. Equal ones are in the order of their names.
pub(super) fn page(
    active: &ShownGeneration,
    telemetry: &Telemetry,
    samples: &Samples,
    query: &TenantQuery,
) -> TenantPage {
    let gateway = &active.gateway;
    let tenants = gateway.tenants().iter().filter(|tenant| query.finds(tenant));
    let mut rows: Vec<_> = tenants.map(|tenant| Row::new(gateway, tenant)).collect();
    rows.retain(|row| query.state.is_none_or(|state| state == row.state));
    rows.sort_unstable_by(|one, two| {
        let names = || one.tenant.name.cmp(&two.tenant.name);
        let order = one.compare(two, query.sort);
        match (query.sort, query.descending) {
            (Sort::Name, true) => names().reverse(),
            (_, true) => order.reverse().then_with(names),
            (_, false) => order.then_with(names),
        }
    });
    let found = rows.len();
    let first = (query.page - 1).saturating_mul(query.per_page);
    let shown = rows.into_iter().skip(first).take(query.per_page);
    let rotations = telemetry.unfinished_rotations.tenants();
    TenantPage {
        found,
        page: query.page,
        per_page: query.per_page,
        tenants: shown.map(|row| row.status(active, &rotations, samples)).collect(),
    }
}

/// How long a 401 of Bold BI, or a failed embed call, is a problem.
const LATELY: Duration = Duration::from_secs(5 * 60);
/// How long before its end a personal access token is a problem, as in the alert.
const TOKEN_ENDS_SOON: Duration = Duration::from_hours(3 * 24);
const SORTS: &str = "name, server, state, requests or expires, with a `-` before it to reverse it";
const STATES: &str = "failing, secret_unreadable, former_secret, disabled, ok or never_used";
const DEFAULT_PER_PAGE: usize = 50;
const MAX_PER_PAGE: usize = 200;
const MAX_SEARCH: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_parsed_and_a_wrong_one_says_what_is_accepted() {
        let parsed =
            TenantQuery::parse("search=AcMe%20x&state=failing&sort=-requests&page=3&per_page=200");
        let expected = TenantQuery {
            search: "acme x".into(),
            state: Some(TenantState::Failing),
            sort: Sort::Requests,
            descending: true,
            page: 3,
            per_page: 200,
        };
        assert_eq!(parsed, Ok(expected));
        assert_eq!(TenantQuery::parse("").unwrap().per_page, DEFAULT_PER_PAGE);
        let long = format!("search={}", "a".repeat(MAX_SEARCH + 1));
        for wrong in [
            "page=0",
            "page=-1",
            "page=x",
            "per_page=0",
            "per_page=201",
            "sort=age",
            "sort=--name",
            "sort=",
            "state=",
            "state=broken",
            "tenant=acme",
            &long,
        ] {
            let error = TenantQuery::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("is not understood: "), "{wrong}: {error}");
        }
        // The largest page is no overflow.
        assert!(TenantQuery::parse(&format!("page={}&per_page=200", usize::MAX)).is_ok());
    }
}
