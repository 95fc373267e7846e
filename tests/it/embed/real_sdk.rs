//! Bold BI's own embed SDK, unmodified, in headless Chromium (tests/page/sdk.mjs): in masked mode
//! and with the gateway as its authorization server at the pages of the demo, and with a token of
//! the token URL. `make embed-sdk` runs it; `make test` skips it, because it needs a browser and
//! the SDK, of which this repository has nothing.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::support::process::{Process, boldgate};

/// The versions; those from 10.1 on know masked mode.
const VERSIONS: [&str; 4] = ["4.2.68", "7.11.24", "12.1.5", "14.2.4"];

/// The first file that the folder of the SDK lacks, in words.
fn fault_of(folder: &Path) -> Option<String> {
    let index = |version: &str| format!("v{version}/dist/index.js");
    let missing = VERSIONS.map(index).into_iter().find(|file| !folder.join(file).is_file())?;
    let folders = VERSIONS.map(|version| format!("`v{version}/dist/…`")).join(", ");
    Some(format!(
        "`{}` has no file `{missing}`: `make embed-sdk SDK=FOLDER` expects {folders} there, each the \
         folder `dist` of that version in the repository boldbi/boldbi-embedded-sdk; without \
         SDK=FOLDER it fetches them",
        folder.display()
    ))
}

#[test]
fn a_folder_of_another_layout_is_told_with_the_missing_file_and_the_layout() {
    let folder = tempfile::tempdir().unwrap();
    // As the repository itself has it.
    std::fs::create_dir(folder.path().join("dist")).unwrap();
    std::fs::write(folder.path().join("dist/index.js"), "").unwrap();
    for version in VERSIONS {
        let told = fault_of(folder.path()).unwrap();
        assert!(told.contains(&format!("no file `v{version}/dist/index.js`")), "{told}");
        assert!(told.contains("expects `v4.2.68/dist/…`, "), "{told}");
        let dist = folder.path().join(format!("v{version}/dist"));
        std::fs::create_dir_all(&dist).unwrap();
        std::fs::write(dist.join("index.js"), "").unwrap();
    }
    assert_eq!(fault_of(folder.path()), None, "the control");
}

