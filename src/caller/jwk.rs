//! One entry of a key set (RFC 7517, section 4), and its faults. A key that ring refuses for every
//! token, or that is known to be weak, is not accepted. Pure.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use num_bigint::BigUint;
use ring::agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey, agree_ephemeral};
use ring::rand::SystemRandom;
use serde_json::{Map, Value};

use super::json::Json;

/// A public key that signatures can be checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Jwk {
    pub(super) id: Option<String>,
    /// The only algorithm that it is for; `None` allows any of its family.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Material {
    /// Modulus and exponent, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// An uncompressed point of the curve of this algorithm.
    Ec { algorithm: Algorithm, point: Vec<u8> },
    /// An encoded point of Ed25519.
    Ed(Vec<u8>),
}

/// Why an entry must not be used as a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyFault {
    /// It is not a JSON object.
    #[error("it is not a JSON object")]
    NoMapping,
    /// Two readers may take different values.
    #[error("a member name occurs twice in it")]
    Repeated,
    /// A member is missing or has a wrong type.
    #[error("its `{0}` is missing or of a wrong type (RFC 7517, RFC 7518)")]
    Member(&'static str),
    /// A member is not an encoded number or coordinate.
    #[error("its `{0}` is not base64url, or has the wrong length")]
    Number(&'static str),
    /// Its algorithm does not fit its kind.
    #[error("its `alg` does not fit its `kty`")]
    Algorithm,
    /// It is weaker than the standard allows, or larger than ring accepts.
    #[error(
        "its modulus has {0} bits, of which 2,048 to 8,192 are accepted (RFC 7518, section 3.3)"
    )]
    ModulusSize(usize),
    /// No product of two large primes is even.
    #[error("its modulus is even")]
    EvenModulus,
    /// With an exponent of 1 every text is its own signature. An even exponent is never valid.
    #[error("its exponent is not an odd number from 3 to 2^33 - 1")]
    Exponent,
    /// With such a point no signature is valid, or forged ones are.
    #[error("its point is not on the curve")]
    OffCurve,
    /// Signatures can be made for such a point without a private key.
    #[error("its point has a small order, so anybody can sign for it")]
    SmallOrder,
    /// Every reader of the set can sign with it.
    #[error(
        "it is a private or shared key: every reader of the set can sign with it, so it must be \
         replaced"
    )]
    Private,
    /// It is the public half of a private key in the same set.
    #[error("its private key is published in the same set")]
    PrivateElsewhere,
    /// The set is too long.
    #[error("it and all later keys exceed the {} keys that are read", MAX_KEYS)]
    TooMany,
}

impl KeyFault {
    /// Whether a secret of the issuer is known to everybody.
    pub(super) fn is_leak(&self) -> bool {
        matches!(self, Self::Private)
    }
}

/// Reads an entry; `None` if the key is not for signatures, or of an unknown kind.
///
/// # Errors
/// When it is a key for signatures that must not be used.
pub(super) fn read(entry: &Json) -> Result<Option<Jwk>, KeyFault> {
    let members = mapping(entry)?;
    if is_private(members) {
        return Err(KeyFault::Private);
    }
    if entry.repeats {
        return Err(KeyFault::Repeated);
    }
    let id = text(members, "kid")?.map(str::to_owned);
    let named = match text(members, "alg")?.map(algorithm) {
        Some(None) => return Ok(None),
        named => named.flatten(),
    };
    if !verifies(members)? {
        return Ok(None);
    }
    let Some(material) = material(members)? else { return Ok(None) };
    if named.is_some_and(|named| !material.is_for(named)) {
        return Err(KeyFault::Algorithm);
    }
    material.check()?;
    let algorithm = named.or(material.only_algorithm());
    Ok(Some(Jwk { id, algorithm, material }))
}

/// The algorithm of this name; `None` if it is unknown. `Ed25519` is `EdDSA` with the one curve
/// that we support (RFC 9864).
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}

/// The public half of a private key; `None` if it has none.
pub(super) fn public_half(entry: &Json) -> Option<Material> {
    material(mapping(entry).ok()?).ok()?
}

