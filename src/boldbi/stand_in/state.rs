//! The state of a stand-in: its sites, the tokens that it has issued, its settings, and its last
//! requests.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{GenerateReply, Observer, StandInClient, StandInOptions, StandInSite, TokenReply};

/// A request to a stand-in.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its method.
    pub method: Method,
    /// Its target, as it was sent.
    pub target: String,
    /// Its headers, the value of `Authorization` included.
    pub headers: HeaderMap,
    /// Length of its body in bytes.
    pub body_length: u64,
}

/// The state of all connections of a stand-in.
pub(super) struct SharedState {
    pub(super) url: String,
    pub(super) counts: Counts,
    pub(super) observer: Option<Observer>,
    pub(super) client: Option<StandInClient>,
    state: Mutex<State>,
    record: bool,
    /// The sites never change, so that finding one takes no lock.
    site_ids: Vec<Option<String>>,
}

/// The part of the state that changes.
pub(super) struct State {
    pub(super) sites: Vec<StandInSite>,
    /// The former embed secrets that still work, by site.
    pub(super) former_secrets: HashMap<Option<String>, String>,
    /// The common secret of the installation, which works for all sites.
    pub(super) common_secret: Option<String>,
    pub(super) tokens: HashMap<String, Issued>,
    pub(super) last_serial: u64,
    pub(super) reply: TokenReply,
    pub(super) generate: GenerateReply,
    /// Whether administrators may read the embed secret.
    pub(super) shows_secret: bool,
    pub(super) token_lifetime: Duration,
    pub(super) token_latency: Duration,
    pub(super) api_latency: Duration,
    pub(super) failing_tokens: (StatusCode, u64),
    pub(super) failing_api: (StatusCode, u64),
    pub(super) failing_embeds: (StatusCode, u64),
    /// Whether embed calls by a wrong secret are refused in words, with the status 200.
    pub(super) refuses_in_words: bool,
    /// The nonces of embed calls so far.
    pub(super) nonces: HashSet<String>,
    pub(super) recorded: VecDeque<Recorded>,
}

/// A token that was issued.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) site: Option<String>,
    pub(super) user: String,
    pub(super) serial: u64,
    pub(super) expires_at: Instant,
}

impl SharedState {
    pub(super) fn new(options: StandInOptions, url: String) -> Self {
        let none = (StatusCode::INTERNAL_SERVER_ERROR, 0);
        Self {
            url,
            counts: Counts::default(),
            record: options.record,
            observer: options.observer,
            client: options.client,
            site_ids: options.sites.iter().map(|site| site.id.clone()).collect(),
            state: Mutex::new(State {
                sites: options.sites,
                former_secrets: HashMap::new(),
                common_secret: None,
                tokens: HashMap::new(),
                last_serial: 0,
                reply: TokenReply::Current,
                generate: GenerateReply::Current,
                shows_secret: true,
                token_lifetime: options.token_lifetime,
                token_latency: Duration::ZERO,
                api_latency: Duration::ZERO,
                failing_tokens: none,
                failing_api: none,
                failing_embeds: none,
                refuses_in_words: false,
                nonces: HashSet::new(),
                recorded: VecDeque::new(),
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn has_site(&self, site: Option<&str>) -> bool {
        self.site_ids.iter().any(|id| id.as_deref() == site)
    }

    pub(super) fn record(&self, head: &http::request::Parts, body_length: u64) {
        if !self.record {
            return;
        }
        let recorded = Recorded {
            method: head.method.clone(),
            target: head.uri.to_string(),
            headers: head.headers.clone(),
            body_length,
        };
        let mut state = self.state();
        if state.recorded.len() == MAX_RECORDED {
            state.recorded.pop_front();
        }
        state.recorded.push_back(recorded);
    }
}

impl State {
    /// Stores `token` as valid, and removes tokens that have ended.
    pub(super) fn issue(
        &mut self,
        token: String,
        site: Option<&str>,
        user: &str,
        (serial, lifetime): (u64, Duration),
    ) {
        let now = Instant::now();
        self.tokens.retain(|_, issued| issued.expires_at > now);
        let issued = Issued {
            site: site.map(Into::into),
            user: user.into(),
            serial,
            expires_at: now + lifetime,
        };
        self.tokens.insert(token, issued);
    }

    /// The token, if it is valid and of this site.
    pub(super) fn live(&self, token: &str, site: Option<&str>) -> Option<Issued> {
        let issued = self.tokens.get(token)?;
        let lives = issued.site.as_deref() == site && issued.expires_at > Instant::now();
        lives.then(|| issued.clone())
    }
}

/// Takes one of the failures that are left.
pub(super) fn failure((status, left): &mut (StatusCode, u64)) -> Option<StatusCode> {
    *left = left.checked_sub(1)?;
    Some(*status)
}

/// Counters of requests and connections.
#[derive(Default)]
pub(super) struct Counts {
    token_requests: AtomicU64,
    api_requests: AtomicU64,
    embed_requests: AtomicU64,
    connections: AtomicU64,
}

impl Counts {
    pub(super) fn token_request(&self) {
        self.token_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn api_request(&self) {
        self.api_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn embed_request(&self) {
        self.embed_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn embed_requests(&self) -> u64 {
        self.embed_requests.load(Ordering::Relaxed)
    }

    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn token_requests(&self) -> u64 {
        self.token_requests.load(Ordering::Relaxed)
    }

    pub(super) fn api_requests(&self) -> u64 {
        self.api_requests.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

const MAX_RECORDED: usize = 1000;
