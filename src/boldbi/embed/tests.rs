use std::time::Duration;

use serde_json::Value;

use super::signed::{self, Stamp};
use super::*;
use crate::boldbi::test_support::{server, tenant_on};
use crate::caller::jwt::VerifiedClaims;
use crate::embed::{EmbedEndpoint, EmbedFault, EmbedGrant, EmbedOrder, Malformation, SentName};
use crate::policy::RouteClass;
use crate::refusal::{Refusal, RequestFacts};
use crate::secret::Secret;
use crate::tenant::{
    EmbedMode, EmbedSettings, EmbedValue, EmbedVia, FilterOperator, Tenant, ValueSource,
};

mod properties;
mod replies;

const CASES: &str = include_str!("../../../tests/embed/queries.json");
const NONCE: &str = "00000000-0000-4000-8000-00000000000a";
const NOW: u64 = 1_795_623_600;
const SECRET: &str = "test-embed-secret-for-vectors-00";
const JANE: &str = "jane@acme.example";
const DASHBOARD: &str = "c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff";

fn settings() -> EmbedSettings {
    EmbedSettings {
        modes: vec![EmbedMode::View],
        dashboards: None,
        max_lifetime: Duration::from_secs(86_400),
        via: EmbedVia::Signed,
        filters: Vec::new(),
        parameters: Vec::new(),
        attributes: Vec::new(),
        masked: false,
    }
}

