//! A client whose connection is older than the configuration: its requests are decided on by what
//! is known of it and what is allowed by one and the same configuration.

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::Process;
use crate::support::reloads::{ACME, PATIENCE, get, metric, two_sites};
use crate::support::waiting::becomes;

const REQUIRED: &str = "callers:\n  portal:\n    api_key: { sha256: \
                        4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865 }\n    \
                        may: [ { tenant: acme, routes: [read] } ]\n";

async fn in_force(gateway: &Process, generation: u64) {
    let admin = gateway.ready().1;
    becomes(PATIENCE, "the change is in force", async || {
        metric(admin, "boldgate_config_generation").await == generation
    })
    .await;
}

/// By the old configuration everybody may read, by the new one nobody may do anything without a
/// credential. Taken together they would let everybody write.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_from_before_a_change_is_not_admitted_by_the_old_listener_under_new_permissions()
 {
    let upstream = two_sites().await;
    let files = Files::new();
    let readers = "callers:\n  anonymous:\n    may: [ { tenant: acme, routes: [read] } ]\n";
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], readers));
    let gateway = files.serve();
    let [mut half, mut open] =
        [Client::connect(gateway.address()).await, Client::connect(gateway.address()).await];
    let write = format!("DELETE {ACME} HTTP/1.1\r\nHost: localhost\r\n");
    open.write(format!("{write}\r\n").as_bytes()).await;
    assert_eq!(open.response().await.code(), "route_closed");
    half.write(write.as_bytes()).await;

    let stricter = files.config(&upstream, &["acme"], REQUIRED);
    files.swap_in("boldgate.yaml", &stricter.edit("callers: anonymous", "callers: required"));
    in_force(&gateway, 2).await;
    half.write(b"\r\n").await;
    open.write(format!("{write}\r\n").as_bytes()).await;
    for client in [&mut half, &mut open] {
        let response = client.response().await;
        assert_eq!((response.status, response.code().as_str()), (401, "caller_unauthenticated"));
    }
    assert_eq!((upstream.token_requests(), upstream.api_requests()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_a_connection_of_a_listener_that_is_gone_reaches_nothing() {
    let upstream = two_sites().await;
    let files = Files::new();
    let one = files.config(&upstream, &["acme"], "");
    let socket = files.path("gone.sock");
    let more = format!(
        "  - {{ address: {:?}, callers: anonymous }}\nadmin:",
        format!("unix:{}", socket.display())
    );
    files.write("boldgate.yaml", &one.edit("admin:", &more));
    let gateway = files.serve();
    let mut half = Client::over(tokio::net::UnixStream::connect(&socket).await.unwrap());
    let ask = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n");
    half.write(format!("{ask}\r\n").as_bytes()).await;
    assert_eq!(half.response().await.status, 200);
    half.write(ask.as_bytes()).await;
    files.swap_in("boldgate.yaml", &one);
    in_force(&gateway, 2).await;
    half.write(b"\r\n").await;
    let response = half.response().await;
    assert_eq!((response.status, response.code().as_str()), (503, "configuration_changed"));
    assert_eq!(response.header("connection"), ["close"]);
    assert_eq!((upstream.token_requests(), upstream.api_requests()), (1, 1));
    assert_eq!(get(gateway.address(), ACME).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_on_open_connections_are_judged_by_the_origins_of_the_current_configuration() {
    let upstream = two_sites().await;
    let files = Files::new();
    let origins = |origin: &str| {
        let cors = format!("    site: site1\n    cors: {{ origins: [https://{origin}] }}\n");
        files.config(&upstream, &["acme"], "").edit("    site: site1\n", &cors)
    };
    files.write("boldgate.yaml", &origins("one.example"));
    let gateway = files.serve();
    let mut open = Client::connect(gateway.address()).await;
    let mut ask = async |method: &str, origin: &str| {
        let lines = format!("Origin: https://{origin}\r\nAccess-Control-Request-Method: GET\r\n");
        let head = format!("{method} {ACME} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        open.write(head.as_bytes()).await;
        open.response().await.status
    };
    assert_eq!([ask("GET", "one.example").await, ask("OPTIONS", "one.example").await], [200, 204]);
    assert_eq!([ask("GET", "two.example").await, ask("OPTIONS", "two.example").await], [403, 403]);
    files.swap_in("boldgate.yaml", &origins("two.example"));
    in_force(&gateway, 2).await;
    assert_eq!([ask("GET", "one.example").await, ask("OPTIONS", "one.example").await], [403, 403]);
    assert_eq!([ask("GET", "two.example").await, ask("OPTIONS", "two.example").await], [200, 204]);
    assert_eq!((upstream.token_requests(), upstream.api_requests()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_are_judged_by_the_hosts_of_the_current_configuration() {
    let upstream = two_sites().await;
    let files = Files::new();
    let hosts = |names: &str| {
        let listener = format!("callers: anonymous, hosts: [{names}] }}");
        files.config(&upstream, &["acme"], "").edit("callers: anonymous }", &listener)
    };
    files.write("boldgate.yaml", &hosts("one.example"));
    let gateway = files.serve();
    let mut open = Client::connect(gateway.address()).await;
    let mut ask = async |host: &str| {
        open.write(format!("GET {ACME} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        open.response().await.status
    };
    assert_eq!([ask("one.example").await, ask("two.example").await], [200, 421]);
    files.swap_in("boldgate.yaml", &hosts("two.example"));
    in_force(&gateway, 2).await;
    assert_eq!([ask("one.example").await, ask("two.example").await], [421, 200]);
}
