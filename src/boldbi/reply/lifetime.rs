//! How long a token lives, by its reply and by the token itself. Pure. Clocks that differ must not
//! matter: a span between two times of the server is preferred to a span from our time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use zeroize::Zeroizing;

/// All statements about a lifetime.
pub(super) struct Statements<'r> {
    /// `expires_in`: a number of seconds, the same as text, or a date. (Bold BI: respectively
    /// knowledge base 17540, the published API, and a reply of 2020.)
    pub expires_in: Option<&'r Value>,
    /// `.issued`, a date.
    pub issued: Option<&'r Value>,
    /// `.expires`, a date.
    pub expires: Option<&'r Value>,
    /// The token, which may be a JWT with `iat` and `exp`.
    pub token: &'r str,
}

/// The time from now to the earliest end that is stated; a quarter of an hour if none is. Zero
/// means an end within a second, which the server has rounded down.
///
/// # Errors
/// A fixed text, when a statement is absurd.
pub(super) fn lifetime(
    statements: &Statements<'_>,
    now: SystemTime,
) -> Result<Duration, &'static str> {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos().cast_signed());
    let jwt = JwtTimes::of(statements.token);
    let issued = statements.issued.and_then(date).or(jwt.iat);
    let from_issue_to = |end| span(issued, end, now);

    let stated = match statements.expires_in {
        None => None,
        // Text that is no time is ignored, such as `string` from a mock of the published API, or a
        // date in an unknown culture. A value of any other type is no token reply.
        Some(value @ (Value::String(_) | Value::Number(_))) => {
            seconds(value).or_else(|| date(value).map(from_issue_to))
        }
        Some(_) => return Err(UNREADABLE),
    };
    let by_token = jwt.exp.map(|exp| span(jwt.iat, exp, now));
    // A date in an unknown culture is ignored; the other statements still count.
    let by_date = statements.expires.and_then(date).map(from_issue_to);

    let ends = [stated, by_token, by_date];
    let Some(earliest) = ends.into_iter().flatten().min() else {
        return Ok(DEFAULT_LIFETIME);
    };
    if earliest < 0 {
        return Err(NEGATIVE);
    }
    let max = MAX_LIFETIME.as_nanos().cast_signed();
    if ends.into_iter().flatten().any(|end| end > max) {
        return Err(TOO_LONG);
    }
    u64::try_from(earliest).map(Duration::from_nanos).map_err(|_| TOO_LONG)
}

/// Nanoseconds, as a time since 1970 or as a span.
type Nanoseconds = i128;

/// The rest of a life from `begin` to `end`. If both are known, it is the time between them,
/// because our clock may be wrong. A token that clearly began earlier was given out again: it has
/// only the rest by our clock.
///
/// A date without fractions of a second may be over although the token has not ended yet.
fn span(begin: Option<Nanoseconds>, end: Nanoseconds, now: Nanoseconds) -> Nanoseconds {
    let left = end - now;
    match begin {
        Some(begin) if now <= begin + MAX_CLOCK_DIFFERENCE || left <= -SECOND => end - begin,
        _ if left > -SECOND => left.max(0),
        _ => left,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a number that is too large is cut off, and is absurd anyway"
)]
fn rounded_to_nanoseconds(seconds: f64) -> Nanoseconds {
    (seconds * 1e9) as Nanoseconds
}

/// A number of seconds, as a number or as text.
fn seconds(value: &Value) -> Option<Nanoseconds> {
    match value {
        Value::Number(number) => number
            .as_i64()
            .map(|whole| i128::from(whole) * SECOND)
            .or_else(|| number.as_f64().map(rounded_to_nanoseconds))
            // A number this large is absurd anyway. Without it, no later sum overflows.
            .map(|nanoseconds| nanoseconds.clamp(-FAR_OFF, FAR_OFF)),
        Value::String(text) => {
            let text = text.trim_ascii();
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // Too many digits for any integer: absurd as well.
            Some(text.parse::<i64>().map_or(FAR_OFF, |whole| i128::from(whole) * SECOND))
        }
        _ => None,
    }
}

/// A date in ISO 8601 or in the form of the culture en-US; UTC if it has no offset.
fn date(value: &Value) -> Option<Nanoseconds> {
    // Newer versions of .NET put a narrow no-break space in front of AM and PM.
    let text = value.as_str()?.trim_ascii().replace('\u{202f}', " ");
    let utc = |date: PrimitiveDateTime| date.assume_utc();
    let en_us = format_description!(
        "[month padding:none]/[day padding:none]/[year] [hour repr:12 padding:none]:[minute]:[second] [period case_sensitive:false]"
    );
    let en_us_offset = format_description!(
        "[month padding:none]/[day padding:none]/[year] [hour repr:12 padding:none]:[minute]:[second] [period case_sensitive:false] [offset_hour sign:mandatory]:[offset_minute]"
    );
    OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&text, &Iso8601::PARSING))
        .or_else(|_| PrimitiveDateTime::parse(&text, &Iso8601::PARSING).map(utc))
        .or_else(|_| OffsetDateTime::parse(&text, en_us_offset))
        .or_else(|_| PrimitiveDateTime::parse(&text, en_us).map(utc))
        .ok()
        .map(OffsetDateTime::unix_timestamp_nanos)
}

