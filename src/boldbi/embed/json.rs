//! The JSON body of a call, which has the secret itself. Pure. (Bold BI: "Token generation" and
//! "Row-level security" of the embed SDK, 14.1 and later. From 16.1 on, lists need their operator.)

use bytes::Bytes;
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::embed::{EmbedOrder, FilterText, GrantedValue};
use crate::secret::Secret;
use crate::tenant::Tenant;

/// The body that asks for a token of `subject`. Its memory is overwritten when it is dropped.
pub(super) fn body(tenant: &Tenant, secret: &Secret, subject: &str, order: &EmbedOrder) -> Bytes {
    let server = format!("{}{}", tenant.server.origin(), tenant.server.base_path);
    let site = tenant.site().map(|site| format!("site/{site}")).unwrap_or_default();
    let fields = EmbedFields {
        serverurl: &server,
        siteidentifier: &site,
        email: subject,
        embedsecret: secret.expose(),
        dashboard: order.dashboards.first().map(|id| Dashboard { id }),
        datasourcefilters: order.grant.filters(),
        dashboardparameters: order.grant.parameters(),
        customattributes: order.grant.attributes(),
    };
    // Written to nowhere first: a growing buffer would keep copies of the secret.
    let mut counted = ByteCount(0);
    serde_json::to_writer(&mut counted, &fields).expect("text can always be counted");
    let mut bytes = Zeroizing::new(Vec::with_capacity(counted.0));
    serde_json::to_writer(&mut *bytes, &fields).expect("text can always be written to memory");
    debug_assert_eq!(bytes.len(), counted.0, "the buffer never grows");
    Bytes::from_owner(bytes)
}

#[derive(Serialize)]
struct EmbedFields<'c> {
    serverurl: &'c str,
    siteidentifier: &'c str,
    email: &'c str,
    embedsecret: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dashboard: Option<Dashboard<'c>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "values")]
    datasourcefilters: &'c [GrantedValue],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "values")]
    dashboardparameters: &'c [GrantedValue],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "values")]
    customattributes: &'c [GrantedValue],
}

#[derive(Serialize)]
struct Dashboard<'c> {
    id: &'c str,
}

#[derive(Serialize)]
struct NamedValue<'c> {
    name: &'c str,
    value: Texts<'c>,
    operator: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Texts<'c> {
    One(&'c str),
    List(&'c [String]),
}

fn values<S: Serializer>(values: &&[GrantedValue], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| NamedValue {
        name: value.name(),
        value: match value.text() {
            FilterText::One(text) => Texts::One(text),
            FilterText::List(texts) => Texts::List(texts),
        },
        operator: value.operator().as_str(),
    }))
}

struct ByteCount(usize);

impl std::io::Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
