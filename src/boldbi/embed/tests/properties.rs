//! Properties of the call that any body of a page leads to.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use ring::hmac;

use super::*;

const LISTED: [&str; 2] = [DASHBOARD, "listed-2"];
const MAX_LIFETIME: u64 = 7200;

/// At least 2,000; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    ProptestConfig::default().cases.max(2_000)
}

/// Settings with filters, with a list of dashboards and without.
fn guarded(via: EmbedVia, dashboards: Option<&[&str]>) -> EmbedSettings {
    EmbedSettings {
        max_lifetime: Duration::from_secs(MAX_LIFETIME),
        via,
        ..settings_of(&serde_json::json!({
            "dashboards": dashboards,
            "datasource_filters": [{"name": "Region", "claim": "region"}],
            "dashboard_parameters": [{"name": "Tenant", "value": "t1"}],
        }))
    }
}

fn north(settings: &EmbedSettings) -> EmbedGrant {
    grant(settings, serde_json::json!({"region": "North"})).unwrap()
}

/// Names of pairs as pages send them, as they must not, and near misses.
fn name() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "embed_nonce",
        "embed_dashboard_id",
        "embed_dashboard_id",
        "embed_dashboard_ids",
        "embed_dashboard_path",
        "pinboard_name",
        "embed_mode",
        "embed_timestamp",
        "embed_expirationtime",
        "embed_widget_name",
        "embed_user_email",
        "embed_datasource_filter",
        "embed_signature",
        "embed_server_timestamp",
        "Embed_User_Email",
        "embed%5Fuser_email",
    ];
    prop_oneof![
        20 => prop::sample::select(KNOWN).prop_map(str::to_owned),
        1 => "[a-z_%&=]{0,12}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "",
        "view",
        "design",
        DASHBOARD,
        DASHBOARD,
        "listed-2",
        "listed-2,other",
        "other",
        "3600",
        "604800",
        "99999999999999999999999",
        "/Sales/My%20Dashboard",
        "x&embed_user_email=admin@example.com",
        "x%26embed_user_email=admin@example.com",
        "x;embed_user_email=admin@example.com",
        "x#y",
        "[{&Region=South}]",
        "x}]&embed_datasource_filter=[{&Region=South",
        "%00",
        "%C3%BC",
    ];
    prop_oneof![
        8 => prop::sample::select(KNOWN).prop_map(str::to_owned),
        1 => "[ -~]{0,16}",
        1 => any::<String>(),
    ]
}

fn query() -> impl Strategy<Value = String> {
    let well_formed = prop::collection::hash_set(
        prop::sample::select(
            &["embed_nonce", "embed_timestamp", "embed_widget_name", "embed_mode"][..],
        ),
        0..4,
    )
    .prop_flat_map(|names| {
        let values = prop::sample::select(&["view", "1", "3600", "604800"][..]);
        (Just(names), values, prop::sample::select(&LISTED[..]), any::<bool>())
    })
    .prop_map(|(names, value, dashboard, timed)| {
        let mut query = format!("embed_dashboard_id={dashboard}");
        for name in names {
            let value = if name == "embed_mode" { "view" } else { value };
            query += &format!("&{name}={value}");
        }
        if timed { query + "&embed_expirationtime=604800" } else { query }
    });
    let pairs = prop::collection::vec((name(), value()), 0..8).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    });
    let spoilt = (well_formed.clone(), name(), value())
        .prop_map(|(query, name, value)| format!("{query}&{name}={value}"));
    prop_oneof![3 => well_formed, 3 => spoilt, 2 => pairs, 1 => any::<String>()]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let object = |one: String, other: Option<String>| {
        let mut body =
            serde_json::json!({"embedQuerString": one, "dashboardServerApiUrl": "http://evil"});
        if let Some(other) = other {
            body["embedQueryString"] = other.into();
        }
        body
    };
    let bytes = |body: serde_json::Value| body.to_string().into_bytes();
    let with_another_name = (query(), "[a-zA-Z]{1,12}").prop_map(move |(query, name)| {
        let mut body = object(query, None);
        body[name] = "admin@example.com".into();
        bytes(body)
    });
    prop_oneof![
        6 => query().prop_map(move |query| bytes(object(query.clone(), Some(query)))),
        3 => query().prop_map(move |query| bytes(object(query, None))),
        1 => (query(), query()).prop_map(move |(one, other)| bytes(object(one, Some(other)))),
        1 => with_another_name,
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ]
}

