//! The issuer of a JWT that was refused, for logs.

use super::JwtCaller;

/// The issuer that a refused JWT names, as the configuration spells it, and the callers with this
/// issuer. None of them is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedIssuer {
    callers: Box<str>,
    issuer: Box<str>,
}

impl TriedIssuer {
    /// Of the callers that were tried; `None` if there was none.
    pub(super) fn of<'c>(tried: impl Iterator<Item = &'c JwtCaller>) -> Option<Self> {
        let mut tried = tried.peekable();
        let issuer = tried.peek()?.issuer.issuer.as_str().into();
        let names: Vec<_> = tried.map(|caller| caller.name.as_str()).collect();
        let more = if names.len() > MAX_NAMES { ", …" } else { "" };
        let callers = names[..names.len().min(MAX_NAMES)].join(", ") + more;
        Some(Self { callers: callers.into(), issuer })
    }

    /// The names of the callers.
    pub fn callers(&self) -> &str {
        &self.callers
    }

    /// The issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// Callers that are named; a line of a log stays short.
const MAX_NAMES: usize = 3;
