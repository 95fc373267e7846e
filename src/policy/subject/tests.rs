use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::caller::ClientCertificate;

fn mapping() -> SubjectMapping {
    SubjectMapping {
        source: SubjectSource::Claim("email".into()),
        map: None,
        template: None,
        domains: vec!["acme.example".into()],
        never: vec!["admin@acme.example".into()],
    }
}

fn peer(address: [u8; 4]) -> PeerInfo {
    PeerInfo { address: Some(address.into()), ..PeerInfo::default() }
}

fn by_claims(mapping: &SubjectMapping, claims: Value) -> Result<String, SubjectError> {
    let caller = Caller::with_claims("portal", claims);
    let subject = mapping.subject(&caller, &peer([192, 0, 2, 1]), &HeaderMap::new());
    subject.map(|subject| subject.to_string())
}

#[test]
fn a_claim_names_the_user_as_it_stands_within_the_domains() {
    let mapped = |claims| by_claims(&mapping(), claims);
    assert_eq!(mapped(json!({"email": "jane@acme.example"})).unwrap(), "jane@acme.example");
    assert_eq!(mapped(json!({"email": "Jane@ACME.example"})).unwrap(), "Jane@ACME.example");
    for (claims, why) in [
        (json!({}), SubjectError::Absent),
        (json!({"email": null}), SubjectError::Absent),
        (json!({"email": 7}), SubjectError::Absent),
        (json!({"email": ["jane@acme.example"]}), SubjectError::Absent),
        (json!({"email": ""}), SubjectError::Absent),
        (json!({"email": "jane"}), SubjectError::Malformed),
        (json!({"email": "jane@acme.example,admin@acme.example"}), SubjectError::Malformed),
        (json!({"email": "jane@acme.example "}), SubjectError::Malformed),
        (json!({"email": "jane@acme.example\n"}), SubjectError::Malformed),
        (json!({"email": "jane@acme.example\u{0}"}), SubjectError::Malformed),
        (json!({"email": "Jane <jane@acme.example>"}), SubjectError::Malformed),
        (json!({"email": "\"a b\"@acme.example"}), SubjectError::Malformed),
        (json!({"email": "jane@[192.0.2.1]"}), SubjectError::Malformed),
        (json!({"email": "jürgen@acme.example"}), SubjectError::Malformed),
        (json!({"email": "jane@bücher.example"}), SubjectError::Malformed),
        (json!({"email": "jane@acme.example.evil.example"}), SubjectError::Domain),
        (json!({"email": "jane@evilacme.example"}), SubjectError::Domain),
        (json!({"email": "jane@sub.acme.example"}), SubjectError::Domain),
        (json!({"email": "admin@acme.example"}), SubjectError::Never),
        (json!({"email": "ADMIN@Acme.Example"}), SubjectError::Never),
        // Fold to `admin` and `acme` with some servers.
        (json!({"email": "adm\u{131}n@acme.example"}), SubjectError::Malformed),
        (json!({"email": "admin@\u{ff41}cme.example"}), SubjectError::Malformed),
        (json!({"email": "jane@acme.example", "email_verified": false}), SubjectError::Unverified),
        (json!({"email": "jane@acme.example", "email_verified": "no"}), SubjectError::Unverified),
        (json!({"Email": "jane@acme.example"}), SubjectError::Absent),
    ] {
        assert_eq!(mapped(claims.clone()), Err(why), "{claims}");
    }
    for verified in [json!(true), json!("true")] {
        let claims = json!({"email": "jane@acme.example", "email_verified": verified});
        assert!(mapped(claims).is_ok());
    }
}

#[test]
fn a_map_decides_alone_unless_there_is_a_template() {
    let known = Subject::parse("boss@acme.example").unwrap();
    let map = HashMap::from([("42".to_owned(), known)]);
    let only_map = SubjectMapping {
        source: SubjectSource::Claim("sub".into()),
        map: Some(map),
        domains: Vec::new(),
        ..mapping()
    };
    let mapped = |mapping: &SubjectMapping, sub: &str| by_claims(mapping, json!({"sub": sub}));
    assert_eq!(mapped(&only_map, "42").unwrap(), "boss@acme.example");
    assert_eq!(mapped(&only_map, "jane@acme.example"), Err(SubjectError::Unmapped));
    let both = SubjectMapping { template: Template::parse("u-{value}@acme.example"), ..only_map };
    assert_eq!(mapped(&both, "42").unwrap(), "boss@acme.example");
    assert_eq!(mapped(&both, "jane").unwrap(), "u-jane@acme.example");
    for value in ["", "a@evil.example", "a@", ".", "a..b", "a b", "{value}@x.example"] {
        assert!(mapped(&both, value).is_err(), "{value}");
    }
}

#[test]
fn a_template_keeps_the_domain_out_of_the_values_reach() {
    for wrong in [
        "",
        "{value}",
        "{value}@",
        "a@acme.example",
        "x@{value}",
        "a@b.example{value}",
        "{value}{value}@a.example",
    ] {
        assert_eq!(Template::parse(wrong), None, "{wrong}");
    }
    assert!(Template::parse("{value}@acme.example").is_some());
}