/// Settings as a case has them.
fn settings_of(embed: &Value) -> EmbedSettings {
    let texts = |key: &str| {
        let all = embed[key].as_array()?;
        Some(all.iter().map(|one| one.as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    let values = |key: &str| embed[key].as_array().into_iter().flatten().map(value_of).collect();
    let modes =
        texts("modes").map(|modes| modes.iter().filter_map(|m| EmbedMode::parse(m)).collect());
    let max_lifetime = embed["max_lifetime"].as_u64().unwrap_or(86_400);
    EmbedSettings {
        modes: modes.unwrap_or_else(|| vec![EmbedMode::View]),
        dashboards: texts("dashboards"),
        max_lifetime: Duration::from_secs(max_lifetime),
        filters: values("datasource_filters"),
        parameters: values("dashboard_parameters"),
        attributes: values("custom_attributes"),
        masked: false,
        ..settings()
    }
}

fn value_of(value: &Value) -> EmbedValue {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    EmbedValue {
        name: text("name").unwrap(),
        source: text("claim")
            .map_or_else(|| ValueSource::Fixed(text("value").unwrap()), ValueSource::Claim),
        operator: text("operator").map(|operator| match operator.as_str() {
            "=" => FilterOperator::Equal,
            "IN" => FilterOperator::In,
            _ => FilterOperator::NotIn,
        }),
    }
}

fn tenant() -> Tenant {
    tenant_on(server(true, "bi.example.com", 443), Some("site1"))
}

fn target(order: &EmbedOrder, subject: &str) -> String {
    let stamp = Stamp { nonce: NONCE.into(), now: NOW };
    let query = signed::query(order, subject, &Secret::new(SECRET.into()), &stamp);
    format!("{}/embed/authorize?{query}", tenant().api_base)
}

fn grant(settings: &EmbedSettings, claims: Value) -> Result<EmbedGrant, EmbedFault> {
    let claims = VerifiedClaims::as_if_verified(claims);
    EmbedGrant::new(EmbedEndpoint::Authorize, settings, Some(&claims), JANE)
}

fn authorized(
    body: &str,
    settings: &EmbedSettings,
    claims: Value,
) -> Result<EmbedOrder, EmbedFault> {
    authorize_order(body.as_bytes(), settings, grant(settings, claims)?, JANE)
}

fn status_and_code(why: EmbedFault) -> (u64, &'static str) {
    let facts = RequestFacts::of(None, &tenant(), RouteClass::Embed, None, None);
    let response = Refusal::Embed { why: Box::new(why), facts }.response();
    (response.status.as_u16().into(), response.code)
}

#[test]
fn each_query_of_a_page_is_rebuilt_and_signed_byte_for_byte_or_refused() {
    let cases: Value = serde_json::from_str(CASES).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    for case in cases {
        let (name, settings) = (&case["name"], settings_of(&case["embed"]));
        let claims =
            if case["claims"].is_object() { case["claims"].clone() } else { serde_json::json!({}) };
        let order = authorized(&case["body"].to_string(), &settings, claims);
        match (order, case["target"].as_str()) {
            (Ok(order), Some(expected)) => assert_eq!(target(&order, JANE), expected, "{name}"),
            (Err(why), None) => {
                let refused = &case["refused"];
                let expected = (refused["status"].as_u64(), refused["code"].as_str());
                let shown = format!("{name}: {why}");
                let (status, code) = status_and_code(why);
                assert_eq!((Some(status), Some(code)), expected, "{shown}");
            }
            (order, expected) => panic!("{name}: {order:?}, expected {expected:?}"),
        }
    }
    let refused = cases.iter().filter(|case| case["refused"].is_object()).count();
    assert!(refused > 80 && cases.len() - refused > 15, "{refused} of {}", cases.len());
}

#[test]
fn signatures_are_those_of_the_official_samples() {
    // From a run of the official Node and Java samples.
    for (message, signature) in [
        (
            "embed_nonce=00000000-0000-4000-8000-000000000003&embed_dashboard_id=8428c9d9-85db-418c-b877-ea4495dcddd7&embed_user_email=user@example.com",
            "LLqTCEyYQsX+8/UaktqW81lrxk0QZ/hA8EjKaGzyRp8=",
        ),
        (
            "embed_nonce=3601299f-541b-4cce-b1f2-aacda277134f&embed_dashboard_id=&embed_dashboard_ids=&embed_dashboard_path=/Sales/%C3%9Cbersicht%20%22x%22%20a+b&embed_dashboard_paths=&pinboard_name=&embed_mode=view&embed_timestamp=1756891690&embed_expirationtime=86400&embed_user_email=user@example.com&embed_server_timestamp=1795623545",
            "+CAJF9v3HbVqBfbNmO5UStFwCoQJuZdMO6PMCZ9of7s=",
        ),
        (
            "embed_nonce=3601299f-541b-4cce-b1f2-aacda277134f&embed_dashboard_id=&embed_dashboard_ids=&embed_dashboard_path=&embed_dashboard_paths=&pinboard_name=&embed_mode=view&embed_timestamp=1756891690&embed_expirationtime=86400&embed_user_email=user@example.com&embed_server_timestamp=1795623545",
            "Uq8m5Soeme5GJuaJYe9tR/5JAsE9FaoKajmAKYvP4js=",
        ),
    ] {
        assert_eq!(signed::signature(&Secret::new(SECRET.into()), message), signature);
    }
}

#[test]
fn a_query_that_names_a_user_is_refused_for_that_whatever_else_is_wrong_with_it() {
    for fault in ["unknown=1", "embed_mode=a#b", "no-pair", "embed_nonce=1&embed_nonce=2"] {
        let refused = |query: &str| {
            let body = serde_json::json!({"embedQuerString": query}).to_string();
            authorized(&body, &settings(), serde_json::json!({})).map_err(status_and_code)
        };
        let user = format!("{fault}&embed_user_email=admin@example.com");
        assert_eq!(refused(&user).unwrap_err(), (403, "embed_value_refused"), "{user}");
        assert_eq!(refused(fault).unwrap_err(), (400, "request_refused"), "{fault}");
    }
}

#[test]
fn a_body_is_one_json_object_with_each_name_once() {
    let query = format!("embed_dashboard_id={DASHBOARD}");
    let good = format!(r#"{{"embedQuerString":"{query}"}}"#);
    assert!(authorized(&good, &settings(), serde_json::json!({})).is_ok(), "the control");
    for body in [
        String::new(),
        "{}".into(),
        "[]".into(),
        "null".into(),
        format!("\"{query}\""),
        format!("[{good}]"),
        format!("{good}{good}"),
        format!("{good},"),
        r#"{"embedQuerString":null}"#.into(),
        r#"{"embedQuerString":7}"#.into(),
        format!(r#"{{"embedQuerString":["{query}"]}}"#),
        format!(r#"{{"embedQuerString":"{query}","embedQueryString":null}}"#),
        format!(r#"{{"embedQuerString":"{query}","embedQuerString":"{query}"}}"#),
        format!(r#"{{"embedQuerString":"{query}","embedQuer\u0053tring":"embed_dashboard_id=x"}}"#),
        format!(r#"{{"embedQuerString":"{query}","x":{{"a":1,"a":2}}}}"#),
        format!(r#"{{"EmbedQuerString":"{query}"}}"#),
    ] {
        let refused = authorized(&body, &settings(), serde_json::json!({})).unwrap_err();
        assert_eq!(status_and_code(refused), (400, "request_refused"), "{body}");
    }
}

#[test]
fn a_name_of_a_user_that_a_query_cannot_carry_is_refused() {
    let body = format!(r#"{{"embedQuerString":"embed_dashboard_id={DASHBOARD}"}}"#);
    let order = |subject: &str| {
        let settings = settings();
        let grant = grant(&settings, serde_json::json!({})).unwrap();
        authorize_order(body.as_bytes(), &settings, grant, subject)
    };
    assert!(order("jane.d_e-f@acme.example").is_ok(), "the control");
    for subject in
        ["a+b@acme.example", "a&embed_mode=x@acme.example", "a=b@c.d", "", "ä@c.d", "a b"]
    {
        let refused = order(subject).unwrap_err();
        assert_eq!(status_and_code(refused), (403, "subject_refused"), "{subject}");
    }
}

#[test]
fn a_query_that_is_too_long_is_refused_before_it_is_sent() {
    let settings = settings_of(&serde_json::json!({
        "datasource_filters": [{"name": "Region", "claim": "region"}]
    }));
    let body = format!(r#"{{"embedQuerString":"embed_dashboard_id={DASHBOARD}"}}"#);
    let of_length = |length: usize| {
        authorized(&body, &settings, serde_json::json!({"region": "x".repeat(length)}))
    };
    assert!(of_length(6000).is_ok());
    assert_eq!(status_and_code(of_length(8000).unwrap_err()), (403, "embed_value_refused"));
}

fn json_body(order: &EmbedOrder) -> String {
    let body = super::json::body(&tenant(), &Secret::new(SECRET.into()), JANE, order);
    String::from_utf8(body.to_vec()).unwrap()
}

const SMALLEST: &str = "{\"serverurl\":\"https://bi.example.com/bi\",\"siteidentifier\":\"site/site1\",\
    \"email\":\"jane@acme.example\",\"embedsecret\":\"test-embed-secret-for-vectors-00\"";

#[test]
fn json_bodies_have_the_published_form() {
    let settings = EmbedSettings { via: EmbedVia::Json, ..settings() };
    let asked = |body: &str| {
        let grant = grant(&settings, serde_json::json!({})).unwrap();
        json_body(&token_order(body.as_bytes(), &settings, grant, JANE).unwrap())
    };
    let with = format!("{SMALLEST},\"dashboard\":{{\"id\":\"{DASHBOARD}\"}}}}");
    assert_eq!(asked(&format!(r#"{{"dashboardId":"{DASHBOARD}"}}"#)), with);
    assert_eq!(asked("{}"), format!("{SMALLEST}}}"));
    assert_eq!(asked(""), format!("{SMALLEST}}}"));

    let settings = EmbedSettings {
        via: EmbedVia::Json,
        ..settings_of(&serde_json::json!({
            "datasource_filters": [
                {"name": "Region", "claim": "region"},
                {"name": "Plan", "claim": "plan", "operator": "NOT IN"},
            ],
            "dashboard_parameters": [{"name": "Year", "value": "2026"}],
            "custom_attributes": [{"name": "database_name", "claim": "db"}],
        }))
    };
    let claims = serde_json::json!({
        "region": ["North \"&\" West", "Süd"], "plan": "x' OR '1'='1", "db": "DB2"
    });
    let page = format!(
        r#"{{"embedQuerString":"embed_nonce=1&embed_dashboard_id={DASHBOARD}&embed_dashboard_ids=&embed_mode=view"}}"#
    );
    let order = authorized(&page, &settings, claims).unwrap();
    let values = "\"datasourcefilters\":[{\"name\":\"Region\",\"value\":[\"North \\\"&\\\" West\",\"Süd\"],\
        \"operator\":\"IN\"},{\"name\":\"Plan\",\"value\":\"x' OR '1'='1\",\"operator\":\"NOT IN\"}],\
        \"dashboardparameters\":[{\"name\":\"Year\",\"value\":\"2026\",\"operator\":\"=\"}],\
        \"customattributes\":[{\"name\":\"database_name\",\"value\":\"DB2\",\"operator\":\"=\"}]";
    assert_eq!(json_body(&order), format!("{},{values}}}", &with[..with.len() - 1]));
}

#[test]
fn json_carries_one_dashboard_by_its_id_and_nothing_else_of_a_page() {
    let settings = EmbedSettings { via: EmbedVia::Json, ..settings() };
    let order = |query: &str| {
        authorized(&format!(r#"{{"embedQuerString":"{query}"}}"#), &settings, serde_json::json!({}))
    };
    assert!(order(&format!("embed_dashboard_id={DASHBOARD}&embed_widget_name=")).is_ok());
    for query in [
        "embed_dashboard_path=/a",
        "embed_dashboard_ids=a,b",
        "embed_dashboard_id=a&pinboard_name=x",
        "embed_dashboard_id=a&embed_widget_name=x",
        "embed_dashboard_id=a%20b",
        "embed_dashboard_id=a&isMultiTab=true",
    ] {
        let refused = order(query).unwrap_err();
        assert_eq!(status_and_code(refused), (403, "embed_value_refused"), "{query}");
    }
}

#[test]
fn a_token_url_needs_a_listed_dashboard_where_there_is_a_list() {
    let listed = settings_of(&serde_json::json!({"dashboards": [DASHBOARD]}));
    let order = |body: &str, settings: &EmbedSettings| {
        let grant = grant(settings, serde_json::json!({})).unwrap();
        token_order(body.as_bytes(), settings, grant, JANE)
    };
    let good = format!(r#"{{"dashboardId":"{DASHBOARD}"}}"#);
    let query = format!(
        "embed_nonce={NONCE}&embed_dashboard_id={DASHBOARD}&embed_mode=view&embed_timestamp={NOW}\
         &embed_expirationtime=86400&embed_user_email={JANE}&embed_server_timestamp={NOW}"
    );
    let sent = target(&order(&good, &listed).unwrap(), JANE);
    assert!(sent.contains(&format!("?{query}&embed_signature=")), "{sent}");
    assert!(order("", &settings()).is_ok(), "without a list, none is needed");
    for body in ["", "{}", r#"{"dashboardId":"other"}"#] {
        let refused = order(body, &listed).unwrap_err();
        assert_eq!(status_and_code(refused), (403, "embed_value_refused"), "{body}");
    }
    for body in
        ["[]", "\"\"", r#"{"dashboardId":7}"#, r#"{"dashboardId":""}"#, r#"{"dashboardId":"a&b"}"#]
    {
        let refused = order(body, &settings()).unwrap_err();
        assert_eq!(status_and_code(refused), (400, "request_refused"), "{body}");
    }
}

#[test]
fn a_token_url_takes_no_name_but_the_dashboards_id() {
    let order = |body: &str| {
        let grant = grant(&settings(), serde_json::json!({})).unwrap();
        token_order(body.as_bytes(), &settings(), grant, JANE)
    };
    assert!(order(r#"{"dashboardId":"a"}"#).is_ok(), "control");
    for name in ["dashboardID", "dashboardid", "dashboard", "mode", "expirationTime", "", "x"] {
        for more in ["", r#","dashboardId":"a""#] {
            let refused = order(&format!(r#"{{"{name}":"a"{more}}}"#)).unwrap_err();
            let unknown = Malformation::UnknownKey(EmbedEndpoint::Token, SentName::new(name));
            assert_eq!(refused, EmbedFault::Malformed(unknown), "{name}");
            assert_eq!(status_and_code(refused), (400, "request_refused"), "{name}");
        }
    }
    for name in ["embed_user_email", "email", "Email", "embedsecret", "datasourceFilters"] {
        let refused = order(&format!(r#"{{"x":1,"{name}":"a","dashboardId":"a"}}"#)).unwrap_err();
        assert_eq!(status_and_code(refused), (403, "embed_value_refused"), "{name}");
    }
}

#[test]
fn equal_orders_have_one_key_and_other_values_another() {
    let settings = settings_of(&serde_json::json!({
        "datasource_filters": [{"name": "Region", "claim": "region"}]
    }));
    let key = |body: &str, region: &str| {
        let grant = grant(&settings, serde_json::json!({"region": region})).unwrap();
        token_order(body.as_bytes(), &settings, grant, JANE).unwrap().key()
    };
    let one = key(r#"{"dashboardId":"a"}"#, "North");
    assert!(one == key(r#"{"dashboardId":"a"}"#, "North"));
    assert!(one != key(r#"{"dashboardId":"a"}"#, "South"));
    assert!(one != key(r#"{"dashboardId":"b"}"#, "North"));
    assert!(one != key("{}", "North"));
}

#[test]
fn nothing_of_a_claim_shows_when_an_order_is_printed() {
    let settings = settings_of(&serde_json::json!({
        "datasource_filters": [{"name": "Region", "claim": "region"}]
    }));
    let body = format!(r#"{{"embedQuerString":"embed_dashboard_id={DASHBOARD}"}}"#);
    let order = authorized(&body, &settings, serde_json::json!({"region": "canary-region"}));
    assert!(!format!("{order:?}{:?}", order.as_ref().unwrap().key()).contains("canary"));
}
