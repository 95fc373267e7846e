//! The strict parse of the query that the embed SDK of a web page asks to have signed. Pure. The
//! SDK puts `encodeURI` over the whole of it. A value with `&` or `=` in it arrives as several
//! pairs.

use percent_encoding::percent_decode_str;

use crate::embed::{EmbedFault, EmbedPair, Malformation, OwnValue, SentName};

/// Splits a query into its pairs.
///
/// # Errors
/// A name that says who the user is; or else the first fault: a part that is no pair, a name that
/// is not allowed or occurs twice, a value that two readers could read in two ways.
pub(super) fn parse(query: &str) -> Result<Vec<EmbedPair>, EmbedFault> {
    let parts = || query.split('&').map(|part| part.split_once('='));
    let mut names = parts().flatten().map(|(name, _)| name);
    if let Some(name) = names.find_map(|name| IDENTITY.iter().find(|known| **known == name)) {
        return Err(EmbedFault::Identity(name));
    }
    let mut pairs: Vec<EmbedPair> = Vec::new();
    for part in parts() {
        let (name, value) = part.ok_or(Malformation::NoPair)?;
        let pair = if let Some((name, own)) = OWN.iter().find(|(known, _)| *known == name) {
            check(name, value)?;
            if *own == OwnValue::Lifetime {
                seconds(value)?;
            }
            EmbedPair::Own(*own)
        } else {
            let known = PASSING.iter().find(|known| **known == name);
            let name = known.ok_or_else(|| Malformation::UnknownName(SentName::new(name)))?;
            check(name, value)?;
            EmbedPair::Sent(name, value.to_owned())
        };
        if pairs.iter().any(|known| name_of(known) == name_of(&pair)) {
            return Err(Malformation::Twice(name_of(&pair)).into());
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// The name that `name` in a body stands for, if that says who the user is and which rows the user
/// sees. Pages and samples spell these names in many ways.
pub(super) fn identity(name: &str) -> Option<&'static str> {
    let known = IDENTITY.iter().chain(&IDENTITY_IN_JSON);
    known.copied().find(|known| known.eq_ignore_ascii_case(name))
}

/// The name of a pair on the wire.
pub(super) fn name_of(pair: &EmbedPair) -> &'static str {
    match pair {
        EmbedPair::Sent(name, _) => name,
        EmbedPair::Own(own) => own_name(*own),
    }
}

/// The name of a value of ours.
pub(super) fn own_name(own: OwnValue) -> &'static str {
    match own {
        OwnValue::Nonce => "embed_nonce",
        OwnValue::Timestamp => "embed_timestamp",
        OwnValue::Lifetime => "embed_expirationtime",
    }
}

/// The lifetime that a page asks for, in seconds; `u64::MAX` for any higher number.
///
/// # Errors
/// When it is not a number above zero.
pub(super) fn seconds(value: &str) -> Result<u64, EmbedFault> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let seconds = digits.then(|| value.parse().unwrap_or(u64::MAX)).filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| Malformation::NotANumber(own_name(OwnValue::Lifetime)).into())
}

/// Checks that every reader takes a value for the same, whether it decodes it or not.
fn check(name: &'static str, value: &str) -> Result<(), EmbedFault> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!*'(),/:@$%".contains(&b);
    if !value.bytes().all(is_plain) || has_broken_encoding(value) {
        return Err(Malformation::Ambiguous(name).into());
    }
    let decoded = percent_decode_str(value).decode_utf8();
    let decoded = decoded.map_err(|_| Malformation::NotUtf8(name))?;
    let is_ambiguous = |c: char| c.is_control() || "&=#+;%[]{}\"<>\\|^`".contains(c);
    if decoded.contains(is_ambiguous) || has_encoded_separator(value) {
        return Err(Malformation::Ambiguous(name).into());
    }
    // A reader that resolves paths would take another dashboard for this one.
    if decoded.split(['/', ',']).any(|segment| matches!(segment, "." | "..")) {
        return Err(Malformation::DotSegment(name).into());
    }
    Ok(())
}

/// Whether a separator of paths or of lists is encoded. The SDK encodes none (`encodeURI`).
fn has_encoded_separator(value: &str) -> bool {
    let encoded = value.split('%').skip(1).filter_map(|after| after.get(..2));
    encoded.into_iter().any(|hex| ["2f", "2c"].iter().any(|known| known.eq_ignore_ascii_case(hex)))
}

fn has_broken_encoding(value: &str) -> bool {
    let is_hex = |b: Option<&u8>| b.is_some_and(u8::is_ascii_hexdigit);
    let bytes = value.as_bytes();
    let mut percents = bytes.iter().enumerate().filter(|(_, b)| **b == b'%');
    percents.any(|(at, _)| !is_hex(bytes.get(at + 1)) || !is_hex(bytes.get(at + 2)))
}

/// The names whose values a page may choose, within the configuration. (Bold BI: embed SDK 4.2 to
/// 14.2, `src/index.ts`.)
const PASSING: [&str; 14] = [
    DASHBOARD,
    DASHBOARDS,
    "embed_dashboard_path",
    "embed_dashboard_paths",
    "pinboard_name",
    MODE,
    "embed_dashboardview_id",
    "embed_dashboardview_name",
    "embed_widget_isenabled",
    "embed_widget_name",
    "embed_widget_list",
    "isMultiTab",
    "embed_datasource_id",
    "embed_datasource_name",
];
pub(super) const DASHBOARD: &str = "embed_dashboard_id";
pub(super) const DASHBOARDS: &str = "embed_dashboard_ids";
pub(super) const MODE: &str = "embed_mode";

/// The names of widgets: they narrow a dashboard.
pub(super) const NARROWING: [&str; 4] =
    ["embed_widget_isenabled", "embed_widget_name", "embed_widget_list", "isMultiTab"];

/// The names whose values are the gateway's own.
const OWN: [(&str, OwnValue); 3] = [
    ("embed_nonce", OwnValue::Nonce),
    ("embed_timestamp", OwnValue::Timestamp),
    ("embed_expirationtime", OwnValue::Lifetime),
];

/// The names that say who the user is and which rows the user sees. A page never decides on them.
/// (Bold BI: "Authorization options" of embedding.)
const IDENTITY: [&str; 15] = [
    "embed_user_email",
    "embed_user_id",
    "embed_user_import",
    "embed_anonymous_token",
    "embed_authorize_group",
    "embed_group_access",
    "embed_auth_provider",
    "embed_datasource_filter",
    "embed_datasource_filters",
    "embed_dashboard_parameter",
    "embed_dashboard_parameters",
    "embed_custom_attribute",
    "embed_custom_attributes",
    "embed_server_timestamp",
    "embed_signature",
];
/// The same in bodies of JSON. (Bold BI: the body of `embed/authorize` since 14.1; samples.)
const IDENTITY_IN_JSON: [&str; 16] = [
    "email",
    "user",
    "userEmail",
    "userId",
    "userName",
    "subject",
    "embedSecret",
    "filters",
    "filterParameter",
    "filterParameters",
    "datasourceFilter",
    "datasourceFilters",
    "dashboardParameter",
    "dashboardParameters",
    "customAttribute",
    "customAttributes",
];