/// The `kid` of an entry.
pub(super) fn id(entry: &Json) -> Option<&str> {
    entry.value.get("kid")?.as_str()
}

fn mapping(entry: &Json) -> Result<&Map<String, Value>, KeyFault> {
    entry.value.as_object().ok_or(KeyFault::NoMapping)
}

/// Symmetric keys are secrets too: a public set must not hold one.
fn is_private(members: &Map<String, Value>) -> bool {
    let has = |name: &&str| members.get(*name).is_some_and(|value| !value.is_null());
    let of_its_kind: &[&str] = match members.get("kty").and_then(Value::as_str) {
        Some("RSA") => &PRIVATE_RSA_MEMBERS,
        Some("oct") => &["k"],
        _ => &[],
    };
    PRIVATE_MEMBERS.iter().chain(of_its_kind).any(has)
}

/// A text member; `None` if it is absent, or null as some libraries write it.
fn text<'m>(
    members: &'m Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'m str>, KeyFault> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyFault::Member(name)),
    }
}

/// Whether the key is for checking signatures (RFC 7517, sections 4.2 and 4.3).
fn verifies(members: &Map<String, Value>) -> Result<bool, KeyFault> {
    let operations = match members.get("key_ops") {
        None | Some(Value::Null) => None,
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => Some(all),
        Some(_) => return Err(KeyFault::Member("key_ops")),
    };
    let is_for_signatures = text(members, "use")? != Some("enc");
    Ok(is_for_signatures && operations.is_none_or(|all| all.iter().any(|one| one == "verify")))
}

/// `None` for unknown kinds of keys and curves.
fn material(members: &Map<String, Value>) -> Result<Option<Material>, KeyFault> {
    let kind = text(members, "kty")?.ok_or(KeyFault::Member("kty"))?;
    let curve = || text(members, "crv").and_then(|curve| curve.ok_or(KeyFault::Member("crv")));
    Ok(Some(match kind {
        "RSA" => Material::Rsa {
            n: without_zeros(&bytes(members, "n")?).to_vec(),
            e: without_zeros(&bytes(members, "e")?).to_vec(),
        },
        "EC" => {
            let (algorithm, length) = match curve()? {
                "P-256" => (Algorithm::ES256, 32),
                "P-384" => (Algorithm::ES384, 48),
                _ => return Ok(None),
            };
            let mut point = vec![0x04];
            point.extend(coordinate(members, "x", length)?);
            point.extend(coordinate(members, "y", length)?);
            Material::Ec { algorithm, point }
        }
        "OKP" if curve()? == "Ed25519" => {
            let point = bytes(members, "x")?;
            if point.len() != ED25519_BYTES {
                return Err(KeyFault::Number("x"));
            }
            Material::Ed(point)
        }
        _ => return Ok(None),
    }))
}

fn bytes(members: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyFault> {
    let text = text(members, name)?.ok_or(KeyFault::Member(name))?;
    BASE64_URL.decode(text).map_err(|_| KeyFault::Number(name))
}

/// A coordinate of the curve's length. Some libraries write leading zeros differently.
fn coordinate(
    members: &Map<String, Value>,
    name: &'static str,
    length: usize,
) -> Result<Vec<u8>, KeyFault> {
    let bytes = bytes(members, name)?;
    let digits = without_zeros(&bytes);
    let zeros = length.checked_sub(digits.len()).ok_or(KeyFault::Number(name))?;
    Ok([&vec![0; zeros], digits].concat())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}

impl Material {
    pub(super) fn decoding_key(&self) -> DecodingKey {
        match self {
            Self::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Self::Ec { point, .. } => DecodingKey::from_ec_der(point),
            Self::Ed(point) => DecodingKey::from_ed_der(point),
        }
    }

    /// A curve has one algorithm, an RSA key may serve several.
    fn only_algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Rsa { .. } => None,
            Self::Ec { algorithm, .. } => Some(*algorithm),
            Self::Ed(_) => Some(Algorithm::EdDSA),
        }
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        match self.only_algorithm() {
            Some(only) => only == algorithm,
            None => algorithm.family() == AlgorithmFamily::Rsa,
        }
    }

    fn check(&self) -> Result<(), KeyFault> {
        match self {
            Self::Rsa { n, e } => check_rsa(n, e),
            Self::Ec { algorithm: Algorithm::ES384, point } => is_on_curve(&ECDH_P384, point),
            Self::Ec { point, .. } => is_on_curve(&ECDH_P256, point),
            Self::Ed(point) => check_ed25519(point),
        }
    }
}

