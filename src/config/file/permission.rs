//! The rules of callers as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::Certificate;
use crate::config::field::{Field, Named};
use crate::config::redact::hidden;

/// Requests that a caller may send, to one tenant or to several.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Permission {
    /// Name of the tenant, or `*` for all. Required unless `tenant_claim` is given.
    #[serde(default)]
    #[schemars(example = &"acme", example = &"*")]
    pub tenant: Field<String>,
    /// The claim of the caller's JWT that names the tenant, as one text or a list of texts; in
    /// place of `tenant`.
    #[serde(default)]
    pub tenant_claim: Field<String>,
    /// The kinds of routes that are open.
    #[schemars(length(min = 1))]
    pub routes: Field<Vec<Field<Route>>>,
    /// The methods that are open; all if not given.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub methods: Field<Vec<Field<Method>>>,
    /// The Bold BI user that requests act as; the tenant's own user if not given.
    #[serde(default)]
    pub subject: Field<Subject>,
    /// Let pages embed without `subject`: they all act as the tenant's own user, and the caller's
    /// API key, if a page has it, is public.
    #[serde(default)]
    pub fixed_subject: Field<bool>,
}

/// Requests that a caller may not send. A key that is not given stands for everything.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prohibition {
    /// Name of the tenant, or `*` for all.
    #[serde(default)]
    #[schemars(example = &"acme", example = &"*")]
    pub tenant: Field<String>,
    /// The kinds of routes that are closed.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub routes: Field<Vec<Field<Route>>>,
    /// The methods that are closed.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub methods: Field<Vec<Field<Method>>>,
}

/// The Bold BI user that requests act as, mapped from a proof of the caller: exactly one of
/// `claim` and `header`, and at least one of `map`, `template` and `domains`. Only tenants with the
/// grant `embed_secret` can have it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    /// The claim of the caller's JWT that names the user, such as `email`.
    #[serde(default)]
    pub claim: Field<String>,
    /// The header in which a proxy names the user. It is believed of the proxies in `from` only,
    /// and is not forwarded.
    #[serde(default)]
    #[schemars(example = "X-Auth-Request-Email")]
    pub header: Field<String>,
    /// The proxies that set `header`: IP addresses, networks such as `10.1.0.0/16`, or client
    /// certificates. To be one of them is enough.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub from: Field<Vec<Field<Proxy>>>,
    /// The user's address for each value. A value that is not in it is refused, unless there is a
    /// `template`.
    #[serde(default, serialize_with = "hidden")]
    pub map: Field<Named<String>>,
    /// How a value becomes an address: `{value}` stands for it, in the part before the `@`.
    #[serde(default)]
    #[schemars(example = "{value}@acme.example")]
    pub template: Field<String>,
    /// The only domains that an address may have.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub domains: Field<Vec<Field<String>>>,
    /// Addresses that are never acted as, such as an administrator's.
    #[serde(default, serialize_with = "hidden")]
    #[schemars(length(min = 1))]
    pub never: Field<Vec<Field<String>>>,
}

/// A proxy that sets a header: text for its address, a mapping for its certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(untagged)]
pub(crate) enum Proxy {
    Address(String),
    Certificate(Certificate),
}

impl Proxy {
    /// Its name for serde, by which the form of the value decides on the variant.
    pub(in crate::config) const NAME: &'static str = "Proxy";
    /// The variants for text and for a mapping.
    pub(in crate::config) const VARIANTS: [&'static str; 2] = ["address", "certificate"];
    /// Its forms.
    pub(in crate::config) const ACCEPTED: &'static str = "an address or a network, such as `10.1.0.0/16`, or a certificate, such as \
         `{ san_dns: proxy.acme.example }`";
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Address(address) => address.serialize(serializer),
            Self::Certificate(certificate) => certificate.serialize(serializer),
        }
    }
}

/// A kind of routes of Bold BI's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Route {
    /// Look at things.
    Read,
    /// Take data out in bulk.
    Export,
    /// Change things.
    Write,
    /// Change who may do what: users, groups, permissions, settings.
    Admin,
    /// See, make or rotate secrets and tokens.
    Credentials,
    /// Embed dashboards in web pages, by the gateway's own endpoints.
    Embed,
}

/// A method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// How much of the gateway a caller may use, or a tenant takes. Requests beyond it are refused with
/// 429.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Allowance {
    /// Requests a second, on average.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: Field<u64>,
    /// Requests that may come at once after a pause; the number of `requests_per_second` if not
    /// given.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Field<u64>,
    /// Requests that are under way at the same time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrent_requests: Field<u64>,
}
