use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use serde_json::{Value, json};

use super::*;

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({ "kty": "RSA", "kid": "r", "n": encoded(n), "e": encoded(e) })
}

/// An odd number of this many bits. Its factors do not matter.
fn modulus(bits: usize) -> Vec<u8> {
    let mut n = vec![0xff; bits.div_ceil(8)];
    n[0] >>= (8 - bits % 8) % 8;
    n
}

fn ec(curve: &str, point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at(point.len() / 2);
    json!({ "kty": "EC", "crv": curve, "kid": "e", "x": encoded(x), "y": encoded(y) })
}

fn ed(point: &[u8]) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "o", "x": encoded(point) })
}

fn new_ed() -> Vec<u8> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap().public_key().as_ref().to_vec()
}

fn new_ec(curve: &str) -> Vec<u8> {
    let signing = match curve {
        "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
        _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
    };
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref(), &random).unwrap();
    pair.public_key().as_ref().to_vec()
}

fn with(key: &Value, name: &str, value: Value) -> Value {
    let mut key = key.clone();
    key[name] = value;
    key
}

/// The `y` of a point, least byte first, which is how Ed25519 writes it.
fn y(first: u8, rest: u8, last: u8) -> Vec<u8> {
    let mut point = vec![rest; 32];
    (point[0], point[31]) = (first, last);
    point
}

/// Asserts that none of these is used, beside a good one that is, and that each is named.
fn assert_left_out(keys: &[Value], why: &KeyFault) {
    let good = ed(&new_ed());
    for key in keys {
        let set = set(&[good.clone(), key.clone()]);
        assert_eq!(set.keys.len(), 1, "{key}");
        let [left_out] = set.left_out() else { panic!("{key}: {:?}", set.left_out()) };
        assert_eq!((left_out.number, &left_out.why), (2, why), "{key}");
        let alone = KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap();
        assert_eq!(alone.with_keys().unwrap_err(), KeySetError::Empty, "{key}");
    }
}

