//! The signed query: HMAC-SHA256 over exactly the bytes that are sent in front of the signature.
//! Pure. (Bold BI: "Token generation" for versions below 14.1, and all official samples, which put
//! the base64 into the query as it is.)

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::query::{name_of, own_name};
use crate::embed::{EmbedFault, EmbedOrder, EmbedPair, GrantedValue, OwnValue, check_subject};
use crate::secret::Secret;
use crate::tenant::{EmbedVia, FilterOperator};

/// The values of ours for one call.
pub(super) struct Stamp {
    /// A new random id.
    pub(super) nonce: String,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// Checks that an order can be a signed query.
///
/// # Errors
/// When the name of the user cannot be in a query as it is, or the query would be too long.
pub(super) fn check(order: &EmbedOrder, subject: &str) -> Result<(), EmbedFault> {
    check_subject(subject, EmbedVia::Signed)?;
    let longest = Stamp { nonce: "0".repeat(NONCE), now: u64::MAX };
    let length = unsigned(order, subject, &longest).len();
    if length <= MAX_QUERY {
        return Ok(());
    }
    let sent = || order.pairs.iter().filter_map(sent_length);
    let of_page: usize = sent().map(|(_, length)| length).sum();
    match sent().max_by_key(|(_, length)| *length) {
        Some((name, _)) if of_page > length / 2 => Err(EmbedFault::PageTooLong(name, MAX_QUERY)),
        _ => Err(EmbedFault::TooLong(MAX_QUERY)),
    }
}

/// The name of a value of the page, with the length of that value.
fn sent_length(pair: &EmbedPair) -> Option<(&'static str, usize)> {
    match pair {
        EmbedPair::Sent(name, value) => Some((name, value.len())),
        EmbedPair::Own(_) => None,
    }
}

/// The query with its signature.
pub(super) fn query(order: &EmbedOrder, subject: &str, secret: &Secret, stamp: &Stamp) -> String {
    let mut query = unsigned(order, subject, stamp);
    let signature = signature(secret, &query);
    query.push_str("&embed_signature=");
    query.push_str(&signature);
    query
}

/// The signature of a query.
pub(super) fn signature(secret: &Secret, query: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    STANDARD.encode(hmac::sign(&key, query.as_bytes()))
}

fn unsigned(order: &EmbedOrder, subject: &str, stamp: &Stamp) -> String {
    let own = |own: OwnValue| match own {
        OwnValue::Nonce => stamp.nonce.clone(),
        OwnValue::Timestamp => stamp.now.to_string(),
        OwnValue::Lifetime => order.lifetime.as_secs().to_string(),
    };
    let pairs = order.pairs.iter().map(|pair| match pair {
        EmbedPair::Sent(_, value) => format!("{}={value}", name_of(pair)),
        EmbedPair::Own(which) => format!("{}={}", own_name(*which), own(*which)),
    });
    let mut query = pairs.collect::<Vec<_>>().join("&");
    query.push_str("&embed_user_email=");
    query.push_str(subject);
    query.push_str("&embed_server_timestamp=");
    query.push_str(&stamp.now.to_string());
    let (filters, parameters) = (order.grant.filters(), order.grant.parameters());
    if !filters.is_empty() || !parameters.is_empty() {
        query.push_str("&embed_datasource_filter=[{");
        for (before, values) in [("&&", parameters), ("&", filters)] {
            for value in values {
                query.push_str(before);
                push_filter(&mut query, value);
            }
        }
        query.push_str("}]");
    }
    query
}

/// A name and its value, or the list of its values. No character of them means anything in a query.
fn push_filter(query: &mut String, value: &GrantedValue) {
    query.push_str(value.name());
    query.push('=');
    match value.operator() {
        FilterOperator::Equal => query.push_str(&value.text().texts().concat()),
        FilterOperator::In | FilterOperator::NotIn => {
            query.push_str(value.operator().as_str());
            query.push('(');
            query.push_str(&value.text().texts().join(","));
            query.push(')');
        }
    }
}

/// Characters of a nonce, a UUID.
const NONCE: usize = 36;
/// Most bytes of a query: Bold BI's web server takes request lines of 8 KiB.
const MAX_QUERY: usize = 7 * 1024;