/// The results of the script with these orders.
#[expect(clippy::disallowed_methods, reason = "neither a secret nor an option of boldgate")]
async fn shown(mut orders: Value) -> Value {
    let script = std::env::var_os("BOLDGATE_TEST_SDK_PAGE").expect("`make embed-sdk` sets it");
    let folder = std::env::var("BOLDGATE_TEST_SDK").expect("`make embed-sdk` sets it");
    if let Some(fault) = fault_of(Path::new(&folder)) {
        panic!("{fault}");
    }
    orders["folder"] = folder.into();
    orders["versions"] = json!(VERSIONS);
    orders["screenshots"] = json!(std::env::temp_dir());
    let run = move || Command::new("node").arg(script).arg(orders.to_string()).output();
    let ended = tokio::task::spawn_blocking(run).await.unwrap().expect("Node is installed");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// All that went to and from a page.
fn traffic(page: &Value) -> String {
    page["traffic"].to_string()
}

/// Whether a page asks this address for anything.
fn asks(page: &Value, address: &str) -> bool {
    let all = page["traffic"].as_array().unwrap();
    all.iter().any(|one| one.as_str().unwrap().starts_with(address))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and the SDK: `make embed-sdk`"]
async fn the_real_sdk_reaches_its_render_call_masked_and_by_the_authorization_server() {
    let demo = Process::start(boldgate(&["demo", "--port", "0"]));
    let said = demo.stdout(|text| text.contains("Press Ctrl-C to end."));
    let after = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name)).expect(&said);
        line.split_whitespace().next().unwrap().to_owned()
    };
    let authorize = said.split_whitespace().find(|word| word.ends_with("/embed/authorize"));
    let (application, bold_bi) = (after("page"), after("Bold BI"));
    let demo = json!({"application": application, "boldBi": bold_bi, "authorize": authorize});
    let results = shown(json!({"demo": demo})).await;
    let of = |way: &str| results[way].as_array().unwrap().clone();

    let masked = of("masked");
    let versions: Vec<_> = masked.iter().map(|page| page["version"].as_str().unwrap()).collect();
    assert_eq!(versions, VERSIONS[2..]);
    for page in &masked {
        let drawn = &page["drawn"][0];
        assert_eq!(drawn["status"], 200, "{page}");
        let data: Value = serde_json::from_str(drawn["data"].as_str().unwrap()).unwrap();
        assert_eq!(data["user"], "jane@acme.example", "{page}");
        assert_eq!(data["target"], "/bi/designer/v1.0/design/loadwidgetdata", "{page}");
        let service = format!("{application}/masked/acme-masked");
        assert_eq!(drawn["options"]["serviceUrl"], service, "{page}");
        // The browser has no token, and neither asks nor knows Bold BI.
        let all = traffic(page);
        assert!(!all.contains("eyJ") && !all.contains("Bearer "), "{page}");
        assert!(!page["drawn"].to_string().contains("eyJ") && page["kept"] == "{}", "{page}");
        assert!(!asks(page, &bold_bi) && !all.contains("/boldgate/"), "{page}");
        assert_eq!(page["errors"], json!([]), "{page}");
    }
    let authorized = of("authorized");
    assert_eq!(authorized.len(), VERSIONS.len());
    for page in &authorized {
        let drawn = &page["drawn"][0];
        let token = drawn["options"]["serviceAuthorizationToken"].as_str().unwrap_or_default();
        assert!(token.starts_with("eyJ"), "control: a token: {page}");
        assert!(traffic(page).contains("[{&Region=IN(North)}]"), "{page}");
        assert!(asks(page, &bold_bi) && traffic(page).contains("Bearer eyJ"), "control: {page}");
        assert_eq!(page["errors"], json!([]), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and the SDK: `make embed-sdk`"]
async fn the_real_sdk_reaches_its_render_call_by_a_token_of_the_token_url() {
    let ((_one, listed), (_two, other)) = (browser::page().await, browser::page().await);
    let setup = Setup::for_pages_of(&listed, "", "", "").await;
    let url = format!("http://localhost:{}{TOKEN}", setup.gateway.address().port());
    let (jane, server) = (setup.jane(), format!("{}/site/acme", setup.stand_in.url()));
    let tokens = json!({
        "listed": listed, "other": other, "url": url, "serverUrl": server,
        "jwt": jane.trim().strip_prefix("Authorization: Bearer ").unwrap(),
    });
    let results = shown(json!({"tokens": tokens})).await;
    let of = |way: &str| results[way].as_array().unwrap().clone();

    let [oldest, newer @ ..] = &of("token")[..] else { panic!("{results}") };
    assert_eq!(oldest["version"], "4.2.68");
    assert_eq!(newer.len(), VERSIONS.len() - 1);
    let body = json!({"dashboardId": DASHBOARD}).to_string();
    let given = setup.post(TOKEN, &format!("{jane}{JSON}"), &body).await.text();
    // The oldest has no option for a token: it makes nothing of this one, and draws nothing.
    assert!(traffic(oldest).contains(&given), "control: {oldest}");
    assert!(!traffic(oldest).contains(&format!("earer {given}")), "{oldest}");
    assert_eq!((&oldest["drawn"], &oldest["text"]), (&json!([]), &json!("")), "{oldest}");
    for page in newer {
        let drawn = &page["drawn"].as_array().unwrap()[..];
        let [drawn] = drawn else { panic!("one call that draws: {page}") };
        assert_eq!(drawn["options"]["serviceAuthorizationToken"], *given, "{page}");
        assert_eq!(page["errors"], json!([]), "{page}");
        assert!(!traffic(page).contains("/embed/authorize"), "{page}");
    }
    for page in of("stranger") {
        assert!(page["errors"][0].as_str().unwrap().contains("Failed to fetch"), "{page}");
        assert_eq!((&page["drawn"], &page["text"]), (&json!([]), &json!("")), "{page}");
        assert!(!traffic(&page).contains(&given), "it reads no token: {page}");
    }
    // All pages have the same user and dashboard, so that one token serves them.
    let [target] = &setup.targets()[..] else { panic!("one call: {:?}", setup.targets()) };
    let names = |name: &str| target.matches(name).count();
    assert_eq!((names("embed_user_email="), names("embed_signature=")), (1, 1), "{target}");
    assert!(target.contains("&embed_user_email=jane@acme.example&"), "{target}");
    assert!(target.contains(&format!("embed_dashboard_id={DASHBOARD}&")), "{target}");
    // Version 7.11 asks the API itself, by the token; the stand-in refuses any other.
    let asked = setup.stand_in.last_requests();
    let asked = asked.iter().filter(|sent| sent.target.contains("/v5.0/dashboards/")).count();
    assert_eq!((asked, setup.stand_in.token_requests()), (1, 0));
}
