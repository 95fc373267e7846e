//! All known shapes of replies, and many that must be refused.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const WEEK: Duration = Duration::from_secs(604_800);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const T11: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJlbWFpbCI6InVzZXJAZXhhbXBsZS5jb20iLCJ1cG4iOiJ1c2VyIiwibmFtZWlkIjoiMSIsInVuaXF1ZV9uYW1lIjoiNmUxMmVhNjYtMWU3My00NDVmLWJlMzMtNDY5OTg0ZjVkODNiIiwiSVAiOiI6OjEiLCJpc3N1ZWRfZGF0ZSI6IjE3NTY4OTEwMDYiLCJjdXN0b21fYXR0cmlidXRlIjoie30iLCJuYmYiOjE3NTY4OTEwMDYsImV4cCI6MTc1NzQ5NTgwNiwiaWF0IjoxNzU2ODkxMDA2LCJpc3MiOiJodHRwOi8vbG9jYWxob3N0OjYwNTE1L2JpL3NpdGUvc2l0ZTEiLCJhdWQiOiJodHRwOi8vbG9jYWxob3N0OjYwNTE1L2JpL3NpdGUvc2l0ZTEifQ.Gm14dcwaVb3uVEN8JH4A1HsNFWVkJbdX5oCl3o3aa30";

fn asked() -> Asked {
    Asked { at: Instant::now(), clock: SystemTime::UNIX_EPOCH + Duration::from_secs(1_757_000_000) }
}

fn read_as(status: u16, headers: &[(&'static str, &'static str)], body: &[u8]) -> Outcome {
    let status = StatusCode::from_u16(status).unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_static(value));
    }
    read(status, &map, body, asked(), YEAR)
}

type Outcome = Result<AccessToken, ExchangeErrorKind>;

fn read_ok(body: &str) -> Outcome {
    read_as(200, &[("content-type", "application/json; charset=utf-8")], body.as_bytes())
}

fn lifetime_of(body: &str) -> Duration {
    read_ok(body).unwrap().lifetime()
}

fn fault_of(outcome: Outcome) -> &'static str {
    match outcome {
        Err(ExchangeErrorKind::Unusable { fault, .. }) => fault,
        other => panic!("not unusable: {other:?}"),
    }
}

fn assert_refused(outcome: &Outcome) {
    assert!(matches!(outcome, Err(ExchangeErrorKind::Refused { .. })), "{outcome:?}");
}

#[test]
fn t3_current_success_with_numeric_seconds() {
    let body = format!(
        r#"{{"email":"user@example.com","idpreferenceid":"91e76354-60f3-4d12-acce-95c664a3e91e","username":"user","access_token":"{T11}","token_type":"bearer","expires_in":604800,"LoginResult":"True","LoginStatusInfo":"Authentication successful"}}"#
    );
    let token = read_ok(&body).unwrap();
    // The JWT was issued 1.3 days before `now`: it was given out again, and has 5.7 days left.
    assert_eq!(token.lifetime(), Duration::from_secs(1_757_495_806 - 1_757_000_000));
    assert_eq!(token.authorization(), &format!("Bearer {T11}"));
}

#[test]
fn a_jump_of_our_clock_changes_no_lifetime_where_the_server_tells_its_own_time() {
    // An end without a beginning: the rest of the life depends on the server's time.
    let body = br#"{"access_token":"x","expires_in":"2025-09-10T09:00:00Z"}"#;
    let headers = |date: &'static str| {
        HeaderMap::from_iter([(http::header::DATE, HeaderValue::from_static(date))])
    };
    let lifetime = |headers: &HeaderMap, clock: u64| {
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(clock);
        let asked = Asked { at: Instant::now(), clock };
        read(StatusCode::OK, headers, body, asked, YEAR).unwrap().lifetime().as_secs()
    };
    let dated = headers("Wed, 10 Sep 2025 08:00:00 GMT");
    let right = 1_757_491_200;
    for clock in [right, right - 3600, right + 3600, 0, right + 3 * 3600] {
        assert_eq!(lifetime(&dated, clock), 3600, "at {clock}");
    }
    // Control: without a valid time of the server, our own counts.
    for headers in [HeaderMap::new(), headers("yesterday")] {
        assert_eq!(lifetime(&headers, right), 3600);
        assert_eq!(lifetime(&headers, right - 3600), 7200);
    }
}

