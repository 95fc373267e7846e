//! Why a credential of a caller was refused: the words of the access log and of a metric. The
//! client is never told.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Repeats;

/// Declares the reasons with their words, so that none can be left out of the metric.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a credential of a caller was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them, in the order of their discriminants.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];

            /// The word for it in metrics and in the access log.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    /// The request brings no credential of a caller.
    Missing = "missing",
    /// It brings credentials of several.
    Several = "several",
    /// The client certificate is no caller's.
    CertificateUnknown = "certificate_unknown",
    /// The API key is nobody's.
    KeyUnknown = "key_unknown",
    /// The API key is past its end.
    KeyExpired = "key_expired",
    /// The `Bearer` token is no JWT of an issuer in the configuration.
    BearerUnknown = "bearer_unknown",
    /// A name stands twice in the JWT.
    JwtRepeatedName = "jwt_repeated_name",
    /// The JWT's algorithm is none of the issuer's.
    JwtAlgorithm = "jwt_algorithm",
    /// The JWT's header is of another type, or demands an extension.
    JwtHeader = "jwt_header",
    /// The issuer's keys could not be fetched.
    JwtKeysUnavailable = "jwt_keys_unavailable",
    /// None of the issuer's keys is the JWT's.
    JwtKeyUnknown = "jwt_key_unknown",
    /// The JWT's signature does not fit.
    JwtSignature = "jwt_signature",
    /// The JWT's issuer is not the configured one to the letter.
    JwtIssuer = "jwt_issuer",
    /// The JWT is for another audience.
    JwtAudience = "jwt_audience",
    /// The JWT's times are missing or no numbers.
    JwtTimes = "jwt_times",
    /// The JWT has expired.
    JwtExpired = "jwt_expired",
    /// The JWT is not valid yet.
    JwtNotYet = "jwt_not_yet",
}

/// How often each reason was given.
#[derive(Debug)]
pub struct ReasonCounts {
    counters: [Counter; Reason::ALL.len()],
    repeats: Repeats,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl ReasonCounts {
    /// Shows all of them, from 0 on.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let family: Family<ReasonLabel, Counter> = Family::default();
        registry.register(
            "credentials_refused",
            "Credentials of callers that were refused, by reason",
            family.clone(),
        );
        let counter =
            |reason: Reason| family.get_or_create(&ReasonLabel { reason: reason.as_str() }).clone();
        Self { counters: Reason::ALL.map(counter), repeats: Repeats::default() }
    }

    /// Counts one. Whether to log it too, for clients can make any number: see [`Repeats::tell`].
    pub fn tell(&self, reason: Reason) -> Option<u64> {
        self.counters[reason as usize].inc();
        // Probes and scanners come without a credential all day.
        if reason == Reason::Missing { None } else { self.repeats.tell(reason.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_has_a_word_of_its_own_and_is_counted_always_and_logged_seldom() {
        let mut registry = Registry::default();
        let counts = ReasonCounts::register(&mut registry);
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let first = (reason != Reason::Missing).then_some(0);
            assert_eq!((counts.tell(reason), counts.tell(reason)), (first, None));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for word in words {
            let line = format!("credentials_refused_total{{reason=\"{word}\"}} 2\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
