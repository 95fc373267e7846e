//! The credentials of callers as they are written.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::SecretSource;
use crate::config::field::Field;
use crate::config::quantity::Period;
use crate::config::redact::{hidden, without_query};

/// An API key, known by its hash (`sha256`) or read from where it is kept (`key`): exactly one of
/// these.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKey {
    /// Where the key itself is kept, as `boldgate key` has made it: for a Kubernetes Secret that
    /// the application has too. Only its hash stays in memory.
    #[serde(default)]
    pub key: Field<SecretSource>,
    /// SHA-256 of the key as `boldgate key` prints it.
    #[serde(default)]
    #[serde(serialize_with = "hidden")]
    #[schemars(extend("pattern" = "^[0-9a-fA-F]{64}$"))]
    pub sha256: Field<String>,
    /// The time from which on it no longer counts.
    #[serde(default)]
    #[schemars(extend("format" = "date-time"), example = "2027-01-31T00:00:00Z")]
    pub expires: Field<String>,
}

/// A client certificate, known by a name that its CA vouches for or by its fingerprint: exactly one
/// of these.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct Certificate {
    /// A DNS name among its alternative names (SAN); no wildcards.
    #[serde(default)]
    #[schemars(example = "reports.acme.example")]
    pub san_dns: Field<String>,
    /// A URI among its alternative names (SAN), exactly.
    #[serde(default)]
    #[schemars(example = "spiffe://acme.example/reports")]
    pub san_uri: Field<String>,
    /// An e-mail address among its alternative names (SAN).
    #[serde(default, serialize_with = "hidden")]
    pub san_email: Field<String>,
    /// SHA-256 of the whole certificate, as `openssl x509 -noout -fingerprint -sha256` prints it.
    #[serde(default)]
    pub sha256: Field<String>,
}

/// Processes on this machine, as the kernel reports them. They must match all keys given here.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct UnixProcess {
    /// Number of their effective user.
    #[serde(default)]
    #[schemars(range(max = 4_294_967_294_u32))]
    pub uid: Field<u64>,
    /// Number of their effective group; their further groups do not count.
    #[serde(default)]
    #[schemars(range(max = 4_294_967_294_u32))]
    pub gid: Field<u64>,
}

/// JWTs of an issuer, sent as `Authorization: Bearer …`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwt {
    /// The exact value of the claim `iss`.
    pub issuer: Field<String>,
    /// The value that must be among those of the claim `aud`, or a list of values, of which one
    /// must be among them.
    pub audience: Field<Audience>,
    /// The only algorithms that count, whatever a token says.
    #[schemars(length(min = 1))]
    pub algorithms: Field<Vec<Field<Algorithm>>>,
    /// The exact value of the header `typ`, if one is demanded, such as `at+jwt`.
    #[serde(default)]
    pub typ: Field<String>,
    /// How much the clocks of issuer and gateway may differ, from `0s` to `5m`; `30s` if it is not
    /// given. A token is taken for that much longer after its `exp`, and before its `nbf` and
    /// `iat`.
    #[serde(default)]
    pub leeway: Field<Period>,
    /// Where the issuer publishes its keys, as a JSON Web Key Set: `https://`, or `http://` on a
    /// loopback address. They are fetched again as `jwks_refresh` says and for a key that is not
    /// known.
    #[serde(default, serialize_with = "without_query")]
    pub jwks_url: Field<String>,
    /// A key that the issuer removes from `jwks_url` works no longer than this, from `1s` to `1h`,
    /// while the issuer can be reached; `5m` if it is not given. They are fetched twice as often.
    #[serde(default)]
    pub jwks_refresh: Field<Period>,
    /// PEM bundle of CAs to trust for `jwks_url` instead of the system's.
    #[serde(default)]
    pub ca_file: Field<String>,
    /// File with the issuer's public keys, in place of `jwks_url`; or beside it, for the time in
    /// which none could be fetched: after a start, or in an outage of an hour or more.
    #[serde(default)]
    pub jwks_file: Field<String>,
    /// The common secret of an issuer and the gateway, which signs with `HS256`, `HS384` or
    /// `HS512`, in place of public keys. Anybody who knows it can make such tokens.
    #[serde(default)]
    pub secret: Field<SecretSource>,
}

/// Values of the claim `aud`.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Audience {
    One(String),
    Several(#[schemars(length(min = 1))] Vec<Field<String>>),
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AudienceVisitor;

        impl<'de> Visitor<'de> for AudienceVisitor {
            type Value = Audience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of the claim `aud`, or a list of values")
            }

            fn visit_str<E>(self, text: &str) -> Result<Audience, E> {
                Ok(Audience::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Audience, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Audience::Several)
            }
        }

        // The form of the value decides.
        deserializer.deserialize_any(AudienceVisitor)
    }
}

impl Serialize for Audience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(one) => one.serialize(serializer),
            Self::Several(all) => all.serialize(serializer),
        }
    }
}

/// An algorithm that JWTs are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// HMAC with SHA-256: needs a `secret`.
    HS256,
    /// HMAC with SHA-384: needs a `secret`.
    HS384,
    /// HMAC with SHA-512: needs a `secret`.
    HS512,
}