#[test]
fn a_lifetime_of_zero_is_not_an_absurd_one() {
    let zero = read_ok(r#"{"access_token":"x","expires_in":0}"#);
    let Err(ExchangeErrorKind::NoLifetime(token)) = zero else { panic!("{zero:?}") };
    assert_eq!(token.as_bytes(), b"x");
    assert_eq!(fault_of(read_ok(r#"{"access_token":"x","expires_in":-1}"#)), NEGATIVE);
}

#[test]
fn t4_success_of_2020_with_dates() {
    let body = r#"{"email":"guest@example.com","access_token":"made_up-opaque-token_0123456789","token_type":"bearer","expires_in":"2020-05-28T01:18:27+00:00",".issued":"5/21/2020 1:18:27 AM +00:00",".expires":"5/28/2020 1:18:27 AM +00:00","LoginResult":"True","LoginStatusInfo":"Authentication successful"}"#;
    assert_eq!(lifetime_of(body), WEEK);
}

#[test]
fn t5_shape_of_the_published_api() {
    let body = r#"{"access_token":"x","token_type":"bearer","expires_in":"604800","Email":"user@example.com"}"#;
    assert_eq!(lifetime_of(body), WEEK);
}

#[test]
fn t6_no_expiry_at_all_falls_back_to_a_quarter_of_an_hour() {
    let lifetime = lifetime_of(r#"{"access_token":"opaque","token_type":"bearer"}"#);
    assert_eq!(lifetime, Duration::from_secs(900));
}

#[test]
fn t7_a_200_that_is_a_failure() {
    assert_refused(&read_ok(
        r#"{"access_token":null,"LoginResult":"False","LoginStatusInfo":"Invalid credentials"}"#,
    ));
    for no in [
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":"x","LoginResult":"False"}"#,
        r#"{"access_token":"x","LoginResult":false}"#,
        r#"{"access_token":"x","LoginResult":1}"#,
        r#"{"access_token":"x","error":"authorization_failed"}"#,
        r#"{"access_token":"x","error":{"code":1}}"#,
        r#"{"Access_Token":"x"}"#,
    ] {
        assert_refused(&read_ok(no));
    }
}

#[test]
fn a_success_may_say_so_in_many_ways() {
    for yes in [
        r#"{"access_token":"x","LoginResult":"TRUE"}"#,
        r#"{"access_token":"x","LoginResult":true,"error":null}"#,
        r#"{"access_token":"x","LoginResult":null,"error":""}"#,
        " {\"access_token\" : \"x\"}\r\n",
        r#"{"access_token":"x","unknown":[{"deep":[[]]}],"unknown":2}"#,
    ] {
        assert!(read_ok(yes).is_ok(), "{yes}");
    }
}

#[test]
fn a_token_of_another_type_than_bearer_is_unusable() {
    for good in
        ["", r#","token_type":"Bearer""#, r#","token_type":"BEARER""#, r#","token_type":null"#]
    {
        assert!(read_ok(&format!(r#"{{"access_token":"x"{good}}}"#)).is_ok(), "{good}");
    }
    for other in [
        r#""""#,
        r#""mac""#,
        r#""DPoP""#,
        r#""bearer x""#,
        r#"" bearer""#,
        "7",
        "true",
        "[\"bearer\"]",
    ] {
        let body = format!(r#"{{"access_token":"x","token_type":{other}}}"#);
        assert!(fault_of(read_ok(&body)).contains("`token_type`"), "{other}");
    }
    let twice = r#"{"access_token":"x","token_type":"bearer","token_type":"mac"}"#;
    assert_eq!(fault_of(read_ok(twice)), "a field of it has a wrong type or occurs twice");
    // A refusal stays a refusal.
    assert_refused(&read_ok(r#"{"error":"no","token_type":"mac"}"#));
}

#[test]
fn t11_a_jwt_tells_its_lifetime_without_verification() {
    let token = read(
        StatusCode::OK,
        &HeaderMap::new(),
        format!(r#"{{"access_token":"{T11}"}}"#).as_bytes(),
        Asked {
            at: Instant::now(),
            clock: SystemTime::UNIX_EPOCH + Duration::from_secs(1_756_891_006),
        },
        YEAR,
    );
    assert_eq!(token.unwrap().lifetime(), WEEK);
}

#[test]
fn the_configured_cap_holds() {
    let body = br#"{"access_token":"x","expires_in":604800}"#;
    let hour = Duration::from_secs(3600);
    let token = read(StatusCode::OK, &HeaderMap::new(), body, asked(), hour).unwrap();
    assert_eq!(token.lifetime(), hour);
}

#[test]
fn html_is_named_as_such() {
    let page = b"<!DOCTYPE html><title>Sign in</title>";
    assert_eq!(fault_of(read_as(200, &[("content-type", "text/HTML; charset=utf-8")], b"x")), HTML);
    assert_eq!(fault_of(read_as(200, &[], page)), HTML);
}

#[test]
fn broken_bodies_are_unusable() {
    let cases: [(&[u8], &str); 14] = [
        (b"", "it is empty"),
        (b" \r\n", "it is empty"),
        (b"[\"x\"]", "it is not a JSON object"),
        (b"[\"x\",null,null,null,null,null]", "it is not a JSON object"),
        (b"\"x\"", "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{\"access_token\":\"x\"}", "it is not a JSON object"),
        (b"{\"access_token\":\"x\"", "its JSON is truncated"),
        (b"{\"access_token\":\"x\"}x", "it is not valid JSON"),
        (b"{\"access_token\":\"x\",\"expires_in\":NaN}", "it is not valid JSON"),
        (b"{\"access_token\":\"\xff\"}", "it is not valid JSON"),
        (b"{\"access_token\":1}", "a field of it has a wrong type or occurs twice"),
        (b"{\"access_token\":[\"x\"]}", "a field of it has a wrong type or occurs twice"),
        (b"{\"access_token\":{\"x\":1}}", "a field of it has a wrong type or occurs twice"),
    ];
    for (body, fault) in cases {
        assert_eq!(fault_of(read_as(200, &[], body)), fault, "{}", String::from_utf8_lossy(body));
    }
    let large = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(MAX_BODY));
    assert_eq!(fault_of(read_ok(&large)), TOO_LARGE);
    let deep = format!(r#"{{"access_token":"x","error":{}"#, "[".repeat(60_000));
    assert_eq!(fault_of(read_ok(&deep)), "it is not valid JSON");
}

#[test]
fn a_byte_order_mark_before_a_reply_is_ignored() {
    let body = "\u{feff}{\"access_token\":\"x\",\"expires_in\":60,\"email\":\"joe@x.io\"}";
    assert_eq!(lifetime_of(body), Duration::from_secs(60));
    assert!(names_another(body.as_bytes(), "jane@x.io"), "its user is still looked at");
    assert_eq!(fault_of(read_ok("\u{feff}")), "it is empty");
    assert_eq!(fault_of(read_ok("\u{feff}<p>")), HTML);
    assert_eq!(fault_of(read_ok("\u{feff}\u{feff}{}")), "it is not a JSON object");
}

#[test]
fn a_field_that_counts_may_not_occur_twice() {
    for twice in [
        r#"{"access_token":"x","access_token":"y"}"#,
        r#"{"access_token":null,"access_token":"y"}"#,
        r#"{"access_token":"x","expires_in":1,"expires_in":2}"#,
        r#"{"access_token":"x","LoginResult":"True","LoginResult":"False"}"#,
        r#"{"access_token":"x","error":null,"error":"no"}"#,
        r#"{"access_token":"x",".expires":"","\u002eexpires":""}"#,
    ] {
        assert_eq!(fault_of(read_ok(twice)), "a field of it has a wrong type or occurs twice");
    }
}

#[test]
fn a_token_that_could_end_its_header_is_unusable() {
    for token in ["x\\r\\nX-Evil: 1", "x y", " x", "x\\u0000", "é", "x\\n", "\\u007f"] {
        let body = format!(r#"{{"access_token":"{token}"}}"#);
        assert_eq!(fault_of(read_ok(&body)), NOT_VISIBLE);
    }
}

#[test]
fn client_errors_are_refusals() {
    for status in [400, 401, 403, 404, 409, 422] {
        assert_refused(&read_as(status, &[], b"{\"access_token\":\"x\"}"));
    }
    let told = read_as(404, &[], b"").unwrap_err().to_string();
    assert!(told.contains("site identifier"), "{told}");
}

#[test]
fn a_404_of_a_web_server_or_proxy_is_a_missing_endpoint_and_one_of_bold_bi_a_refusal() {
    let html = [("content-type", "text/html; charset=utf-8")];
    for (headers, body) in [
        (&html[..], &b"<!DOCTYPE html><h1>Not Found</h1>"[..]),
        (&html[..], b""),
        (&[], b"<html><center>nginx</center></html>"),
        (&[("content-type", "text/plain")], b"404 page not found\n"),
        (&[], b"default backend - 404"),
    ] {
        let missing = read_as(404, headers, body).unwrap_err();
        assert!(matches!(missing, ExchangeErrorKind::EndpointMissing { .. }), "{missing}");
        assert!(missing.to_string().contains("credential was not judged"), "{missing}");
    }
    let far = [&[b'x'; MAX_SAYING][..], b" 404"].concat();
    for body in [
        &b""[..],
        b"{}",
        b"{\"Message\":\"404\"}",
        b"[404]",
        b"\"404\"",
        b"User detail not found",
        &far,
    ] {
        assert_refused(&read_as(404, &[], body));
    }
}

#[test]
fn a_web_server_that_takes_no_post_is_a_missing_endpoint_and_another_405_is_not() {
    let html = ("content-type", "text/html;charset=utf-8");
    for (status, headers) in [
        (501, &[html][..]),
        (501, &[]),
        (405, &[html]),
        (405, &[("allow", "GET, HEAD, OPTIONS, TRACE")]),
        (405, &[("allow", "GET"), ("allow", "HEAD"), ("content-type", "text/plain")]),
        (405, &[("allow", "")]),
    ] {
        let missing = read_as(status, headers, b"").unwrap_err();
        let told = missing.to_string();
        assert!(matches!(missing, ExchangeErrorKind::EndpointMissing { .. }), "{told}");
        assert!(told.contains(&format!("is there ({status}, w")), "{told}");
    }
    for headers in [&[][..], &[("allow", "POST")], &[("allow", "get, post")]] {
        let other = read_as(405, headers, b"").unwrap_err();
        assert!(matches!(other, ExchangeErrorKind::Unusable { .. }), "{other}");
    }
    for status in [500, 502, 503, 504] {
        let down = read_as(status, &[html], b"").unwrap_err();
        assert!(matches!(down, ExchangeErrorKind::Unavailable { .. }), "{down}");
    }
}

#[test]
fn redirects_are_unusable() {
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(fault_of(read_as(status, &[("location", "http://evil")], b"")), REDIRECT);
    }
}

#[test]
fn server_errors_say_when_to_come_back() {
    let cases = [
        ("7", Some(7)),
        ("0", Some(0)),
        ("999999999999", Some(3600)),
        ("Thu, 04 Sep 2025 15:34:20 GMT", Some(60)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
        ("-1", None),
        ("soon", None),
    ];
    for status in [408, 429, 500, 502, 503, 504] {
        for (header, expected) in cases {
            match read_as(status, &[("retry-after", header)], b"{\"access_token\":\"x\"}") {
                Err(ExchangeErrorKind::Unavailable { retry_after, .. }) => {
                    assert_eq!(retry_after, expected.map(Duration::from_secs), "{header}");
                }
                other => panic!("not unavailable: {other:?}"),
            }
        }
    }
}

#[test]
fn no_error_shows_any_of_the_body() {
    let bodies = [
        r#"{"access_token":["canary"]}"#,
        r#"{"access_token":"canary","access_token":"canary"}"#,
        r#"{"access_token":"canary canary"}"#,
        r#"{"access_token":"canary","expires_in":["canary"]}"#,
        r#"{"access_token":"canary","expires_in":0}"#,
        r#"{"access_token":"canary","error":"canary"}"#,
        r#"{"access_token":"canary","LoginResult":"canary"}"#,
        r#"{"canary":"canary"#,
        "<html>canary",
        "canary",
    ];
    for body in bodies {
        for status in [200, 302, 400, 404, 429, 500] {
            if let Err(error) = read_as(status, &[("location", "canary")], body.as_bytes()) {
                assert!(!format!("{error} {error:?} {error:#?}").contains("canary"), "{body}");
            } else {
                panic!("{body} is no token");
            }
        }
    }
    let token = read_ok(r#"{"access_token":"canary"}"#).unwrap();
    assert!(!format!("{token:?} {:?}", token.authorization()).contains("canary"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(status in 100_u16..1000, body in any::<Vec<u8>>()) {
        let _ = read_as(status, &[], &body);
    }

    #[test]
    fn no_lifetime_is_zero_or_above_the_cap(
        expires_in in prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("JSON", |n| n.is_finite()).prop_map(|n| n.to_string()),
            any::<i64>().prop_map(|n| format!("\"{n}\"")),
            "\"[0-9]{1,2}/[0-9]{1,2}/[0-9]{4} [0-9]{1,2}:[0-9]{2}:[0-9]{2} [AP]M\"",
            "\"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z?\"",
        ],
        exp in any::<i64>(),
        iat in any::<i64>(),
        cap in 1_u64..10_000_000,
    ) {
        use base64::Engine;
        let claims = format!(r#"{{"exp":{exp},"iat":{iat}}}"#);
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        for token in ["opaque", &format!("e30.{claims}.x")] {
            let body = format!(r#"{{"access_token":"{token}","expires_in":{expires_in}}}"#);
            let cap = Duration::from_secs(cap);
            let read = read(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), asked(), cap);
            if let Ok(token) = read {
                prop_assert!(!token.lifetime().is_zero() && token.lifetime() <= cap);
            }
        }
    }
}