/// When a JWT ends, in seconds of Unix time; `None` if `token` is no JWT or does not say.
pub(in crate::boldbi) fn jwt_end(token: &str) -> Option<u64> {
    u64::try_from(JwtTimes::of(token).exp? / SECOND).ok()
}

/// The times in a JWT (RFC 7519, sections 4.1.4 and 4.1.6).
#[derive(Default)]
struct JwtTimes {
    exp: Option<Nanoseconds>,
    iat: Option<Nanoseconds>,
}

impl JwtTimes {
    /// Reads them without verification: only the server has the key, and only the time of the
    /// refresh depends on them. An opaque token has none.
    fn of(token: &str) -> Self {
        #[derive(Deserialize)]
        struct Claims {
            exp: Option<Value>,
            iat: Option<Value>,
        }
        let claims = || {
            let mut parts = token.split('.');
            let (Some(_), Some(payload), Some(_), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return None;
            };
            let payload = payload.trim_end_matches('=');
            let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
            serde_json::from_slice::<Claims>(&payload).ok()
        };
        let Some(Claims { exp, iat }) = claims() else { return Self::default() };
        let time = |claim: Option<Value>| claim.filter(Value::is_number).as_ref().and_then(seconds);
        Self { exp: time(exp), iat: time(iat) }
    }
}

