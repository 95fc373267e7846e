//! The bodies of a web page's calls, read strictly: a name that front ends do not send is refused,
//! so that no option of a page is ignored without a word. `dashboardServerApiUrl`, which the embed
//! SDK sends too, is never looked at: it would have the gateway call any host.

use std::time::Duration;

use serde_json::{Map, Value};

use super::query::{self, DASHBOARD, DASHBOARDS, MODE, NARROWING};
use super::signed;
use crate::caller::json::Json;
use crate::embed::{
    EmbedEndpoint, EmbedFault, EmbedGrant, EmbedOrder, EmbedPair, Malformation, OwnValue, SentName,
};
use crate::invisible::without_byte_order_mark;
use crate::tenant::{EmbedMode, EmbedSettings, EmbedVia};

/// The order of a page's call to its authorization server.
///
/// # Errors
/// When the body is malformed, or asks for anything that the configuration does not allow.
pub fn authorize_order(
    body: &[u8],
    settings: &EmbedSettings,
    grant: EmbedGrant,
    subject: &str,
) -> Result<EmbedOrder, EmbedFault> {
    let body = object(body, EmbedEndpoint::Authorize)?;
    let [one, other] = QUERIES.map(|name| match body.get(name) {
        None => Ok(None),
        Some(Value::String(query)) => Ok(Some(query)),
        Some(_) => Err(Malformation::NoQuery),
    });
    let query = match (one?, other?) {
        (Some(one), Some(other)) if one != other => return Err(Malformation::Spellings.into()),
        (Some(query), _) | (None, Some(query)) => query,
        (None, None) => return Err(Malformation::NoQuery.into()),
    };
    let mut pairs = query::parse(query)?;
    let asked = asked_lifetime(query)?;
    // A token of a query without them would have no end.
    for own in [OwnValue::Nonce, OwnValue::Timestamp, OwnValue::Lifetime] {
        if !pairs.contains(&EmbedPair::Own(own)) {
            pairs.push(EmbedPair::Own(own));
        }
    }
    let mode = match value_of(&pairs, MODE) {
        None => EmbedMode::View,
        Some(word) => EmbedMode::parse(word).ok_or(EmbedFault::Mode)?,
    };
    let order = EmbedOrder {
        dashboards: named_dashboards(&pairs),
        via: settings.via,
        mode,
        lifetime: asked.map_or(settings.max_lifetime, |asked| settings.max_lifetime.min(asked)),
        grant,
        pairs,
    };
    checked(order, settings, subject)
}

/// The order of a page's call to its token URL. It is always for the mode `view`.
///
/// # Errors
/// As [`authorize_order`].
pub fn token_order(
    body: &[u8],
    settings: &EmbedSettings,
    grant: EmbedGrant,
    subject: &str,
) -> Result<EmbedOrder, EmbedFault> {
    let body = if body.is_empty() { Map::new() } else { object(body, EmbedEndpoint::Token)? };
    let dashboard = match body.get(DASHBOARD_ID) {
        None => None,
        Some(Value::String(id)) if is_id(id) => Some(id.clone()),
        Some(_) => return Err(Malformation::DashboardId.into()),
    };
    let mut pairs = vec![EmbedPair::Own(OwnValue::Nonce)];
    pairs.extend(dashboard.iter().map(|id| EmbedPair::Sent(DASHBOARD, id.clone())));
    pairs.push(EmbedPair::Sent(MODE, EmbedMode::View.as_str().to_owned()));
    pairs.extend([OwnValue::Timestamp, OwnValue::Lifetime].map(EmbedPair::Own));
    let order = EmbedOrder {
        pairs,
        dashboards: dashboard.into_iter().collect(),
        via: settings.via,
        mode: EmbedMode::View,
        lifetime: settings.max_lifetime,
        grant,
    };
    checked(order, settings, subject)
}

/// The order of a call that tries whether Bold BI embeds: for the first listed dashboard, with all
/// filters.
///
/// # Errors
/// When the configuration allows no such call.
pub fn trial_order(settings: &EmbedSettings, subject: &str) -> Result<EmbedOrder, EmbedFault> {
    let dashboard = settings.dashboards.as_ref().and_then(|listed| listed.first());
    let body = dashboard.map(|id| serde_json::json!({ "dashboardId": id }).to_string());
    let body = body.unwrap_or_default();
    token_order(body.as_bytes(), settings, EmbedGrant::for_trial(settings), subject)
}

/// The body as an object in which each name occurs once, at any depth, and has only names that
/// front ends send to `endpoint`.
fn object(body: &[u8], endpoint: EmbedEndpoint) -> Result<Map<String, Value>, EmbedFault> {
    let body = serde_json::from_slice(without_byte_order_mark(body));
    let Ok(Json { value: Value::Object(object), repeats: false }) = body else {
        return Err(Malformation::Body.into());
    };
    let known: &[&str] = match endpoint {
        EmbedEndpoint::Authorize => &[QUERIES[0], QUERIES[1], API_URL],
        EmbedEndpoint::Token => &[DASHBOARD_ID],
    };
    let mut others = object.keys().filter(|name| !known.contains(&name.as_str()));
    if let Some(identity) = others.clone().find_map(|name| query::identity(name)) {
        return Err(EmbedFault::Identity(identity));
    }
    match others.next() {
        Some(name) => Err(Malformation::UnknownKey(endpoint, SentName::new(name)).into()),
        None => Ok(object),
    }
}

