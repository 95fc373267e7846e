//! Distinguishable requests, the check of the response to each, and a record of the two things that
//! a server must never see: the token of another user, and a write twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use boldgate::boldbi::stand_in::{ObservedRequest, Observer};
use http::{Method, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::client::Response;

/// A user of a tenant, and the proof of it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Identifier of the tenant's site.
    pub site: String,
    /// The Bold BI user as whom the requests must arrive.
    pub user: String,
    /// The header lines that prove it.
    pub proof: String,
}

/// The header line with an API key.
pub fn api_key(key: &str) -> String {
    format!("X-Api-Key: {key}\r\n")
}

/// The hash of an API key, for the configuration.
pub fn key_hash(key: &str) -> String {
    let hash = digest(&SHA256, key.as_bytes());
    hash.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A GET. The response describes the request that reached the server.
    Read,
    /// A GET of this number of bytes, in chunks or not.
    Download(usize, bool),
    /// A POST with this number of bytes. The response describes the request that reached the
    /// server.
    Write(usize),
}

/// One request.
#[derive(Clone, Debug)]
pub struct CheckedRequest {
    pub bytes: Vec<u8>,
    target: String,
    user: String,
    kind: Kind,
}

/// The judgement of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The right response.
    Right,
    /// A whole response with another status than 200.
    Status(u16),
    /// A response to another request.
    Foreign(String),
    /// A response that looks whole, and that the server did not send like this.
    Mangled(String),
}

impl CheckedRequest {
    /// The request with this number, which no other request may have.
    pub fn new(identity: &Identity, number: u64, kind: Kind) -> Self {
        let (method, extra) = match kind {
            Kind::Read => ("GET", String::new()),
            Kind::Download(size, chunked) => {
                ("GET", format!("&size={size}{}", if chunked { "&chunked" } else { "" }))
            }
            Kind::Write(_) => ("POST", String::new()),
        };
        let Identity { site, user, proof } = identity;
        let target = format!("/bi/api/site/{site}/v5.0/things/{number}?user={user}{extra}");
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{proof}");
        let bytes = match kind {
            Kind::Write(size) => {
                let body = "w".repeat(size);
                let head = head + "Content-Type: text/plain\r\n";
                format!("{head}Content-Length: {size}\r\n\r\n{body}")
            }
            _ => head + "\r\n",
        };
        Self { bytes: bytes.into_bytes(), target, user: user.clone(), kind }
    }

    /// Judges a whole response.
    pub fn judge(&self, response: &Response) -> Verdict {
        if response.status != 200 {
            let readable = response.body.is_empty()
                || serde_json::from_slice::<Value>(&response.body)
                    .is_ok_and(|body| body.is_object());
            return if readable {
                Verdict::Status(response.status)
            } else {
                self.mangled(response)
            };
        }
        let says = |name| response.header(name).unwrap_or_default();
        let (user, target) = (says("stand-in-user"), says("stand-in-target"));
        if (user, target) != (self.user.as_str(), self.target.as_str()) {
            // A readable response was meant for another request. An unreadable one was altered.
            return if user.contains('@') && target.contains("/things/") {
                let (own_user, own) = (&self.user, &self.target);
                Verdict::Foreign(format!("`{own}` as {own_user} got `{target}` as {user}"))
            } else {
                self.mangled(response)
            };
        }
        let right = match self.kind {
            Kind::Download(size, _) => {
                response.body.len() == size && response.body.iter().all(|byte| *byte == b'x')
            }
            Kind::Read => self.is_echo(&response.body, 0),
            Kind::Write(size) => self.is_echo(&response.body, size),
        };
        if right { Verdict::Right } else { self.mangled(response) }
    }

    fn is_echo(&self, body: &[u8], size: usize) -> bool {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        body["target"] == self.target.as_str()
            && body["user"] == self.user.as_str()
            && body["body"]["length"] == size
    }

    fn mangled(&self, response: &Response) -> Verdict {
        let body = String::from_utf8_lossy(&response.body);
        let start: String = body.chars().take(300).collect();
        Verdict::Mangled(format!("`{}` got {} {start}", self.target, response.status))
    }
}

/// The record of the requests that reached the server.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// How often each write was, or may have been, carried out.
    writes: HashMap<String, u32>,
    /// Requests with the token of another user.
    strays: Vec<String>,
}

impl Ledger {
    /// Lets a stand-in write into it.
    pub fn observer(&self) -> Observer {
        let ledger = self.clone();
        Observer::new(move |request| ledger.note(request))
    }

    fn note(&self, request: &ObservedRequest<'_>) {
        let mut entries = self.entries();
        let user = request.target.split_once("?user=").map_or("", |(_, rest)| rest);
        let user = user.split('&').next();
        if let Some((site, holder)) = &request.holder
            && (site.as_deref() != request.site || Some(holder.as_str()) != user)
        {
            entries.strays.push(format!("{} with the token of {holder}", request.target));
        }
        // With any status but 401 the server may have carried the write out.
        if *request.method == Method::POST && request.status != StatusCode::UNAUTHORIZED {
            *entries.writes.entry(request.target.to_owned()).or_default() += 1;
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("nothing panics with it")
    }

    /// The violations since the last call: writes done twice, and tokens of other users.
    pub fn take_violations(&self) -> Vec<String> {
        let mut entries = self.entries();
        let doubled = entries.writes.iter().filter(|(_, times)| **times > 1);
        let mut violations: Vec<_> =
            doubled.map(|(id, times)| format!("{id} done {times}×")).collect();
        entries.writes.clear();
        violations.append(&mut entries.strays);
        violations
    }
}
