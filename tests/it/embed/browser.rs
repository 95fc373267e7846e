//! The recorded calls of the SDK, sent by a page in headless Chromium (tests/page/embed.mjs), the
//! page that the demo writes (tests/page/demo.mjs), and the React component of docs/embedding.md
//! (tests/page/react.mjs). `make embed-page` runs them; `make test` skips them, because it needs no
//! browser.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use super::*;
use crate::support::process::{Process, boldgate};
use crate::support::upstream::{Upstream, status};

/// The results of the script that this variable names, with these orders.
#[expect(clippy::disallowed_methods, reason = "neither a secret nor an option of boldgate")]
async fn results_of(script: &str, orders: Value) -> Value {
    let script = std::env::var_os(script).expect("`make embed-page` sets it");
    let run = move || Command::new("node").arg(script).arg(orders.to_string()).output();
    let ended = tokio::task::spawn_blocking(run).await.unwrap().expect("Node is installed");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// A site with an empty page, and its origin.
pub async fn page() -> (Upstream, String) {
    let page = Upstream::with_handler_for_all(|_| {
        let mut page = status(200, "<!DOCTYPE html><title>A page</title>");
        let text = String::from_utf8(page.bytes).unwrap();
        page.bytes = text.edit("text/plain", "text/html").into_bytes();
        page
    })
    .await;
    let origin = format!("http://{}", page.address);
    (page, origin)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: `make embed-page`"]
async fn a_page_in_chromium_gets_the_replies_of_the_recorded_calls_and_a_stranger_gets_nothing() {
    let ((_one, listed), (_two, other)) = (page().await, page().await);
    let modes =
        "      modes: [view, design, connection, datasource, aiassistant]\n      masked: true\n";
    let setup = Setup::for_pages_of(&listed, modes, "", masked::EDITOR).await;
    let recorded: Value = serde_json::from_str(sdk::CALLS).unwrap();
    let recorded = recorded["calls"].as_array().unwrap();
    let calls: Vec<_> = recorded.iter().map(|call| {
        let mut body = json!({"embedQuerString": call["query"], "dashboardServerApiUrl": "http://evil.example"});
        if call["both_spellings"] == true {
            body["embedQueryString"] = call["query"].clone();
        }
        // Of each version its own spelling: `Content-type`.
        let headers = call["headers"].as_array().unwrap().iter();
        let headers = headers.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
        json!({"headers": headers.collect::<BTreeMap<_, _>>(), "body": body.to_string()})
    }).collect();
    let gateway = format!("http://localhost:{}", setup.gateway.address().port());
    let (jane, editor) = (setup.jane(), masked::editor(&setup));
    let routes: Vec<_> = masked::routes().map(|(_, method, path)| {
        json!({"method": method, "url": format!("{gateway}/masked/acme/v1.0/{path}")})
    }).collect();
    let orders = json!({
        "listed": listed, "other": other, "calls": calls,
        "authorize": format!("{gateway}{AUTHORIZE}"), "token": format!("{gateway}{TOKEN}"),
        "dashboard": DASHBOARD,
        "masked": {
            "page": format!("{gateway}/page"), "routes": routes,
            "jwt": editor.trim().strip_prefix("Authorization: Bearer ").unwrap(),
        },
        "jwt": jane.trim().strip_prefix("Authorization: Bearer ").unwrap(),
    });
    let results = results_of("BOLDGATE_TEST_EMBED_PAGE", orders).await;

    let served = results["recorded"].as_array().unwrap();
    assert_eq!(served.len(), recorded.len());
    for (result, call) in served.iter().zip(recorded) {
        assert_eq!(result["status"], call["status"], "{}: {result}", call["scenario"]);
        let body: Value = serde_json::from_str(result["body"].as_str().unwrap()).unwrap();
        if call["status"] == 200 {
            assert_eq!(body["Data"]["email"], "jane@acme.example", "{body}");
        } else {
            assert!(body["code"].is_string(), "the page can read why: {body}");
        }
    }
    let [text, reply] = &results["tokens"].as_array().unwrap()[..] else { panic!("{results}") };
    assert_eq!((&text["status"], &reply["status"]), (&json!(200), &json!(200)), "{results}");
    let reply: Value = serde_json::from_str(reply["body"].as_str().unwrap()).unwrap();
    for token in [&text["body"], &reply["access_token"]] {
        assert_eq!(token.as_str().unwrap().split('.').count(), 3, "{token}");
    }
    assert!(reply["expires_in"].as_u64().unwrap() > 86_000, "{reply}");
    for (result, status) in results["failures"].as_array().unwrap().iter().zip([401, 415]) {
        assert_eq!(result["status"], status, "{result}");
    }
    let calls = setup.targets().len();
    for result in results["stranger"].as_array().unwrap() {
        assert!(result["error"].is_string(), "a stranger's page reads nothing: {result}");
    }
    assert_eq!((calls, setup.targets().len()), (23, 23), "21 recorded calls and two tokens");
    // Masked mode: all data routes for the listed page and one of the gateway's own address.
    for page in ["maskedListed", "maskedOwn"] {
        let served = results[page].as_array().unwrap();
        assert_eq!(served.len(), 40);
        for result in served {
            assert_eq!(result["status"], 200, "{page}: {result}");
            let body: Value = serde_json::from_str(result["body"].as_str().unwrap()).unwrap();
            assert_eq!(body["user"], "jane@acme.example", "{body}");
        }
    }
    for result in results["maskedStranger"].as_array().unwrap() {
        assert!(result["error"].is_string(), "a stranger's page reads nothing: {result}");
    }
    let data = setup.stand_in.last_requests();
    let data: Vec<_> = data.iter().filter(|sent| sent.target.contains("/designer/")).collect();
    assert_eq!(data.len(), 80, "nothing of the stranger's reached Bold BI");
    for sent in data {
        let caller = format!("{}/api/site/acme", setup.stand_in.url());
        assert_eq!(sent.headers["caller"].to_str().unwrap(), caller, "{sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: `make embed-page`"]
async fn the_page_that_the_demo_writes_reaches_its_render_call_at_an_address_of_the_developers() {
    let page = Arc::new(OnceLock::<String>::new());
    let served = Arc::clone(&page);
    let site = Upstream::with_handler_for_all(move |_| {
        let text = served.get().map_or_else(String::new, |file| fs::read_to_string(file).unwrap());
        let mut page = status(200, &text);
        let text = String::from_utf8(page.bytes).unwrap();
        page.bytes = text.edit_any("text/plain", "text/html").into_bytes();
        page
    })
    .await;
    let port = site.address.port();
    let own = format!("http://localhost:{port}");
    let demo = Process::start(boldgate(&["demo", "--port", "0", "--origin", &own]));
    let said = demo.stdout(|text| text.contains("Press Ctrl-C to end."));
    let (_, after) = said.split_once(&format!("at {own}: serve ")).expect(&said);
    page.set(after.split(" there").next().unwrap().to_owned()).unwrap();
    let orders = json!({
        "masked": masked_page(&said), "own": format!("{own}/"), "other": format!("http://127.0.0.1:{port}/"),
        "screenshot": std::env::temp_dir().join("boldgate-demo-page.png"),
    });
    let results = results_of("BOLDGATE_TEST_DEMO_PAGE", orders).await;
    let drawn = results["own"]["text"].as_str().unwrap();
    assert!(drawn.contains("user: jane@acme.example"), "{results}");
    assert!(drawn.contains("rows: [{&Region=IN(North)}]"), "{results}");
    let masked = &results["masked"];
    assert!(masked["before"].as_str().unwrap().contains("Unauthorized"), "{results}");
    assert!(masked["text"].as_str().unwrap().contains("user: joe@acme.example"), "{results}");
    assert_eq!(masked["kept"], "{\"cookie\":\"\"}", "{results}");
    let traffic = masked["traffic"].as_array().unwrap();
    let loads = |part: &str| traffic.iter().any(|one| one.as_str().unwrap().contains(part));
    assert!(loads("enableDomainMasking") && loads("\"user\":\"joe@acme.example\""), "control");
    assert!(!loads("eyJ") && !loads("authorization\":\"Bearer"), "the page has no token");
    // The same file at another origin: it does not even read the JWT.
    assert!(!results["other"]["text"].as_str().unwrap().contains("jane"), "{results}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: `make embed-page`"]
async fn the_react_component_of_the_documents_embeds_anew_in_time_and_unmounts_cleanly() {
    let (_site, origin) = page().await;
    let setup = Setup::for_pages_of(&origin, "", "", "").await;
    let (jane, port) = (setup.jane(), setup.gateway.address().port());
    let other = "8428c9d9-85db-418c-b877-ea4495dcddd7";
    let bold_bi = setup.stand_in.url();
    let orders = json!({
        "document": concat!(env!("CARGO_MANIFEST_DIR"), "/docs/embedding.md"),
        "site": origin, "tokens": format!("http://localhost:{port}{TOKEN}"),
        "boldBi": format!("{bold_bi}/site/acme"), "dashboards": [DASHBOARD, other],
        "sdk": format!("http://{}/embedded-sdk/v14.2/boldbi-embed.js", setup.stand_in.addr()),
        "jwt": jane.trim().strip_prefix("Authorization: Bearer ").unwrap(),
    });
    let results = results_of("BOLDGATE_TEST_REACT_PAGE", orders).await;

    // Strict mode asks twice for each mount; the dashboard is made once.
    for (step, asked, created, destroyed) in [
        ("mounted", 2, 1, 0),
        ("before its time", 2, 1, 0),
        ("signed out", 3, 1, 0),
        ("refused", 4, 1, 0),
        ("embedded again", 5, 2, 1),
        ("another dashboard", 6, 3, 2),
        ("after a long sleep", 7, 4, 3),
        ("unmounted", 8, 4, 4),
    ] {
        let seen = &results["steps"][step];
        let counts = json!([seen["asked"], seen["created"], seen["destroyed"]]);
        assert_eq!(counts, json!([asked, created, destroyed]), "{step}: {results}");
        let shown = seen["text"].as_str().unwrap();
        let shows_jane = shown.contains("user: jane@acme.example");
        assert_eq!((shows_jane, shown.is_empty()), (step != "unmounted", step == "unmounted"));
        let told = seen["errors"].to_string();
        let fails = ["signed out", "refused"].contains(&step);
        assert_eq!(told.contains("is tried again soon"), fails, "{step}: {told}");
        assert!(fails || told == "[]", "{step}: {told}");
    }
    assert_eq!(results["errors"], json!([]));
    let [first, second] = &setup.targets()[..] else { panic!("{:?}", setup.targets()) };
    assert!(first.contains(DASHBOARD) && second.contains(other), "{first} {second}");
}

/// The address of the page in masked mode, as the demo says it.
fn masked_page(said: &str) -> &str {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("masked")).unwrap();
    line.split_whitespace().next().unwrap()
}
