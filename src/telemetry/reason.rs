//! Why a credential of a caller was refused, in the words of the access log and of a metric. The
//! client never learns it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use strum::{EnumCount, IntoStaticStr, VariantArray};

use super::LogLimiter;

/// Why a credential of a caller was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The request brings no credential of a caller.
    Missing,
    /// It brings credentials of several callers.
    Several,
    /// No caller has the client certificate.
    CertificateUnknown,
    /// No caller has the API key.
    KeyUnknown,
    /// The API key has expired.
    KeyExpired,
    /// The `Bearer` token is no JWT of an issuer in the configuration.
    BearerUnknown,
    /// A claim occurs twice in the JWT.
    JwtRepeatedName,
    /// The issuer does not use the JWT's algorithm.
    JwtAlgorithm,
    /// The JWT's header is of another type, or demands an extension.
    JwtHeader,
    /// The issuer's keys could not be fetched.
    JwtKeysUnavailable,
    /// The issuer has no key that the JWT names.
    JwtKeyUnknown,
    /// The JWT's signature is wrong.
    JwtSignature,
    /// The JWT's issuer is not exactly the configured one.
    JwtIssuer,
    /// The JWT is for another audience.
    JwtAudience,
    /// The JWT's times are missing, or are no numbers.
    JwtTimes,
    /// The JWT has expired.
    JwtExpired,
    /// The JWT is not valid yet.
    JwtNotYet,
}

impl Reason {
    /// The word for it in metrics and in the access log.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How often each reason occurred.
#[derive(Debug)]
pub struct ReasonCounts {
    counters: [Counter; Reason::COUNT],
    log_limiter: LogLimiter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl ReasonCounts {
    /// Exports all reasons, from 0 on.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let family: Family<ReasonLabel, Counter> = Family::default();
        registry.register(
            "credentials_refused",
            "Credentials of callers that were refused, by reason",
            family.clone(),
        );
        let counters = std::array::from_fn(|index| {
            let label = ReasonLabel { reason: Reason::VARIANTS[index].as_str() };
            family.get_or_create(&label).clone()
        });
        Self { counters, log_limiter: LogLimiter::default() }
    }

    /// Counts a refusal. `Some` if it may be logged: see [`LogLimiter::allow`].
    pub fn count(&self, reason: Reason) -> Option<u64> {
        self.counters[reason as usize].inc();
        // Probes and scanners come without a credential all day.
        if reason == Reason::Missing { None } else { self.log_limiter.allow(reason.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_has_its_own_word_and_is_always_counted_and_seldom_logged() {
        let mut registry = Registry::default();
        let counts = ReasonCounts::register(&mut registry);
        let words: HashSet<_> = Reason::VARIANTS.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::COUNT);
        for &reason in Reason::VARIANTS {
            let first = (reason != Reason::Missing).then_some(0);
            assert_eq!((counts.count(reason), counts.count(reason)), (first, None));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for word in words {
            let line = format!("credentials_refused_total{{reason=\"{word}\"}} 2\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
