//! Callers: who sends a request. Only [`CallerAuth`] makes a [`Caller`]; what a caller may do is
//! not decided here.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use crate::request::RequestHead;

mod api_key;

use api_key::ApiKeys;
pub use api_key::{ApiKey, ApiKeyHash};

/// Who sends a request, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Option<CallerName>);

impl Caller {
    /// The caller's name in the configuration; none for an anonymous caller.
    pub fn name(&self) -> Option<&CallerName> {
        self.0.as_ref()
    }
}

/// The name of a caller in the configuration and in logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerName(Arc<str>);

impl CallerName {
    /// Takes over a name from the configuration.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admits {
    /// Everybody who can reach it: for loopback and Unix sockets only.
    Anonymous,
    /// Callers who prove who they are.
    Known,
}

/// Authenticates callers.
#[derive(Debug)]
pub struct CallerAuth {
    keys: ApiKeys,
    key_header: HeaderName,
}

impl CallerAuth {
    /// Knows callers by the hashes of their API keys, sent in the header `key_header`.
    pub fn new(
        keys: impl IntoIterator<Item = (ApiKeyHash, CallerName)>,
        key_header: HeaderName,
    ) -> Self {
        Self { keys: keys.into_iter().collect(), key_header }
    }

    /// How many callers are known.
    pub fn known(&self) -> usize {
        self.keys.len()
    }

    /// The header that carries an API key; it never goes on to a server.
    pub fn key_header(&self) -> &HeaderName {
        &self.key_header
    }

    /// Who sends this request, to a listener that admits `admits`.
    ///
    /// # Errors
    /// When the listener admits known callers only and the request proves none. An unknown key and
    /// a malformed one are the same error.
    pub fn authenticate(
        &self,
        admits: Admits,
        head: &RequestHead<'_>,
    ) -> Result<Caller, CallerError> {
        match admits {
            Admits::Anonymous => Ok(Caller(None)),
            Admits::Known => self.by_key(head.headers).map(|name| Caller(Some(name))),
        }
    }

    fn by_key(&self, headers: &HeaderMap) -> Result<CallerName, CallerError> {
        let mut keys = headers.get_all(&self.key_header).iter();
        match (keys.next(), keys.next()) {
            (None, _) => Err(CallerError::Missing),
            (Some(key), None) => self.keys.find(key.as_bytes()).ok_or(CallerError::Unknown),
            (Some(_), Some(_)) => Err(CallerError::Several),
        }
    }
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// No credential was sent.
    #[error("the request has no API key")]
    Missing,
    /// The credential belongs to nobody.
    #[error("the API key is not known")]
    Unknown,
    /// Which of several credentials would count is anyone's guess.
    #[error("the request has more than one API key")]
    Several,
}
