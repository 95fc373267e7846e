//! A configuration that cannot be used changes nothing, and is reported.

use rustix::process::Signal;

use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::reloads::{
    ACME, BOLT, PATIENCE, get, log_lines, metric, metric_if_any, two_sites, until_status,
};
use crate::support::waiting::becomes;

const REFUSED: &str =
    "the changed configuration is refused: the active configuration stays as a whole";

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_change_alters_nothing_and_is_reported_with_its_place() {
    let upstream = two_sites().await;
    let files = Files::new();
    let good = files.config(&upstream, &["acme"], "");
    let file = files.path("boldgate.yaml").display().to_string();
    files.write("boldgate.yaml", &good);
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    let wrong: [(&str, &str, String, &str); 3] = [
        ("an empty file", "boldgate.yaml", String::new(), &file),
        ("half a file", "boldgate.yaml", good[..good.len() / 2].to_owned(), &file),
        ("an unknown key", "boldgate.yaml", good.clone() + "lisneters: []\n", "lisneters"),
    ];
    for (number, (what, name, text, says)) in (1_u32..).zip(&wrong) {
        let whole = std::fs::read_to_string(files.path(name)).unwrap();
        files.swap_in(name, text);
        becomes(PATIENCE, what, async || log_lines(&gateway, REFUSED).len() >= number as usize)
            .await;
        let line = log_lines(&gateway, REFUSED).pop().unwrap();
        assert!(line["findings"].as_str().unwrap().contains(says), "{what}: {line}");
        assert_eq!(get(address, ACME).await.status, 200, "{what}");
        assert_eq!(metric(admin, "boldgate_config_last_reload_successful").await, 0, "{what}");
        let refused = metric(admin, "boldgate_config_reloads_total{outcome=\"refused\"}").await;
        assert_eq!(refused, u64::from(number), "{what}");
        files.swap_in(name, &whole);
        let successful = "boldgate_config_last_reload_successful";
        becomes(PATIENCE, what, async || metric(admin, successful).await == 1).await;
    }
    assert_eq!(metric(admin, "boldgate_config_generation").await, 1, "nothing was activated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_an_address_in_use_is_refused_until_it_is_free_and_a_signal_comes() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let gateway = files.serve();
    let address = gateway.address();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let extra = format!("  - {{ address: \"{at}\", callers: anonymous }}\nadmin:");
    let next = files.config(&upstream, &["acme", "bolt"], "").edit("admin:", &extra);
    files.swap_in("boldgate.yaml", &next);
    gateway.stderr(|log| log.contains(REFUSED));
    assert!(
        log_lines(&gateway, REFUSED)[0]["findings"].as_str().unwrap().contains(&at.to_string())
    );
    assert_eq!(get(address, BOLT).await.status, 404, "nothing of it is in force");
    drop(taken);
    gateway.signal(Signal::HUP);
    until_status(address, BOLT, 200).await;
    assert_eq!(get(at, BOLT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_does_not_alter_the_metrics() {
    let upstream = two_sites().await;
    let files = Files::new();
    let good = files.config(&upstream, &["acme"], "");
    files.write("boldgate.yaml", &good);
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, ACME).await.status, 200);
    let metrics = async || {
        let text = get(admin, "/metrics").await.text();
        let labels = |line: &&str| line.contains("server=") || line.contains("tenant=");
        text.lines().filter(labels).map(str::to_owned).collect::<Vec<_>>()
    };
    let count = "boldgate_http_requests_total{tenant=\"acme\",outcome=\"served\"}";
    becomes(PATIENCE, "it is counted", async || metric_if_any(admin, count).await == Some(1)).await;
    let before = metrics().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let extra = format!(
        "  - {{ address: \"{}\", callers: anonymous }}\nadmin:",
        taken.local_addr().unwrap()
    );
    // This change adds a server and a tenant, and alters the existing server.
    let main = "/bi\" }";
    let more = "/bi\", addresses: [\"127.0.0.1:1\", \"127.0.0.1:2\"] }\n  more: { url: \
                \"http://127.0.0.1:3/bi\" }";
    let (acme, bolt) = ("  acme:\n    server: main", "  acme:\n    server: more");
    let tenants = files.config(&upstream, &["acme", "bolt"], "");
    let next = tenants.edit("admin:", &extra).edit(main, more).edit(acme, bolt);
    assert!(next.contains("127.0.0.1:2") && next.contains("server: more"), "{next}");
    files.swap_in("boldgate.yaml", &next);
    gateway.stderr(|log| log.contains(REFUSED));
    assert_eq!(metrics().await, before);
    // Control: all that shows as soon as it is in force.
    drop(taken);
    gateway.signal(Signal::HUP);
    let generation = "boldgate_config_generation";
    becomes(PATIENCE, "it is in force", async || metric(admin, generation).await == 2).await;
    // The series of a tenant begin with its first traffic.
    assert_eq!(get(address, BOLT).await.status, 503);
    becomes(PATIENCE, "it is counted", async || {
        metrics().await.iter().any(|line| line.contains("tenant=\"bolt\""))
    })
    .await;
    let now = metrics().await;
    for line in ["{server=\"more\"} 1", "{server=\"main\"} 2", "tenant=\"bolt\""] {
        assert!(now.iter().any(|told| told.contains(line)), "{line}: {now:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_need_a_restart_are_named_and_a_signal_without_a_change_is_logged_as_such() {
    let upstream = two_sites().await;
    let files = Files::new();
    let config = files.config(&upstream, &["acme"], "");
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    gateway.signal(Signal::HUP);
    gateway.stderr(|log| log.contains("have not changed"));
    files.swap_in("boldgate.yaml", &(config + "limits: { max_connections: 77 }\n"));
    gateway.stderr(|log| log.contains("need a restart of boldgate"));
    let line = log_lines(&gateway, "new values of these keys need a restart of boldgate");
    assert_eq!(line[0]["keys"], "limits.max_connections");
}