const SECOND: Nanoseconds = 1_000_000_000;
/// Later than any date, and far from the end of the type.
const FAR_OFF: Nanoseconds = Nanoseconds::MAX / 1024;
/// The lifetime if none is stated. (Bold BI: the default of the published API is 7 days.)
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// A longer lifetime is a mistake.
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// How far clocks may differ before a token counts as given out again.
const MAX_CLOCK_DIFFERENCE: Nanoseconds = 5 * 60 * SECOND;
pub(in crate::boldbi) const UNREADABLE: &str = "its `expires_in` is neither a number nor text";
pub(in crate::boldbi) const NEGATIVE: &str = "it gives the token a lifetime below zero";
pub(in crate::boldbi) const TOO_LONG: &str = "it gives the token a lifetime of more than 100 years";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUED_2020: u64 = 1_590_023_907; // 2020-05-21T01:18:27Z

    fn at(unix: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(unix)
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that `json!` can stand in the call")]
    fn of(expires_in: Value, now: u64) -> Result<u64, &'static str> {
        let stated =
            Statements { expires_in: Some(&expires_in), issued: None, expires: None, token: "x" };
        lifetime(&stated, at(now)).map(|lifetime| lifetime.as_secs())
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that `json!` can stand in the call")]
    fn of_jwt(claims: Value, now: u64) -> Result<u64, &'static str> {
        let token = jwt(&claims);
        let stated = Statements { expires_in: None, issued: None, expires: None, token: &token };
        lifetime(&stated, at(now)).map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn seconds_come_as_number_or_text() {
        for good in [json!(3600), json!("3600"), json!("3600 "), json!(3600.0)] {
            assert_eq!(of(good, 0), Ok(3600));
        }
    }

    #[test]
    fn absurd_lifetimes_are_errors() {
        let absurd = [
            json!(1e99),
            json!(9_223_372_036_854_775_808_u64),
            json!("9223372036854775808"),
            json!("99999999999999999999999999999999999999999999"),
            json!("9999-12-31T23:59:59Z"),
        ];
        for value in absurd {
            assert_eq!(of(value.clone(), ISSUED_2020), Err(TOO_LONG), "{value}");
        }
        for value in [json!(-1), json!("-1"), json!("0001-01-01T00:00:00")] {
            assert_eq!(of(value.clone(), ISSUED_2020), Err(NEGATIVE), "{value}");
        }
        for value in [json!(true), json!([1]), json!({})] {
            assert_eq!(of(value.clone(), ISSUED_2020), Err(UNREADABLE), "{value}");
        }
    }

    #[test]
    fn text_that_is_no_time_is_ignored() {
        for value in [json!("abc"), json!("string"), json!(""), json!("-")] {
            assert_eq!(of(value.clone(), ISSUED_2020), Ok(DEFAULT_LIFETIME.as_secs()), "{value}");
        }
        let token = jwt(&json!({"iat": 1000, "exp": 1600}));
        let text = json!("string");
        let stated =
            Statements { expires_in: Some(&text), issued: None, expires: None, token: &token };
        assert_eq!(lifetime(&stated, at(1000)), Ok(Duration::from_mins(10)));
    }

    #[test]
    fn dates_come_in_many_forms() {
        let forms = [
            "2020-05-28T01:18:27+00:00",
            "2020-05-28T01:18:27Z",
            "2020-05-28T01:18:27.0000000Z",
            "2020-05-28T01:18:27",
            "2020-05-28T03:18:27+02:00",
            "5/28/2020 1:18:27 AM +00:00",
            "5/28/2020 1:18:27 AM",
            "05/28/2020 01:18:27 am",
            "5/28/2020 1:18:27\u{202f}AM",
            "5/27/2020 8:18:27 PM -05:00",
        ];
        for form in forms {
            assert_eq!(of(json!(form), ISSUED_2020), Ok(604_800), "{form}");
        }
    }

    #[test]
    fn noon_and_midnight_are_told_apart() {
        let noon = date(&json!("5/21/2020 12:00:00 PM")).unwrap();
        let midnight = date(&json!("5/21/2020 12:00:00 AM")).unwrap();
        assert_eq!(noon - midnight, 12 * 3600 * SECOND);
    }

    #[test]
    fn the_claims_of_a_jwt_count_from_each_other_when_clocks_differ() {
        let claims = json!({"iat": 1_756_891_006, "exp": 1_757_495_806});
        // Our clock is right, a little ahead, behind by years, ahead by years.
        for now in [1_756_891_006, 1_756_891_206, 0, 2_000_000_000] {
            assert_eq!(of_jwt(claims.clone(), now), Ok(604_800), "at {now}");
        }
    }

    #[test]
    fn a_token_given_out_a_second_time_has_only_the_rest_of_its_life() {
        let claims = json!({"iat": 1_756_891_006, "exp": 1_757_495_806});
        assert_eq!(of_jwt(claims, 1_757_495_806 - 60), Ok(60));
    }

    #[test]
    fn a_lifetime_that_was_rounded_down_is_zero() {
        for zero in [json!(0), json!("0"), json!(0.0), json!("2020-05-21T01:18:27Z")] {
            assert_eq!(of(zero.clone(), ISSUED_2020), Ok(0), "{zero}");
        }
        // Our clock has fractions of a second, and the date has none.
        let expires = json!("5/21/2020 1:18:27 AM");
        for issued in [None, Some(json!("5/21/2020 12:18:27 AM"))] {
            let stated = Statements {
                expires_in: None,
                issued: issued.as_ref(),
                expires: Some(&expires),
                token: "x",
            };
            let now = at(ISSUED_2020) + Duration::from_millis(999);
            assert_eq!(lifetime(&stated, now), Ok(Duration::ZERO), "{issued:?}");
        }
    }

    #[test]
    fn a_jwt_without_iat_counts_from_now() {
        assert_eq!(of_jwt(json!({"exp": 1000}), 400), Ok(600));
        assert_eq!(of_jwt(json!({"exp": 1000}), 1001), Err(NEGATIVE));
        assert_eq!(of_jwt(json!({"exp": 1000.5, "iat": 0.5}), 0), Ok(1000));
    }

    #[test]
    fn a_token_that_only_looks_like_a_jwt_is_opaque() {
        let deep = format!("e30.{}.x", URL_SAFE_NO_PAD.encode("[".repeat(40_000)));
        let nested = format!("{{\"a\":{}", "[".repeat(40_000));
        let nested = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(nested));
        for token in ["a.b.c", "..", "a.b", "a.b.c.d", "e30.e30.x", &deep, &nested] {
            let stated = Statements { expires_in: None, issued: None, expires: None, token };
            assert_eq!(lifetime(&stated, at(0)), Ok(DEFAULT_LIFETIME));
        }
        assert_eq!(of_jwt(json!({"exp": "1000"}), 0), Ok(900));
    }

    #[test]
    fn the_earliest_statement_wins() {
        let token = jwt(&json!({"iat": 1000, "exp": 1500}));
        let (expires_in, expires) = (json!(600), json!("1/1/1970 12:20:00 AM"));
        let stated = Statements {
            expires_in: Some(&expires_in),
            issued: None,
            expires: Some(&expires),
            token: &token,
        };
        assert_eq!(lifetime(&stated, at(1000)), Ok(Duration::from_secs(200)));
    }

    #[test]
    fn a_date_of_an_unknown_culture_is_ignored() {
        let expires = json!("28.05.2020 01:18:27");
        let stated =
            Statements { expires_in: None, issued: None, expires: Some(&expires), token: "x" };
        assert_eq!(lifetime(&stated, at(0)), Ok(DEFAULT_LIFETIME));
    }
}
