//! The credential of the admin API: the token, or a client certificate. The response to a wrong
//! token comes late, one after another, so that guesses cost time. The right token never waits.

use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::terms::{AdminTerms, VerifiedCertificate};

/// Checks tokens, and delays the responses to wrong ones.
#[derive(Debug)]
pub(super) struct TokenGate {
    /// No wrong token gets its response before this time. The lock is fair.
    next_refusal: Mutex<Instant>,
}

/// The proof of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// The token.
    Token,
    /// A client certificate, by its name.
    Certificate(String),
}

/// Why a request has no valid credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum CredentialFault {
    /// It has none.
    CredentialMissing,
    /// Its token is wrong.
    TokenWrong,
    /// Its client certificate is valid and not listed, or no longer trusted, and it has no token.
    CertificateUnlisted,
}

impl Operator {
    /// The kind of the proof, for logs. The name may be that of a person.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate(_) => "certificate",
        }
    }

    /// The proof, for the audit log.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Token => "token",
            Self::Certificate(name) => name,
        }
    }
}

impl TokenGate {
    pub(super) fn new() -> Self {
        Self { next_refusal: Mutex::new(Instant::now()) }
    }

    /// Authenticates a request by its connection's certificate or by its token.
    pub(super) async fn authenticate(
        &self,
        terms: &AdminTerms,
        certificate: Option<&VerifiedCertificate>,
        headers: &HeaderMap,
    ) -> Result<Operator, CredentialFault> {
        if let Some(name) = certificate.and_then(|certificate| terms.name_of(certificate)) {
            return Ok(Operator::Certificate(name.to_string()));
        }
        if !headers.contains_key(AUTHORIZATION) {
            return Err(match certificate {
                Some(_) => CredentialFault::CertificateUnlisted,
                None => CredentialFault::CredentialMissing,
            });
        }
        let is_right = match (terms.token(), bearer(headers)) {
            (Some(token), Some(given)) => token.is(given),
            _ => false,
        };
        if is_right {
            return Ok(Operator::Token);
        }
        // The number of connections bounds the number of those that wait.
        let mut next_refusal = self.next_refusal.lock().await;
        sleep_until(*next_refusal).await;
        *next_refusal = Instant::now() + PAUSE_AFTER_WRONG;
        Err(CredentialFault::TokenWrong)
    }
}

/// The token of the only `Authorization`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

const SCHEME: &[u8] = b"Bearer ";
/// From the response to a wrong token to the next one: at most 100 a second, over all clients.
const PAUSE_AFTER_WRONG: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use http::HeaderValue;

    use super::*;
    use crate::config::{AdminSettings, AdminToken, Files, ListenAddress, SocketAccess};
    use crate::secret::Secret;

    fn terms() -> AdminTerms {
        let token = AdminToken::new(&Secret::new("0123456789abcdef".to_owned()));
        let settings = AdminSettings {
            address: ListenAddress::Tcp(([127, 0, 0, 1], 9090).into()),
            access: SocketAccess::default(),
            status: false,
            actions: true,
            token,
            token_file: None,
            certificate_file: None,
            tls: None,
            client_names: None,
        };
        AdminTerms::new(&settings, &Files::default())
    }

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (AUTHORIZATION, HeaderValue::from_static(line))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_whole_token_in_one_authorization_is_right() {
        let (gate, terms) = (TokenGate::new(), terms());
        let check = async |lines: &[&'static str]| {
            gate.authenticate(&terms, None, &headers(lines))
                .await
                .map(|operator| operator.name().to_owned())
        };
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
            assert_eq!(check(&[right]).await, Ok("token".to_owned()), "{right}");
        }
        assert_eq!(check(&[]).await, Err(CredentialFault::CredentialMissing));
        for wrong in [
            &["Bearer 0123456789abcde"][..],
            &["Bearer 0123456789abcdef0"],
            &["Bearer "],
            &["Bearer"],
            &[""],
            &["Basic 0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert_eq!(check(wrong).await, Err(CredentialFault::TokenWrong), "{wrong:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_answered_slowly_and_do_not_keep_the_right_one_out() {
        let (gate, terms) = (Arc::new(TokenGate::new()), Arc::new(terms()));
        let check = |line: &'static str| {
            let (gate, terms) = (Arc::clone(&gate), Arc::clone(&terms));
            async move { gate.authenticate(&terms, None, &headers(&[line])).await.is_ok() }
        };
        let begun = Instant::now();
        assert!(check("Bearer 0123456789abcdef").await);
        assert_eq!(begun.elapsed(), Duration::ZERO, "right tokens alone never wait");
        let guesses = join_all((0..64).map(|_| tokio::spawn(check("Bearer guess"))));
        let guesses = tokio::spawn(guesses);
        tokio::task::yield_now().await;
        assert!(check("Bearer 0123456789abcdef").await);
        assert_eq!(begun.elapsed(), Duration::ZERO, "it does not wait behind guesses");
        assert!(guesses.await.unwrap().into_iter().all(|guess| !guess.unwrap()));
        assert!(begun.elapsed() >= 63 * PAUSE_AFTER_WRONG, "{:?}", begun.elapsed());
    }

    /// A client that ends its connection does not make the next response come sooner.
    #[tokio::test(start_paused = true)]
    async fn a_guess_that_is_given_up_gets_no_response() {
        let (gate, terms) = (TokenGate::new(), terms());
        let (wrong, begun) = (headers(&["Bearer guess"]), Instant::now());
        assert!(gate.authenticate(&terms, None, &wrong).await.is_err());
        for _ in 0..100 {
            let hasty = gate.authenticate(&terms, None, &wrong);
            assert!(hasty.now_or_never().is_none(), "it waits, and is given up");
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