#[test]
fn a_header_is_believed_once_and_of_a_listed_proxy_only() {
    let name = HeaderName::from_static("x-user");
    let from = vec![TrustedProxy::Network("10.0.0.0/31".parse().unwrap())];
    let mapping =
        SubjectMapping { source: SubjectSource::Header { name: name.clone(), from }, ..mapping() };
    // With a JWT or without: the header alone counts.
    let caller = Caller::with_claims("proxy", json!({"email": "other@acme.example"}));
    let ask = |address, values: &[&'static str]| {
        let values = values.iter().map(|v| (name.clone(), http::HeaderValue::from_static(v)));
        let mut headers = HeaderMap::new();
        values.for_each(|(name, value)| _ = headers.append(name, value));
        mapping.subject(&caller, &peer(address), &headers).map(|s| s.to_string())
    };
    let (proxy, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    assert_eq!(ask(proxy, &["jane@acme.example"]).unwrap(), "jane@acme.example");
    assert_eq!(ask(other, &["jane@acme.example"]), Err(SubjectError::Untrusted));
    assert_eq!(ask(proxy, &[]), Err(SubjectError::Absent));
    let twice = ["jane@acme.example", "joe@acme.example"];
    assert_eq!(ask(proxy, &twice), Err(SubjectError::Several));
    assert_eq!(ask(proxy, &["jane@acme.example, joe@acme.example"]), Err(SubjectError::Malformed));
    assert_eq!(ask(proxy, &[""]), Err(SubjectError::Absent));
    let unix = PeerInfo::default();
    let headers = HeaderMap::from_iter([(name.clone(), "jane@acme.example".parse().unwrap())]);
    assert_eq!(mapping.subject(&caller, &unix, &headers), Err(SubjectError::Untrusted));
}

/// Addresses, near misses of them, and anything at all.
fn value() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "jane", "admin", "ADMIN", "@", "@", "acme.example", "ACME.EXAMPLE", "evil.example",
            ".", ",", " ", "\n", "\0", "\u{130}", "\u{17f}", "%40", "&username=", "{value}", "+x",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn rule() -> impl Strategy<Value = SubjectMapping> {
    let map = prop::option::of(prop::sample::select(vec!["jane", "admin", "42"]));
    let template = prop::option::of(Just(Template::parse("{value}@acme.example").unwrap()));
    (map, template, any::<bool>()).prop_map(|(key, template, bounded)| SubjectMapping {
        map: key.map(|key| {
            HashMap::from([(key.to_owned(), Subject::parse("joe@acme.example").unwrap())])
        }),
        domains: if bounded { mapping().domains } else { Vec::new() },
        template,
        ..mapping()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    /// Any claim gives an address that the rule allows, made of the value as the rule says, or
    /// nothing.
    #[test]
    fn no_spelling_of_a_value_leads_to_a_user_whom_the_rule_does_not_allow(
        rule in rule(),
        value in value(),
    ) {
        let Ok(subject) = by_claims(&rule, json!({"email": value.clone()})) else { return Ok(()) };
        prop_assert_eq!(subject.matches('@').count(), 1);
        prop_assert!(subject.bytes().all(|b| b.is_ascii_graphic() && !b",;<>()[]\\:\"".contains(&b)));
        let lower = subject.to_ascii_lowercase();
        prop_assert_ne!(&lower, "admin@acme.example");
        let (local, domain) = lower.split_once('@').unwrap();
        prop_assert!(!local.is_empty() && domain.contains('.'));
        if !rule.domains.is_empty() || rule.template.is_some() {
            prop_assert_eq!(domain, "acme.example");
        }
        let mapped = rule.map.as_ref().and_then(|map| map.get(&value));
        let expected = match (mapped, &rule.template) {
            (Some(known), _) => known.to_string(),
            (None, Some(_)) => format!("{value}@acme.example"),
            (None, None) => value,
        };
        prop_assert_eq!(subject, expected);
    }
}

#[test]
fn a_header_is_believed_of_a_listed_certificate_wherever_it_comes_from() {
    let certificate = |name: &str| {
        let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Arc::new(ClientCertificate::from_der(own.cert.der()))
    };
    let name = HeaderName::from_static("x-user");
    let from = vec![
        TrustedProxy::Certificate(CertificateName::dns("proxy.acme.example").unwrap()),
        TrustedProxy::Network("10.0.0.0/31".parse().unwrap()),
    ];
    let mapping =
        SubjectMapping { source: SubjectSource::Header { name: name.clone(), from }, ..mapping() };
    let caller = Caller::with_claims("proxy", json!({}));
    let headers = HeaderMap::from_iter([(name, "jane@acme.example".parse().unwrap())]);
    let ask = |peer: PeerInfo| mapping.subject(&caller, &peer, &headers).map(|s| s.to_string());
    let with =
        |name: &str, address| PeerInfo { certificate: Some(certificate(name)), ..peer(address) };
    let (listed, elsewhere) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let jane = Ok("jane@acme.example".to_owned());
    assert_eq!(ask(with("proxy.acme.example", elsewhere)), jane);
    assert_eq!(ask(with("other.example", listed)), jane, "one of them is enough");
    let untrusted = Err(SubjectError::Untrusted);
    for other in ["other.example", "a.proxy.acme.example", "*.acme.example", "acme.example"] {
        assert_eq!(ask(with(other, elsewhere)), untrusted, "{other}");
    }
    assert_eq!(ask(peer(elsewhere)), untrusted);
}
