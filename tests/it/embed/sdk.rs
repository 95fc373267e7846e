//! The calls that the real embed SDK sends, in nine versions of it, as they were recorded.

use super::*;

pub const CALLS: &str = include_str!("../../embed/sdk.json");

#[tokio::test]
async fn the_recorded_calls_of_the_sdk_get_a_token_unless_they_name_a_user_or_are_ambiguous() {
    let modes = "      modes: [view, design, connection, datasource, aiassistant]\n";
    let setup = Setup::with(modes, "").await;
    let calls: Value = serde_json::from_str(CALLS).unwrap();
    let (mut served, calls) = (0, calls["calls"].as_array().unwrap());
    for call in calls {
        let query = &call["query"];
        let mut body =
            json!({"embedQuerString": query, "dashboardServerApiUrl": "http://evil.example"});
        if call["both_spellings"] == true {
            body["embedQueryString"] = query.clone();
        }
        let headers = call["headers"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let headers = headers.map(|pair| format!("{}: {}\r\n", text(&pair[0]), text(&pair[1])));
        let lines: String = headers.collect();
        let lines =
            format!("{}{lines}Origin: {ORIGIN}\r\nSec-Fetch-Site: cross-site\r\n", setup.jane());
        let response = setup.post(AUTHORIZE, &lines, &body.to_string()).await;
        let what = format!("{} {}: {}", call["scenario"], call["sdk"], response.text());
        assert_eq!(u64::from(response.status), call["status"].as_u64().unwrap(), "{what}");
        assert_eq!(response.header("access-control-allow-origin"), [ORIGIN], "{what}");
        if response.status == 200 {
            served += 1;
            let reply: Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(reply["Data"]["email"], "jane@acme.example", "{what}");
        }
    }
    assert_eq!((served, setup.targets().len()), (21, 21), "all but three of {}", calls.len());
}