#[test]
fn rsa_keys_that_are_weak_or_that_ring_refuses_are_left_out() {
    let (n, e) = (modulus(2048), [1, 0, 1]);
    for bits in [512, 1024, 2040, 2047, 8193, 16384] {
        assert_left_out(&[rsa(&modulus(bits), &e)], &KeyFault::ModulusSize(bits));
    }
    assert_left_out(&[rsa(&[], &e), rsa(&[0, 0], &e)], &KeyFault::ModulusSize(0));
    let mut even = n.clone();
    even[255] = 0xfe;
    assert_left_out(&[rsa(&even, &e)], &KeyFault::EvenModulus);
    let exponents: [&[u8]; 8] =
        [&[], &[0], &[1], &[0, 1], &[2], &[1, 0, 0], &[2, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 1]];
    assert_left_out(&exponents.map(|e| rsa(&n, e)), &KeyFault::Exponent);
    // Some libraries pad base64url. The key is accepted.
    let padded = json!({ "kty": "RSA", "n": format!("{}==", encoded(&n)), "e": "Aw==" });
    assert_eq!(set(&[padded]).keys.len(), 1);
    // Controls: the bounds themselves.
    for bits in [2048, 3072, 8192] {
        assert_eq!(set(&[rsa(&modulus(bits), &e)]).keys.len(), 1, "{bits}");
    }
    for e in [&[3][..], &[1, 0, 1], &[0, 1, 0, 1], &[1, 0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(set(&[rsa(&n, e)]).keys.len(), 1, "{e:?}");
    }
}

#[test]
fn points_off_their_curve_and_points_of_small_order_are_left_out() {
    for curve in ["P-256", "P-384"] {
        let point = new_ec(curve);
        let mut off = point.clone();
        *off.last_mut().unwrap() ^= 1;
        let (mut zero, mut high) = (vec![0; point.len()], vec![0xff; point.len()]);
        (zero[0], high[0]) = (4, 4);
        let all = [ec(curve, &off), ec(curve, &zero), ec(curve, &high)];
        assert_left_out(&all, &KeyFault::OffCurve);
        for _ in 0..20 {
            assert_eq!(set(&[ec(curve, &new_ec(curve))]).keys.len(), 1);
        }
    }
    // These small numbers are the `y` of no point. The last ones are 2^255 - 19 and more, which is
    // out of range.
    let off = [
        y(2, 0, 0),
        y(7, 0, 0),
        y(8, 0, 0x80),
        y(11, 0, 0),
        y(0xed, 0xff, 0x7f),
        y(0xff, 0xff, 0xff),
    ];
    assert_left_out(&off.map(|point| ed(&point)), &KeyFault::OffCurve);
    let of_order_8 = [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ];
    let bytes = |hex: &str| -> Vec<u8> {
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let small = [y(0, 0, 0), y(0, 0, 0x80), y(1, 0, 0), y(1, 0, 0x80), y(0xec, 0xff, 0x7f)];
    let small = small.into_iter().chain(of_order_8.map(bytes)).map(|point| ed(&point));
    assert_left_out(&small.collect::<Vec<_>>(), &KeyFault::SmallOrder);
    for _ in 0..100 {
        assert_eq!(set(&[ed(&new_ed())]).keys.len(), 1);
    }
}

#[test]
fn numbers_of_the_wrong_length_and_members_of_the_wrong_type_are_left_out() {
    let (p256, o, r) = (ec("P-256", &new_ec("P-256")), ed(&new_ed()), rsa(&modulus(2048), &[3]));
    let long = json!(encoded([1; 33]));
    assert_left_out(
        &[with(&p256, "x", long.clone()), with(&o, "x", long), with(&o, "x", json!("a b"))],
        &KeyFault::Number("x"),
    );
    assert_left_out(
        &[with(&p256, "y", json!(1)), with(&p256, "y", json!(null))],
        &KeyFault::Member("y"),
    );
    assert_left_out(&[with(&o, "kid", json!(1))], &KeyFault::Member("kid"));
    assert_left_out(&[with(&o, "alg", json!([]))], &KeyFault::Member("alg"));
    assert_left_out(&[with(&o, "use", json!({}))], &KeyFault::Member("use"));
    assert_left_out(&[with(&r, "key_ops", json!("verify"))], &KeyFault::Member("key_ops"));
    assert_left_out(&[json!(null), json!(1), json!("x"), json!([])], &KeyFault::NoMapping);
    let alg = |key: &Value, alg: &str| with(key, "alg", json!(alg));
    assert_left_out(
        &[
            alg(&r, "ES256"),
            alg(&r, "HS256"),
            alg(&p256, "ES384"),
            alg(&p256, "RS256"),
            alg(&o, "ES256"),
        ],
        &KeyFault::Algorithm,
    );
    let twice = r#"{"keys":[{"kty":"OKP","kty":"OKP","crv":"Ed25519","x":""}]}"#;
    assert_eq!(KeySet::parse(twice.as_bytes()).unwrap().left_out()[0].why, KeyFault::Repeated);
}

#[test]
fn keys_that_are_not_for_signatures_are_ignored() {
    let (o, r) = (ed(&new_ed()), rsa(&modulus(2048), &[3]));
    for key in [
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": "AA" }),
        json!({ "kty": "new" }),
        with(&r, "use", json!("enc")),
        with(&r, "alg", json!("RSA-OAEP-256")),
        with(&r, "key_ops", json!(["encrypt", "wrapKey"])),
        // It is too short as well, but for encryption, so it is ignored.
        with(&rsa(&modulus(1024), &[3]), "use", json!("enc")),
    ] {
        let set = set(&[o.clone(), key.clone()]);
        assert_eq!((set.keys.len(), set.left_out().len()), (1, 0), "{key}");
    }
    for key in [
        with(&r, "use", json!("sig")),
        with(&r, "key_ops", json!(["verify"])),
        with(&o, "alg", json!("Ed25519")),
    ] {
        assert_eq!(set(std::slice::from_ref(&key)).keys.len(), 1, "{key}");
    }
}

#[test]
fn a_private_key_is_left_out_wherever_its_public_half_stands() {
    let (p256, o, r) = (ec("P-256", &new_ec("P-256")), ed(&new_ed()), rsa(&modulus(2048), &[3]));
    assert_left_out(
        &[
            with(&o, "d", json!("AA")),
            with(&p256, "d", json!("AA")),
            with(&r, "d", json!("AA")),
            with(&r, "dp", json!("AA")),
            with(&r, "oth", json!([])),
            with(&with(&r, "use", json!("enc")), "q", json!(1)),
            json!({ "kty": "oct", "k": "c2VjcmV0" }),
            json!({ "kty": "new", "priv": "AA" }),
        ],
        &KeyFault::Private,
    );
    for key in [&o, &p256, &r] {
        let renamed = with(key, "kid", json!("another name"));
        let set = set(&[renamed, ed(&new_ed()), with(key, "d", json!("AA"))]);
        assert_eq!(set.keys.len(), 1, "{key}");
        let why: Vec<_> = set.left_out().iter().map(|key| (key.number, key.is_leak())).collect();
        assert_eq!(why, [(3, true), (1, false)], "{key}");
        // Control: a member that is null is not there.
        let nothing = with(key, "d", json!(null));
        assert_eq!(
            KeySet::parse(json!({ "keys": [nothing] }).to_string().as_bytes()).unwrap().keys.len(),
            1
        );
    }
}

#[test]
fn a_left_out_key_is_described_on_one_short_line() {
    let key =
        with(&rsa(&modulus(1024), &[3]), "kid", json!(format!("a\n\u{1b}`{}", "k".repeat(100))));
    let told = set(&[key]).left_out()[0].to_string();
    assert!(told.starts_with("key 1 (`kid` `a\\n\\u{1b}`kkk"), "{told}");
    assert!(told.ends_with("…`): its modulus has 1024 bits, of which 2,048 to 8,192 are accepted (RFC 7518, section 3.3)"), "{told}");
    assert!(!told.contains(char::is_control) && told.len() < 200, "{told}");
    let nameless = with(&ed(&[0; 32]), "kid", json!(null));
    assert!(set(&[nameless]).left_out()[0].to_string().starts_with("key 1: its point"));
}

#[test]
fn of_a_set_that_is_too_long_only_the_first_keys_are_used() {
    let keys: Vec<_> = (0..MAX_KEYS + 10).map(|_| ed(&new_ed())).collect();
    let set = set(&keys);
    assert_eq!(set.keys.len(), MAX_KEYS);
    let [left_out] = set.left_out() else { panic!("{:?}", set.left_out()) };
    assert_eq!((left_out.number, &left_out.why), (MAX_KEYS + 1, &KeyFault::TooMany));
}

/// The bytes of a set of two keys: an odd one, to which `more` is added, and a good one.
fn beside_a_good_key(more: &[u8]) -> Vec<u8> {
    let [mut odd, good] = [ed(&new_ed()), ed(&new_ed())].map(|key| key.to_string().into_bytes());
    odd.pop();
    [b"{\"keys\":[", &odd[..], b",", more, b"},", &good, b"]}"].concat()
}

#[test]
fn odd_values_of_unused_members_affect_no_key() {
    let digits = format!("\"iat\":{}", "9".repeat(400));
    let deep = format!("\"z\":{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let odd: [&[u8]; 10] = [
        br#""z":1"#,
        br#""x5t":"\ud800""#,
        br#""\udc00":1,"\ud800":1"#,
        br#""iat":1e999"#,
        br#""iat":-1e-999"#,
        digits.as_bytes(),
        deep.as_bytes(),
        b"\"z\":\"caf\xe9\",\"caf\xe9\":1",
        br#""z":{"a":1,"a":2},"z":1"#,
        b"\"z\":\"\xff\xfe\xed\xa0\x80\"",
    ];
    for more in odd {
        let said = String::from_utf8_lossy(more);
        let set = KeySet::parse(&beside_a_good_key(more)).unwrap_or_else(|e| panic!("{said}: {e}"));
        assert_eq!((set.keys.len(), set.left_out()), (2, &[][..]), "{said}");
    }
    let around = String::from_utf8(beside_a_good_key(br#""z":1"#)).unwrap();
    for beside in [r#""iat":1e999"#, r#""\ud800":[{}]"#, r#""x":"\udc00""#] {
        let document = around.replacen('{', &format!("{{{beside},"), 1);
        assert_eq!(KeySet::parse(document.as_bytes()).unwrap().keys.len(), 2, "{beside}");
    }
}

#[test]
fn odd_values_of_used_members_affect_only_their_own_key() {
    let deep = format!("\"use\":{}{}", "[".repeat(200), "]".repeat(200));
    for (more, why) in [
        (&br#""use":"\ud800""#[..], KeyFault::Member("use")),
        (br#""alg":1e999"#, KeyFault::Member("alg")),
        (deep.as_bytes(), KeyFault::Member("use")),
        (br#""\u006bid":"o""#, KeyFault::Repeated),
        (br#""key_ops":["\udc00"]"#, KeyFault::Member("key_ops")),
        // An unreadable member may be a private key too.
        (br#""d":"\ud800""#, KeyFault::Private),
        (br#""d":1e999"#, KeyFault::Private),
    ] {
        let said = String::from_utf8_lossy(more);
        let set = KeySet::parse(&beside_a_good_key(more)).unwrap_or_else(|e| panic!("{said}: {e}"));
        assert_eq!(set.keys.len(), 1, "{said}");
        let [left_out] = set.left_out() else { panic!("{said}: {:?}", set.left_out()) };
        assert_eq!((left_out.number, &left_out.why), (1, &why), "{said}");
    }
}

#[test]
fn a_byte_order_mark_before_a_set_is_ignored_and_other_documents_are_refused() {
    let good = beside_a_good_key(br#""z":1"#);
    let marked = [b"\xef\xbb\xbf", &good[..]].concat();
    assert_eq!(KeySet::parse(&marked).unwrap().keys.len(), 2);
    let twice = [b"\xef\xbb\xbf", &marked[..]].concat();
    let (whole, all) = (&good[..], good.len() - 1);
    for document in [
        &twice[..],
        &whole[..all],
        &[whole, b"x"].concat(),
        b"",
        b"{}",
        b"[]",
        b"[[]]",
        br#"{"keys":null}"#,
        br#"{"keys":{}}"#,
        br#"{"keys":[],"keys":[]}"#,
        br#"{"keys":[{]}"#,
        br#"{"keys":[NaN]}"#,
    ] {
        let said = String::from_utf8_lossy(document);
        assert_eq!(KeySet::parse(document).unwrap_err(), KeySetError::Malformed, "{said}");
    }
}