/// The bounds of ring, and of the standard where it is stricter.
fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyFault> {
    let unused = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = n.len() * 8 - unused;
    if !MODULUS_BITS.contains(&bits) {
        return Err(KeyFault::ModulusSize(bits));
    }
    if n.last().is_none_or(|byte| byte % 2 == 0) {
        return Err(KeyFault::EvenModulus);
    }
    let exponent =
        (e.len() <= 5).then(|| e.iter().fold(0u64, |value, &b| value << 8 | u64::from(b)));
    match exponent {
        Some(value) if value % 2 == 1 && EXPONENTS.contains(&value) => Ok(()),
        _ => Err(KeyFault::Exponent),
    }
}

/// A key agreement with the point, whose result is dropped: ring checks the point first.
fn is_on_curve(curve: &'static agreement::Algorithm, point: &[u8]) -> Result<(), KeyFault> {
    let own = EphemeralPrivateKey::generate(curve, &SystemRandom::new());
    let peer = agreement::UnparsedPublicKey::new(curve, point);
    own.and_then(|own| agree_ephemeral(own, &peer, |_| ())).map_err(|_| KeyFault::OffCurve)
}

/// Whether there is an `x` for the point's `y` (RFC 8032, section 5.1.3). Its square is the
/// quotient of `y^2 - 1` and `d y^2 + 1`. It has a root if their product has one, which Euler's
/// criterion decides. With a point that is off the curve, ring merely refuses every signature.
fn check_ed25519(point: &[u8]) -> Result<(), KeyFault> {
    let mut y = point.to_vec();
    if let Some(last) = y.last_mut() {
        // The upper bit is the sign of `x`.
        *last &= 0x7f;
    }
    let y = BigUint::from_bytes_le(&y);
    let one = BigUint::from(1u8);
    let p = (&one << 255u8) - 19u8;
    if y >= p {
        return Err(KeyFault::OffCurve);
    }
    let number = |digits: &str| BigUint::parse_bytes(digits.as_bytes(), 16);
    let is_small =
        y <= one || y == &p - &one || SMALL_ORDER.iter().any(|s| number(s).as_ref() == Some(&y));
    if is_small {
        return Err(KeyFault::SmallOrder);
    }
    let d = number(D).ok_or(KeyFault::OffCurve)?;
    let square = &y * &y % &p;
    let product = (&square - &one) * (d * &square + &one);
    let criterion = product.modpow(&((&p - &one) >> 1u8), &p);
    if criterion == one { Ok(()) } else { Err(KeyFault::OffCurve) }
}

/// Some libraries add the padding that RFC 7515, section 2, forbids.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Most keys of a set, more than any issuer publishes. Each is checked, which takes time.
pub(super) const MAX_KEYS: usize = 256;
pub(super) const READ_MEMBERS: [&str; 19] = [
    "kty", "kid", "use", "key_ops", "alg", "crv", "n", "e", "x", "y", "k", "d", "priv", "p", "q",
    "dp", "dq", "qi", "oth",
];
/// Members of private keys (RFC 7518, section 6; RFC 8037, section 2; `priv` is that of new kinds).
const PRIVATE_MEMBERS: [&str; 2] = ["d", "priv"];
const PRIVATE_RSA_MEMBERS: [&str; 6] = ["p", "q", "dp", "dq", "qi", "oth"];
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const EXPONENTS: std::ops::Range<u64> = 3..1 << 33;
const ED25519_BYTES: usize = 32;
/// The constant of Ed25519, -121665/121666.
const D: &str = "52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3";
/// The `y` of the points of order 8. For orders 1, 2 and 4 it is 1, -1 and 0.
const SMALL_ORDER: [&str; 2] = [
    "05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
    "7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
];
