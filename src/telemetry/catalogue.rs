//! All metrics with their labels and with advice to operators, for the document `docs/metrics.md`.
//! Names, types and meanings come from the page itself; a test compares both.

use strum::VariantArray;

use super::{
    ActionMetrics, ActionOutcome, DescriptorUse, EmbedOutcome, ExchangeOutcome, HandshakeFailure,
    PassedKind, ROUTE_CLASSES, Reason, RefreshOutcome, ReloadOutcome, RequestOutcome,
    STATUS_CLASSES, SpanDrop, StoreOutcome,
};

/// A metric as the document describes it.
#[derive(Clone, Copy, Debug)]
pub struct DescribedMetric {
    /// Its name, without the suffix of its samples.
    pub name: &'static str,
    /// Its labels.
    pub labels: &'static [MetricLabel],
    /// Advice to operators.
    pub look_at: &'static str,
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricLabel {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: LabelValues,
}

/// The values of a label.
#[derive(Clone, Copy, Debug)]
pub enum LabelValues {
    /// Values of the configuration, in words.
    Of(&'static str),
    /// These words.
    Words(fn() -> Vec<&'static str>),
}

fn words<E: VariantArray + Copy + Into<&'static str>>() -> Vec<&'static str> {
    E::VARIANTS.iter().map(|&one| one.into()).collect()
}

fn refusal_reasons() -> Vec<&'static str> {
    Reason::words().chain([""]).collect()
}

const fn words_of(name: &'static str, values: fn() -> Vec<&'static str>) -> MetricLabel {
    MetricLabel { name, values: LabelValues::Words(values) }
}

const fn named(name: &'static str, of: &'static str) -> MetricLabel {
    MetricLabel { name, values: LabelValues::Of(of) }
}

const TENANT: MetricLabel = named("tenant", "a tenant, or `_all` of them");
const ONE_TENANT: MetricLabel = named("tenant", "a tenant");
const SERVER: MetricLabel = named("server", "a server");
const CALLER: MetricLabel = named("caller", "a caller");
const TENANT_OR_NONE: MetricLabel = named(
    "tenant",
    "a tenant, `_all` of them, or `_none` before it is known, and for static files",
);
const SERVER_OR_NONE: MetricLabel = named("server", "a server, or `_none` before it is known");
const CLASS: MetricLabel = words_of("class", || ROUTE_CLASSES.to_vec());
const ROUTE: &[MetricLabel] = &[SERVER_OR_NONE, CLASS];

/// The sections of the document with their metrics.
pub const CATALOGUE: &[(&str, &[DescribedMetric])] = &[
    ("Requests", REQUESTS),
    ("Servers", SERVERS),
    ("Tokens", TOKENS),
    ("Clients and callers", CLIENTS),
    ("Configuration, certificates, logs and traces", CONFIGURATION),
    ("The process", PROCESS),
];

const REQUESTS: &[DescribedMetric] = &[
    DescribedMetric {
        name: "boldgate_http_requests",
        labels: &[TENANT_OR_NONE, words_of("outcome", words::<RequestOutcome>)],
        look_at: "`failed` and `truncated`: the log on stderr has the cause of each; `cut_off`: raise `limits.drain_timeout`",
    },
    DescribedMetric {
        name: "boldgate_refusals",
        labels: &[
            named("code", "a code of [refusals](operating.md#refusals)"),
            words_of("reason", refusal_reasons),
        ],
        look_at: "`key_expired` and `jwt_key_unknown`: a rotation is not complete; an empty reason: \
                  the code has one cause only",
    },
    DescribedMetric {
        name: "boldgate_route_requests",
        labels: &[
            SERVER_OR_NONE,
            CLASS,
            words_of("outcome", words::<RequestOutcome>),
            words_of("status", || STATUS_CLASSES.to_vec()),
        ],
        look_at: "the fraction of `5xx`; `outcome` tells whether Bold BI (`upstream_server_error`) or \
                  the gateway (`failed`) responded",
    },
    DescribedMetric {
        name: "boldgate_passed_requests",
        labels: &[
            SERVER,
            words_of("kind", words::<PassedKind>),
            words_of("outcome", words::<RequestOutcome>),
        ],
        look_at: "only for servers that a listener names under `ui`; `upstream_client_error` of \
                  `data_request`: Bold BI refuses the token of the page, of `static_file`: it has no \
                  such file. The metrics beside count these requests with the class `_none`. Those with \
                  a wrong `Caller` or origin are in `boldgate_refusals_total` alone",
    },
    DescribedMetric {
        name: "boldgate_http_requests_in_flight",
        labels: &[],
        look_at: "growth without more requests: Bold BI has become slow",
    },
    DescribedMetric {
        name: "boldgate_http_request_duration_seconds",
        labels: ROUTE,
        look_at: "the 95th percentile; it includes the time in which clients read",
    },
    DescribedMetric {
        name: "boldgate_upstream_response_duration_seconds",
        labels: ROUTE,
        look_at: "the time of Bold BI; if it is long, look into Bold BI",
    },
    DescribedMetric {
        name: "boldgate_added_duration_seconds",
        labels: ROUTE,
        look_at: "above a few milliseconds, look at waits for tokens \
                  (`boldgate_token_exchange_duration_seconds`) and for connections \
                  (`boldgate_server_requests_waiting`)",
    },
    DescribedMetric {
        name: "boldgate_tokens_rejected",
        labels: &[TENANT],
        look_at: "**alert on a rate**: Bold BI refuses tokens that it gave; `boldgate doctor TENANT` \
                  says why",
    },
    DescribedMetric {
        name: "boldgate_tenant_request_duration_seconds",
        labels: &[ONE_TENANT],
        look_at: "only with `metrics.tenant_durations`; compare it with those of the tenant's server",
    },
    DescribedMetric {
        name: "boldgate_replays",
        labels: &[TENANT],
        look_at: "a steady rate: Bold BI refuses tokens before their end",
    },
];

const SERVERS: &[DescribedMetric] = &[
    DescribedMetric {
        name: "boldgate_server_addresses",
        labels: &[SERVER],
        look_at: "0: the name of the server cannot be resolved",
    },
    DescribedMetric {
        name: "boldgate_server_healthy_addresses",
        labels: &[SERVER],
        look_at: "fewer than `boldgate_server_addresses`: an address is ejected",
    },
    DescribedMetric {
        name: "boldgate_server_connections",
        labels: &[SERVER],
        look_at: "idle ones included",
    },
    DescribedMetric {
        name: "boldgate_server_connections_limit",
        labels: &[SERVER],
        look_at: "the bound of the metrics beside",
    },
    DescribedMetric {
        name: "boldgate_server_requests_in_flight",
        labels: &[SERVER],
        look_at: "near `boldgate_server_connections_limit`: raise `max_connections`, or find out \
                  why Bold BI is slow",
    },
    DescribedMetric {
        name: "boldgate_server_requests_waiting",
        labels: &[SERVER],
        look_at: "above 0 for long: the same; each waits for at most `timeouts.connect`",
    },
];

const TOKENS: &[DescribedMetric] = &[
    DescribedMetric {
        name: "boldgate_token_cache_requests",
        labels: &[TENANT, words_of("result", || vec!["hit", "miss"])],
        look_at: "many `miss`: compare the two metrics below",
    },
    DescribedMetric {
        name: "boldgate_token_cache_entries",
        labels: &[],
        look_at: "at its limit, tokens are dropped although they are in use",
    },
    DescribedMetric {
        name: "boldgate_token_cache_entries_limit",
        labels: &[],
        look_at: "raise `limits.token_cache_entries` if it is reached",
    },
    DescribedMetric {
        name: "boldgate_token_expiry_timestamp_seconds",
        labels: &[ONE_TENANT],
        look_at: "less than now while there are requests: no new token is to be had",
    },
    DescribedMetric {
        name: "boldgate_token_exchanges",
        labels: &[TENANT, words_of("outcome", words::<ExchangeOutcome>)],
        look_at: "`refused`: the secret or the user of the tenant is wrong",
    },
    DescribedMetric {
        name: "boldgate_token_store_up",
        labels: &[],
        look_at: "0: this gateway exchanges for itself; the log has the cause; no series without a store",
    },
    DescribedMetric {
        name: "boldgate_token_store_requests",
        labels: &[words_of("outcome", words::<StoreOutcome>)],
        look_at: "`timeout` and `failed`: the store is slow or faulty; `unusable`: a sealing key is missing, or a newer gateway wrote the values",
    },
    DescribedMetric {
        name: "boldgate_token_store_request_duration_seconds",
        labels: &[],
        look_at: "near `token_store.timeout`: the store is too far away or too busy",
    },
    DescribedMetric {
        name: "boldgate_embed_calls",
        labels: &[TENANT, words_of("outcome", words::<EmbedOutcome>)],
        look_at: "**alert on a rate of `failed`**: Bold BI gives no usable reply, and on `user_refused`: \
                  claims of users lack values; `refused`: Bold BI refuses users or dashboards; \
                  `page_refused`: pages ask for what is not open; `masked` counts sessions of masked \
                  mode",
    },
    DescribedMetric {
        name: "boldgate_token_exchange_duration_seconds",
        labels: &[SERVER],
        look_at: "first requests of a user wait for this",
    },
    DescribedMetric {
        name: "boldgate_token_exchanges_in_flight",
        labels: &[SERVER],
        look_at: "at its limit for long: see the limit",
    },
    DescribedMetric {
        name: "boldgate_token_exchanges_limit",
        labels: &[SERVER],
        look_at: "below 64 and below `max_exchanges`: the token endpoint fails or is slow, and is \
                  spared; it grows again by use",
    },
    DescribedMetric {
        name: "boldgate_token_exchanges_max",
        labels: &[SERVER],
        look_at: "if the limit is as high and exchanges wait: raise `max_exchanges`",
    },
    DescribedMetric {
        name: "boldgate_token_exchanges_waiting",
        labels: &[SERVER],
        look_at: "above 0 for long: the token endpoint is slow, or `max_exchanges` is low",
    },
    DescribedMetric {
        name: "boldgate_token_endpoint_breaker_open",
        labels: &[SERVER],
        look_at: "**alert on 1**: look at the token endpoint",
    },
    DescribedMetric {
        name: "boldgate_token_refreshes",
        labels: &[TENANT, words_of("outcome", words::<RefreshOutcome>)],
        look_at: "`failed`: the token in use still serves until its end",
    },
    DescribedMetric {
        name: "boldgate_token_failures_remembered",
        labels: &[TENANT],
        look_at: "requests that failed for an exchange that had failed before",
    },
    DescribedMetric {
        name: "boldgate_tenant_secret_unreadable",
        labels: &[TENANT],
        look_at: "**alert on 1**: the ERROR line of the tenant has the cause; `boldgate check` has all",
    },
    DescribedMetric {
        name: "boldgate_token_replies_for_another_user",
        labels: &[TENANT],
        look_at: "**alert on any**: Bold BI gave the token of somebody else",
    },
    DescribedMetric {
        name: "boldgate_tenant_secret_unproven",
        labels: &[TENANT],
        look_at: "**alert on 1 for minutes**: write the right secret to its place within an hour",
    },
    DescribedMetric {
        name: "boldgate_tenant_secret_position",
        labels: &[ONE_TENANT],
        look_at: "**alert on 2**: Bold BI refuses the first of two secrets; write the right one to \
                  its place",
    },
    DescribedMetric {
        name: "boldgate_tenant_rotation_unfinished",
        labels: &[ONE_TENANT],
        look_at: "**alert on 1 for minutes**: whether Bold BI takes the secret in the file is unknown; \
                  `boldgate rotate --resume` ends it; other tenants have no series",
    },
];

const CLIENTS: &[DescribedMetric] = &[
    DescribedMetric {
        name: "boldgate_connections",
        labels: &[],
        look_at: "near `boldgate_connections_limit`: find out which clients, or raise the limit",
    },
    DescribedMetric {
        name: "boldgate_connections_limit",
        labels: &[],
        look_at: "the bound of the metric above",
    },
    DescribedMetric {
        name: "boldgate_connections_limit_lowered",
        labels: &[],
        look_at: "1: raise the limit of open files (`LimitNOFILE`), or lower `limits.max_connections`",
    },
    DescribedMetric {
        name: "boldgate_file_descriptors_exhausted",
        labels: &[words_of("use", words::<DescriptorUse>)],
        look_at: "growth: raise the limit of open files (`LimitNOFILE`), of the system too \
                  (`fs.file-max`)",
    },
    DescribedMetric {
        name: "boldgate_connections_refused",
        labels: &[],
        look_at: "any increase: clients got a 503 `overloaded`",
    },
    DescribedMetric {
        name: "boldgate_tls_handshakes_failed",
        labels: &[
            named("listener", "the address of a listener"),
            words_of("reason", words::<HandshakeFailure>),
        ],
        look_at: "`expired` and `unknown_ca`: a client or a CA is due for renewal",
    },
    DescribedMetric {
        name: "boldgate_api_key_not_after_timestamp_seconds",
        labels: &[CALLER, named("key", "the first digits of the key's hash")],
        look_at: "**alert two weeks ahead**; keys without an end have no series",
    },
    DescribedMetric {
        name: "boldgate_tenant_token_not_after_timestamp_seconds",
        labels: &[ONE_TENANT],
        look_at: "**alert three days ahead**; only tenants of the grant `token` have series",
    },
    DescribedMetric {
        name: "boldgate_issuer_keys_fetched_timestamp_seconds",
        labels: &[CALLER],
        look_at: "older than `refresh`: the issuer cannot be reached; no series until the first \
                  fetch",
    },
    DescribedMetric {
        name: "boldgate_issuer_keys_from_file",
        labels: &[CALLER],
        look_at: "1 for minutes: the issuer cannot be reached, and JWTs are verified by `jwks_file`",
    },
    DescribedMetric {
        name: "boldgate_issuer_key_fetches",
        labels: &[CALLER, words_of("outcome", || vec!["success", "failed"])],
        look_at: "`failed`: the log on stderr has the cause",
    },
];

const CONFIGURATION: &[DescribedMetric] = &[
    DescribedMetric {
        name: "boldgate_config_last_reload_successful",
        labels: &[],
        look_at: "**alert on 0**: the log on stderr names the fault",
    },
    DescribedMetric {
        name: "boldgate_config_reloads",
        labels: &[words_of("outcome", words::<ReloadOutcome>)],
        look_at: "`timed_out`: a file system hangs",
    },
    DescribedMetric {
        name: "boldgate_config_generation",
        labels: &[],
        look_at: "replicas of the same age differ: one has refused a change",
    },
    DescribedMetric {
        name: "boldgate_config_in_force_since_timestamp_seconds",
        labels: &[],
        look_at: "compare it with the time of a change",
    },
    DescribedMetric {
        name: "boldgate_admin_actions",
        labels: &[
            words_of("action", ActionMetrics::action_labels),
            words_of("outcome", words::<ActionOutcome>),
        ],
        look_at: "`unauthorized`: somebody tries the admin API without its credential, and the audit \
                  log has the address",
    },
    DescribedMetric {
        name: "boldgate_tls_certificate_not_after_timestamp_seconds",
        labels: &[
            words_of("key", || {
                vec!["certificate_file", "client_ca_file", "ca_file", "client_certificate_file"]
            }),
            named("file", "the path of the file"),
            named("number", "the certificate's place in the file, from 1"),
        ],
        look_at: "**alert two weeks ahead**; of a file with more than 16 certificates, those that \
                  expire first",
    },
    DescribedMetric {
        name: "boldgate_access_log_lines_dropped",
        labels: &[],
        look_at: "**alert on any**: the disk or the reader of stdout is slow or full",
    },
    DescribedMetric {
        name: "boldgate_audit_log_lines_lost",
        labels: &[],
        look_at: "**alert on any**: the disk is slow or full",
    },
    DescribedMetric {
        name: "boldgate_spans_exported",
        labels: &[],
        look_at: "0 beside requests: `traces` is not configured, or samples few",
    },
    DescribedMetric {
        name: "boldgate_spans_dropped",
        labels: &[words_of("reason", words::<SpanDrop>)],
        look_at: "`unavailable` and `refused`: the log on stderr has the cause; `queue_full`: lower \
                  `traces.sample_ratio`",
    },
    DescribedMetric {
        name: "boldgate_build_info",
        labels: &[
            named("version", "the version"),
            named("commit", "the first digits of the commit"),
            named("date", "the date of the commit"),
        ],
        look_at: "always 1",
    },
];

const PROCESS: &[DescribedMetric] = &[
    DescribedMetric {
        name: "process_cpu_seconds",
        labels: &[],
        look_at: "its rate is the number of processors in use",
    },
    DescribedMetric {
        name: "process_resident_memory_bytes",
        labels: &[],
        look_at: "steady growth",
    },
    DescribedMetric {
        name: "process_virtual_memory_bytes",
        labels: &[],
        look_at: "nothing as a rule: it is reserved and not used",
    },
    DescribedMetric {
        name: "process_threads",
        labels: &[],
        look_at: "steady growth: a file system hangs",
    },
    DescribedMetric {
        name: "process_start_time_seconds",
        labels: &[],
        look_at: "changes: the process was restarted",
    },
    DescribedMetric {
        name: "process_open_fds",
        labels: &[],
        look_at: "**alert above 80 %** of `process_max_fds`",
    },
    DescribedMetric {
        name: "process_max_fds",
        labels: &[],
        look_at: "raise `LimitNOFILE` of the unit if it is nearly reached",
    },
];
