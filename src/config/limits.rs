//! The section `limits`, and the ranges that keep numbers and durations sensible everywhere.

use std::num::NonZeroU32;
use std::time::Duration;

use super::field::Field;
use super::file;
use super::place::Place;
use super::quantity::{Period, Size};
use super::{Check, Limits};
use crate::throttle::{Allowance, Rate};

impl Check<'_> {
    pub(super) fn limits(self, at: &Place<'_>, limits: Field<file::Limits>) -> Option<Limits> {
        let limits = limits.given()?;
        let period = |key: &str, value| self.period(&at.key(key), value, MAX_WAIT);
        let max_connections =
            self.number(&at.key("max_connections"), limits.max_connections, MAX_CONNECTIONS);
        let request_head_timeout = period("request_head_timeout", limits.request_head_timeout);
        let unfinished_heads =
            self.size(&at.key("unfinished_heads"), limits.unfinished_heads, MIN_HEADS, MAX_HEADS);
        let keep_alive_timeout = period("keep_alive_timeout", limits.keep_alive_timeout);
        let body_timeout = period("body_timeout", limits.body_timeout);
        let lame_duck = limits.lame_duck.given().filter(|wait| {
            let bounded = *wait <= MAX_LAME_DUCK;
            if !bounded {
                self.notes.add(at.key("lame_duck").wrong(format!("`0s` to `{MAX_LAME_DUCK}`")));
            }
            bounded
        });
        let drain_timeout = period("drain_timeout", limits.drain_timeout);
        let max_body = self.size(&at.key("max_body"), limits.max_body, MIN_BODY, MAX_BODY);
        let token_cache_entries = self.number(
            &at.key("token_cache_entries"),
            limits.token_cache_entries,
            MAX_CACHE_ENTRIES,
        );
        Some(Limits {
            max_connections: max_connections?,
            request_head_timeout: request_head_timeout?,
            unfinished_heads: usize::try_from(unfinished_heads?).unwrap_or(usize::MAX),
            keep_alive_timeout: keep_alive_timeout?,
            body_timeout: body_timeout?,
            max_body: max_body?,
            lame_duck: lame_duck?.0,
            drain_timeout: drain_timeout?,
            token_cache_entries: token_cache_entries? as u64,
        })
    }

    /// What a caller or a tenant is allowed; none when nothing is bounded.
    pub(super) fn allowance(
        self,
        at: &Place<'_>,
        allowance: Field<file::Allowance>,
    ) -> Option<Allowance> {
        let allowance = allowance.given()?;
        let number = |key: &str, value| self.number(&at.key(key), value, MAX_ALLOWED);
        if let (Field::Given(_), Field::Missing) =
            (&allowance.burst, &allowance.requests_per_second)
        {
            let problem = "found a burst of a rate that is not given";
            let accepted = "`burst` with `requests_per_second`";
            self.notes.add(at.key("burst").key_finding(problem, accepted));
        }
        let per_second = number("requests_per_second", allowance.requests_per_second);
        let burst = number("burst", allowance.burst).or(per_second);
        let concurrent = number("concurrent_requests", allowance.concurrent_requests);
        let count = |number: usize| u32::try_from(number).ok().and_then(NonZeroU32::new);
        let rate = per_second.and_then(count).zip(burst.and_then(count));
        let rate = rate.map(|(per_second, burst)| Rate { per_second, burst });
        Some(Allowance { rate, concurrent })
    }

    /// A length of time of at least a millisecond.
    pub(super) fn period(
        self,
        at: &Place<'_>,
        value: Field<Period>,
        max: Period,
    ) -> Option<Duration> {
        let value = value.given()?;
        if value.0.is_zero() || value > max {
            self.notes.add(at.wrong(format!("`1ms` to `{max}`")));
            return None;
        }
        Some(value.0)
    }

    /// A number of at least one.
    pub(super) fn number(self, at: &Place<'_>, value: Field<u64>, max: usize) -> Option<usize> {
        let value = usize::try_from(value.given()?).unwrap_or(usize::MAX);
        if value == 0 || value > max {
            self.notes.add(at.wrong(format!("1 to {max}")));
            return None;
        }
        Some(value)
    }

    fn size(self, at: &Place<'_>, value: Field<Size>, min: Size, max: Size) -> Option<u64> {
        let value = value.given()?;
        if value < min || value > max {
            self.notes.add(at.wrong(format!("`{min}` to `{max}`")));
            return None;
        }
        Some(value.0)
    }
}

/// Longest time to wait for anything.
pub(super) const MAX_WAIT: Period = Period::seconds(86_400);
/// Most connections of one kind.
pub(super) const MAX_CONNECTIONS: usize = 1_000_000;
const MAX_LAME_DUCK: Period = Period::seconds(600);
const MAX_CACHE_ENTRIES: usize = 10_000_000;
const MAX_ALLOWED: usize = 1_000_000;
/// Room for a few heads of the largest size.
const MIN_HEADS: Size = Size(1 << 20);
const MAX_HEADS: Size = Size(16 << 30);
const MIN_BODY: Size = Size(1 << 10);
const MAX_BODY: Size = Size(16 << 30);
