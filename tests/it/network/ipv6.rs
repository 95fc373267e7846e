//! IPv6: listeners on both families, the admin listener, and servers that are addresses.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;

use boldgate::caller::ApiKey;
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::upstream::Upstream;

/// Leads from a free IPv6 address to a server.
async fn at_ipv6(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

/// A gateway on all addresses of both families, for a caller with `key`.
fn on_both(upstream: SocketAddr, key: &ApiKey, more: &str) -> Gateway {
    let caller = format!(
        "callers:\n  app:\n    api_key: {{ sha256: {} }}\n    may: [ {{ tenant: acme, routes: [read] }} ]\n",
        key.hash()
    );
    let text = anonymous(upstream).edit(
        "\"127.0.0.1:0\", callers: anonymous",
        &format!("\"[::]:0\", callers: required{more}"),
    );
    Gateway::start(&(text + &caller))
}

#[tokio::test]
async fn a_listener_on_all_ipv6_addresses_takes_both_families_and_tells_them_apart() {
    let key = ApiKey::generate().unwrap();
    let lines = format!("Host: gw\r\nX-Api-Key: {}\r\n", key.expose());
    let proxies = ", trusted_proxies: { from: [127.0.0.0/8], header: x-forwarded-for }";
    for (more, from, sent, client) in [
        ("", "127.0.0.1", "", "127.0.0.1"),
        ("", "::1", "", "::1"),
        // An IPv4 network means clients over IPv4, also at this listener.
        (proxies, "127.0.0.1", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        (proxies, "::1", "X-Forwarded-For: 203.0.113.9\r\n", "::1"),
        (", proxy_protocol: { from: [127.0.0.0/8] }", "127.0.0.1", "", "2001:db8::9"),
    ] {
        let upstream = Upstream::echo().await;
        let gateway = on_both(upstream.address, &key, more);
        assert!(gateway.address().is_ipv6());
        let at = SocketAddr::new(from.parse().unwrap(), gateway.address().port());
        let mut connection = Client::connect(at).await;
        let preamble = if more.contains("proxy_protocol") {
            "PROXY TCP6 2001:db8::9 ::1 4711 80\r\n"
        } else {
            ""
        };
        let head = format!("{preamble}GET {PATH} HTTP/1.1\r\n{lines}{sent}\r\n");
        connection.write(head.as_bytes()).await;
        assert_eq!(connection.response().await.status, 200, "{more} {from}");
        let line = &gateway.access_lines(1).await[0];
        assert_eq!(line["client.address"], client, "{more} {from}");
        assert_eq!(
            upstream.seen.requests()[0].header("x-forwarded-for"),
            [client],
            "{more} {from}"
        );
    }
}

#[tokio::test]
async fn a_server_at_an_ipv6_address_gives_tokens_and_data_and_is_checked() {
    let upstream = Upstream::echo().await;
    let address = at_ipv6(upstream.address).await;
    for (url, more) in [
        (format!("http://{address}/bi"), String::new()),
        ("http://bold-bi.invalid/bi".to_owned(), format!(", addresses: [\"{address}\"]")),
    ] {
        let there = format!("http://{}/bi\"", upstream.address);
        let text = anonymous(upstream.address).edit(&there, &format!("{url}\"{more}"));
        let gateway = Gateway::start(&text);
        assert_eq!(gateway.get(PATH).await.status, 200, "{url}");
        let host = url.trim_start_matches("http://").trim_end_matches("/bi").to_owned();
        assert_eq!(upstream.seen.take()[0].header("host"), [host.as_str()]);
    }
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
}

#[tokio::test]
async fn the_admin_listener_may_be_an_ipv6_address() {
    let upstream = Upstream::echo().await;
    let text = anonymous(upstream.address)
        .edit("admin: { address: \"127.0.0.1:0\" }", "admin: { address: \"[::1]:0\" }");
    let gateway = Gateway::start(&text);
    let admin = gateway.running.admin_address();
    let mut client = Client::connect(admin).await;
    client.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}
