//! Bold BI's own embed SDK, unmodified, in headless Chromium at the pages of the demo
//! (tests/page/sdk.mjs): in masked mode, and with the gateway as its authorization server.
//! `make embed-sdk` runs it; `make test` skips it, because it needs a browser and the SDK, of which
//! this repository has nothing.

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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and the SDK: `make embed-sdk`"]
#[expect(clippy::disallowed_methods, reason = "neither a secret nor an option of boldgate")]
async fn the_real_sdk_reaches_its_render_call_masked_and_by_the_authorization_server() {
    let script = std::env::var_os("BOLDGATE_TEST_SDK_PAGE").expect("`make embed-sdk` sets it");
    let folder = std::env::var("BOLDGATE_TEST_SDK").expect("`make embed-sdk` sets it");
    if let Some(fault) = fault_of(Path::new(&folder)) {
        panic!("{fault}");
    }
    let demo = Process::start(boldgate(&["demo", "--port", "0"]));
    let said = demo.stdout(|text| text.contains("Press Ctrl-C to end."));
    let after = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name)).expect(&said);
        line.split_whitespace().next().unwrap().to_owned()
    };
    let authorize = said.split_whitespace().find(|word| word.ends_with("/embed/authorize"));
    let (application, bold_bi) = (after("page"), after("Bold BI"));
    let orders = json!({
        "application": &application, "boldBi": &bold_bi, "authorize": authorize, "folder": folder,
        "versions": VERSIONS, "screenshots": std::env::temp_dir(),
    });
    let run = move || Command::new("node").arg(script).arg(orders.to_string()).output();
    let ended = tokio::task::spawn_blocking(run).await.unwrap().expect("Node is installed");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let results: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let of = |way: &str| results[way].as_array().unwrap().clone();
    let traffic = |page: &Value| page["traffic"].to_string();
    let asks = |page: &Value, address: &str| {
        let all = page["traffic"].as_array().unwrap();
        all.iter().any(|one| one.as_str().unwrap().starts_with(address))
    };

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
