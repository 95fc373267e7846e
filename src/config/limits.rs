//! The section `limits`, and the ranges that keep numbers and durations sensible everywhere.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::Duration;

use super::field::Field;
use super::file;
use super::finding::Noted;
use super::place::Place;
use super::quantity::{Period, Size};
use super::{Check, Limits};
use crate::throttle::{Allowance, Rate};

impl Check<'_> {
    pub(super) fn limits(
        self,
        at: &Place<'_>,
        limits: Field<file::Limits>,
    ) -> Result<Limits, Noted> {
        let limits = limits.required(at, "a mapping", self.notes)?;
        let period = |key: &str, value| self.period(&at.key(key), value, MAX_WAIT);
        let size = |key: &str, value, min, max| self.within(&at.key(key), value, min, max);
        let max_connections =
            self.number(&at.key("max_connections"), limits.max_connections, MAX_CONNECTIONS);
        let request_head_timeout = period("request_head_timeout", limits.request_head_timeout);
        let unfinished_heads =
            size("unfinished_heads", limits.unfinished_heads, MIN_HEADS, MAX_HEADS);
        let keep_alive_timeout = period("keep_alive_timeout", limits.keep_alive_timeout);
        let body_timeout = period("body_timeout", limits.body_timeout);
        let lame_duck =
            self.within(&at.key("lame_duck"), limits.lame_duck, Period::seconds(0), MAX_LAME_DUCK);
        let drain_timeout = period("drain_timeout", limits.drain_timeout);
        let max_body = size("max_body", limits.max_body, MIN_BODY, MAX_BODY);
        let token_cache_entries = self.number(
            &at.key("token_cache_entries"),
            limits.token_cache_entries,
            MAX_CACHE_ENTRIES,
        );
        let tenant_file_size =
            size("tenant_file_size", limits.tenant_file_size, MIN_TENANT_FILE, MAX_TENANT_FILE);
        tenant_file_size?;
        Ok(Limits {
            max_connections: max_connections?,
            request_head_timeout: request_head_timeout?,
            unfinished_heads: usize::try_from(unfinished_heads?.0).unwrap_or(usize::MAX),
            keep_alive_timeout: keep_alive_timeout?,
            body_timeout: body_timeout?,
            max_body: max_body?.0,
            lame_duck: lame_duck?.0,
            drain_timeout: drain_timeout?,
            token_cache_entries: token_cache_entries?,
        })
    }

    /// The requests that a caller or a tenant is allowed; `None` when they are not bounded.
    pub(super) fn allowance(
        self,
        at: &Place<'_>,
        allowance: Field<file::Allowance>,
    ) -> Result<Option<Allowance>, Noted> {
        let Some(allowance) = allowance.optional()? else { return Ok(None) };
        if let (Field::Given(_), Field::Missing) =
            (&allowance.burst, &allowance.requests_per_second)
        {
            let problem = "found a burst of a rate that is not given";
            let accepted = "`burst` with `requests_per_second`";
            self.notes.add(at.key("burst").key_finding(problem, accepted));
        }
        let count = |key: &str, value: Field<u64>| match value {
            Field::Missing => Ok(None),
            given => self.number(&at.key(key), given, MAX_ALLOWED).map(NonZeroU32::new),
        };
        let per_second = count("requests_per_second", allowance.requests_per_second);
        let burst = count("burst", allowance.burst);
        let concurrent = count("concurrent_requests", allowance.concurrent_requests)?;
        let (per_second, burst) = (per_second?, burst?);
        let rate =
            per_second.map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) });
        Ok(Some(Allowance { rate, concurrent: concurrent.map(|n| n.get() as usize) }))
    }

    /// A length of time of at least a millisecond.
    pub(super) fn period(
        self,
        at: &Place<'_>,
        value: Field<Period>,
        max: Period,
    ) -> Result<Duration, Noted> {
        self.within(at, value, MIN_WAIT, max).map(|period| period.0)
    }

    /// A number of at least one.
    pub(super) fn number<N: Copy + TryFrom<u64> + Default + PartialOrd + Display>(
        self,
        at: &Place<'_>,
        value: Field<u64>,
        max: N,
    ) -> Result<N, Noted> {
        let accepted = || format!("1 to {max}");
        let value = match value {
            Field::Given(value) => value,
            missing => missing.required(at, &accepted(), self.notes)?,
        };
        let value = N::try_from(value).ok();
        let value = value.filter(|value| *value > N::default() && *value <= max);
        value.ok_or_else(|| self.notes.add(at.wrong(accepted())))
    }

    /// A quantity from `min` to `max`.
    pub(super) fn within<Q: Copy + PartialOrd + Display>(
        self,
        at: &Place<'_>,
        value: Field<Q>,
        min: Q,
        max: Q,
    ) -> Result<Q, Noted> {
        let accepted = || format!("`{min}` to `{max}`");
        let value = match value {
            Field::Given(value) => value,
            missing => missing.required(at, &accepted(), self.notes)?,
        };
        if value < min || value > max {
            return Err(self.notes.add(at.wrong(accepted())));
        }
        Ok(value)
    }
}

/// Shortest time to wait for anything.
const MIN_WAIT: Period = Period(Duration::from_millis(1));
/// Longest time to wait for anything.
pub(super) const MAX_WAIT: Period = Period::seconds(86_400);
/// Most connections of one kind.
pub(super) const MAX_CONNECTIONS: usize = 1_000_000;
const MAX_LAME_DUCK: Period = Period::seconds(600);
const MAX_CACHE_ENTRIES: u64 = 10_000_000;
const MAX_ALLOWED: u32 = 1_000_000;
/// Room for a few heads of the largest size.
const MIN_HEADS: Size = Size(1 << 20);
const MAX_HEADS: Size = Size(16 << 30);
const MIN_TENANT_FILE: Size = Size(1 << 10);
const MAX_TENANT_FILE: Size = Size(1 << 30);
const MIN_BODY: Size = Size(1 << 10);
const MAX_BODY: Size = Size(16 << 30);