fn asked_lifetime(query: &str) -> Result<Option<Duration>, EmbedFault> {
    let name = query::own_name(OwnValue::Lifetime);
    let mut pairs = query.split('&').filter_map(|part| part.split_once('='));
    let asked = pairs.find(|(known, _)| *known == name).map(|(_, value)| query::seconds(value));
    Ok(asked.transpose()?.map(Duration::from_secs))
}

/// The value of a name that the page sent, unless it is empty.
fn value_of<'p>(pairs: &'p [EmbedPair], name: &str) -> Option<&'p str> {
    let sent = |pair: &'p EmbedPair| match pair {
        EmbedPair::Sent(known, value) if *known == name => Some(value.as_str()),
        _ => None,
    };
    pairs.iter().find_map(sent).filter(|value| !value.is_empty())
}

/// The names of values that are not empty, and that choose what is shown.
fn chosen(pairs: &[EmbedPair]) -> impl Iterator<Item = (&'static str, &str)> {
    pairs.iter().filter_map(|pair| match pair {
        EmbedPair::Sent(name, value) if !value.is_empty() && *name != MODE => {
            (!NARROWING.contains(name)).then_some((*name, value.as_str()))
        }
        _ => None,
    })
}

/// The dashboards that a page asks for, by ids or paths, as it sent them.
fn named_dashboards(pairs: &[EmbedPair]) -> Vec<String> {
    chosen(pairs).flat_map(|(_, value)| value.split(',')).map(str::to_owned).collect()
}

fn checked(
    mut order: EmbedOrder,
    settings: &EmbedSettings,
    subject: &str,
) -> Result<EmbedOrder, EmbedFault> {
    if !settings.modes.contains(&order.mode) {
        return Err(EmbedFault::Mode);
    }
    if let Some(listed) = &settings.dashboards {
        // Whether the server binds anything but an id to its dashboard is not known.
        let by_id = chosen(&order.pairs).all(|(name, _)| matches!(name, DASHBOARD | DASHBOARDS));
        if order.dashboards.is_empty() || !by_id {
            return Err(EmbedFault::NotById);
        }
        order.dashboards = as_listed(&order.dashboards, listed)?;
        for pair in &mut order.pairs {
            if let EmbedPair::Sent(DASHBOARD | DASHBOARDS, value) = pair
                && !value.is_empty()
            {
                let asked: Vec<_> = value.split(',').map(str::to_owned).collect();
                *value = as_listed(&asked, listed)?.join(",");
            }
        }
    }
    match settings.via {
        EmbedVia::Signed => signed::check(&order, subject)?,
        EmbedVia::Json => check_json(&order)?,
    }
    Ok(order)
}

/// The same ids in the spellings of the list. A GUID is the same in letters of any case (RFC 9562,
/// section 4); of other ids that is not known.
fn as_listed(asked: &[String], listed: &[String]) -> Result<Vec<String>, EmbedFault> {
    let spelled = |id: &String| {
        let same =
            |known: &&String| *known == id || (is_guid(known) && known.eq_ignore_ascii_case(id));
        let known = listed.iter().find(|known| *known == id).or_else(|| listed.iter().find(same));
        known.cloned().ok_or_else(|| EmbedFault::Dashboard(SentName::new(id)))
    };
    asked.iter().map(spelled).collect()
}

/// Whether an id has the form `8-4-4-4-12` of hexadecimal digits.
pub(crate) fn is_guid(id: &str) -> bool {
    let mut parts =
        id.split('-').map(|part| (part.len(), part.bytes().all(|b| b.is_ascii_hexdigit())));
    let lengths = [8, 4, 4, 4, 12];
    lengths.iter().all(|length| parts.next() == Some((*length, true))) && parts.next().is_none()
}

/// A JSON body can name one dashboard by its id, and nothing else that a page may choose.
fn check_json(order: &EmbedOrder) -> Result<(), EmbedFault> {
    let sent = order.pairs.iter().filter_map(|pair| match pair {
        EmbedPair::Sent(name, value) if *name != MODE && !value.is_empty() => Some((*name, value)),
        _ => None,
    });
    let mut fits = sent.map(|(name, value)| name == DASHBOARD && is_id(value));
    if order.mode == EmbedMode::View && fits.all(|fits| fits) {
        Ok(())
    } else {
        Err(EmbedFault::NotInJson)
    }
}

/// Whether a text has the form of a dashboard's id, which is a GUID as a rule.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The query in the body of a call to the authorization server. The second spelling is beside the
/// first since 14.1. (Bold BI: embed SDK 4.2 to 14.2, `src/index.ts`: no version sends other names
/// than these and [`API_URL`].)
const QUERIES: [&str; 2] = ["embedQuerString", "embedQueryString"];
const API_URL: &str = "dashboardServerApiUrl";
/// The only name in the body of a call to the token URL.
const DASHBOARD_ID: &str = "dashboardId";
/// Longest id of a dashboard; a GUID has 36 characters.
const MAX_ID: usize = 128;