/// Reads a query as leniently as any server: encoded or not, names in any case, `;` as `&`.
fn lenient(query: &str) -> Vec<(String, String)> {
    let decoded = percent_encoding::percent_decode_str(query).decode_utf8_lossy().into_owned();
    let both = [query.to_owned(), decoded];
    let pairs = both.iter().flat_map(|text| text.split(['&', ';', '#']));
    let pairs = pairs.filter_map(|part| part.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_lowercase(), value.to_owned())).collect()
}

/// Bodies of calls to the token URL.
fn token_body() -> impl Strategy<Value = Vec<u8>> {
    let named = (value(), proptest::option::of(name())).prop_map(|(id, other)| {
        let mut body = serde_json::json!({"dashboardId": id});
        if let Some(other) = other {
            body[other] = "admin@example.com".into();
        }
        body.to_string().into_bytes()
    });
    let id = prop::sample::select(&["", DASHBOARD, "listed-2", "other"][..]);
    let plain = id.prop_map(|id| format!(r#"{{"dashboardId":"{id}"}}"#).into_bytes());
    let empty = prop::sample::select(&["", "{}", "[]", "null"][..]);
    prop_oneof![
        3 => plain,
        3 => named,
        1 => empty.prop_map(|body| body.as_bytes().to_vec()),
        1 => body(),
    ]
}

/// Asserts that a signed query is ours but for the choice of a dashboard, and signed as it is sent.
fn assert_ours(order: &EmbedOrder, is_listed: bool) -> Result<(), TestCaseError> {
    let target = target(order, JANE);
    let (_, query) = target.split_once('?').unwrap();
    let (message, signature) = query.rsplit_once("&embed_signature=").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = hmac::verify(&key, message.as_bytes(), &STANDARD.decode(signature).unwrap());
    prop_assert!(signed.is_ok(), "signed is what is sent: {query}");
    prop_assert!(!message.contains("embed_signature"));

    let ours = "&embed_datasource_filter=[{&&Tenant=t1&Region=North}]";
    prop_assert!(message.ends_with(ours), "the configured filters: {message}");
    let (page, _) = message.split_at(message.len() - ours.len());
    let is_doubtful = page.contains(['[', ']', '{', '}', '<', '>', '"', '\\', '+', '#', ';']);
    prop_assert!(!is_doubtful);
    let all = lenient(page);
    for (name, value) in &all {
        let fits = match name.as_str() {
            "embed_user_email" => value == JANE,
            "embed_expirationtime" => {
                value.parse::<u64>().is_ok_and(|seconds| seconds <= MAX_LIFETIME)
            }
            "embed_timestamp" | "embed_server_timestamp" => *value == NOW.to_string(),
            "embed_nonce" => value == NONCE,
            "embed_mode" => value == "view" || value.is_empty(),
            "embed_dashboard_id" | "embed_dashboard_ids" if is_listed => {
                value.is_empty() || value.split(',').all(|id| LISTED.contains(&id))
            }
            "embed_dashboard_path" | "embed_dashboard_paths" | "pinboard_name" if is_listed => {
                value.is_empty()
            }
            name if name.starts_with("embed_widget") || name == "ismultitab" => true,
            // These choose another dashboard, a view or a data source.
            name if name.starts_with("embed_da") => !is_listed || value.is_empty(),
            "pinboard_name" => true,
            _ => false,
        };
        prop_assert!(fits, "{name}={value} in {message}");
    }
    for name in ["embed_user_email", "embed_expirationtime", "embed_timestamp", "embed_nonce"] {
        // Once as it is, once decoded.
        let times = all.iter().filter(|(known, _)| known == name).count();
        prop_assert_eq!(times, 2, "{} in {}", name, message);
    }
    Ok(())
}

/// Asserts that a JSON body is ours but for the choice of a listed dashboard.
fn assert_json_ours(order: &EmbedOrder) -> Result<(), TestCaseError> {
    let mut body: Value = serde_json::from_str(&json_body(order)).unwrap();
    let dashboard = body.as_object_mut().unwrap().remove("dashboard");
    let id = dashboard.as_ref().and_then(|dashboard| dashboard["id"].as_str());
    prop_assert!(id.is_some_and(|id| LISTED.contains(&id)), "{dashboard:?}");
    let value = |name: &str, value: &str| serde_json::json!([{"name": name, "value": value, "operator": "="}]);
    let ours = serde_json::json!({
        "serverurl": "https://bi.example.com/bi",
        "siteidentifier": "site/site1",
        "email": JANE,
        "embedsecret": SECRET,
        "datasourcefilters": value("Region", "North"),
        "dashboardparameters": value("Tenant", "t1"),
    });
    prop_assert_eq!(body, ours);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn no_body_of_a_page_decides_on_user_dashboard_filter_or_end(body in body()) {
        let settings = guarded(EmbedVia::Signed, Some(&LISTED));
        let Ok(order) = authorize_order(&body, &settings, north(&settings), JANE) else {
            return Ok(());
        };
        let sent: Value = serde_json::from_slice(&body).unwrap();
        let known = ["embedQuerString", "embedQueryString", "dashboardServerApiUrl"];
        prop_assert!(sent.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())));
        assert_ours(&order, true)?;
    }

    #[test]
    fn without_a_list_a_page_decides_on_its_dashboard_alone(body in body()) {
        let settings = guarded(EmbedVia::Signed, None);
        if let Ok(order) = authorize_order(&body, &settings, north(&settings), JANE) {
            assert_ours(&order, false)?;
        }
    }

    #[test]
    fn no_body_of_a_call_for_a_token_decides_more_than_a_listed_dashboard(body in token_body()) {
        let settings = guarded(EmbedVia::Signed, Some(&LISTED));
        if let Ok(order) = token_order(&body, &settings, north(&settings), JANE) {
            assert_ours(&order, true)?;
            prop_assert!(!order.dashboards.is_empty());
        }
        let settings = guarded(EmbedVia::Signed, None);
        if let Ok(order) = token_order(&body, &settings, north(&settings), JANE) {
            assert_ours(&order, false)?;
        }
    }

    #[test]
    fn no_body_of_a_page_decides_more_in_json(page in body(), token in token_body()) {
        let settings = guarded(EmbedVia::Json, Some(&LISTED));
        let orders = [
            authorize_order(&page, &settings, north(&settings), JANE),
            token_order(&token, &settings, north(&settings), JANE),
        ];
        for order in orders.iter().flatten() {
            assert_json_ours(order)?;
        }
    }

    #[test]
    fn no_claim_drops_a_filter_or_adds_another(region in any::<String>(), list in any::<bool>()) {
        let settings = guarded(EmbedVia::Signed, Some(&LISTED));
        let claim = if list { serde_json::json!([region]) } else { serde_json::json!(region) };
        let Ok(grant) = grant(&settings, serde_json::json!({ "region": claim })) else {
            return Ok(());
        };
        let body = format!(r#"{{"embedQuerString":"embed_dashboard_id={DASHBOARD}"}}"#);
        let Ok(order) = authorize_order(body.as_bytes(), &settings, grant, JANE) else {
            return Ok(());
        };
        let target = target(&order, JANE);
        let filter = target.split_once("&embed_datasource_filter=").unwrap().1;
        let filter = filter.rsplit_once("&embed_signature=").unwrap().0;
        let value = if list { format!("IN({region})") } else { region.clone() };
        prop_assert_eq!(filter, format!("[{{&&Tenant=t1&Region={value}}}]"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        prop_assert!(!region.is_empty() && region.chars().all(is_plain));
    }
}

/// Without this, the properties could hold because no order is ever made.
#[test]
fn many_bodies_of_these_kinds_are_accepted() {
    let settings = guarded(EmbedVia::Signed, Some(&LISTED));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut accepted = [0; 2];
    for _ in 0..1_000 {
        let (page, token) = (body(), token_body()).new_tree(&mut runner).unwrap().current();
        let grant = || north(&settings);
        accepted[0] += usize::from(authorize_order(&page, &settings, grant(), JANE).is_ok());
        accepted[1] += usize::from(token_order(&token, &settings, grant(), JANE).is_ok());
    }
    assert!(accepted.iter().all(|count| *count > 100), "{accepted:?} of 1,000");
}
