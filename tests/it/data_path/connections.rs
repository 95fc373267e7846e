//! Connections of both sides: their number, transport and trust.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous, config, listening_at};
use crate::support::http1::header_values;
use crate::support::measured_process::MeasuredProcess;
use crate::support::scripted::{
    ScriptedUpstream, Wire, noise, on_server, own_token, raw_response, request, with_body,
};
use crate::support::tls::{SelfSigned, TlsServer, tls_config};
use crate::support::upstream::Upstream;
use crate::support::waiting::until;

#[tokio::test]
async fn a_token_that_ends_while_a_connection_is_waited_for_is_not_sent() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        loop {
            if wire.head.contains("/slow") {
                sleep(Duration::from_secs(3)).await;
            }
            wire.write(raw_response("200 OK", "fine")).await?;
            wire.next().await?;
        }
    })
    .await;
    let config = config(upstream.address, "    max_token_lifetime: 2s\n");
    let settings = "max_connections: 1, timeouts: { connect: 8s }";
    let gateway = Arc::new(Gateway::start(&on_server(&config, settings)));
    let theirs = Arc::clone(&gateway);
    let slow = tokio::spawn(async move { theirs.get(&format!("{PATH}/slow")).await.status });
    until(|| upstream.seen.heads().len() == 1).await;
    let begun = Instant::now();
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert!(begun.elapsed() > Duration::from_secs(2), "it waited for longer than its token lived");
    assert_eq!(slow.await.unwrap(), 200);
    let heads = upstream.seen.heads();
    let token = |head: &str| {
        let [token] = header_values(head, "authorization")[..] else { panic!("{head}") };
        token.to_owned()
    };
    assert_eq!(heads.len(), 2);
    assert_ne!(token(&heads[0]), token(&heads[1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_opened_at_once_are_all_answered() {
    const BOUND: usize = 256;
    let wanted = 10_000;
    let count = wanted.min(allowed_files().saturating_sub(2_000));
    if count < wanted {
        println!("NOT AS MANY AS MEANT: this process may open {} files only", count + 2_000);
    }
    let upstream = responding_after(Duration::ZERO).await;
    let settings = format!("max_connections: {BOUND}, timeouts: {{ connect: 60s }}");
    let gateway = MeasuredProcess::serve(&on_server(&anonymous(upstream.address), &settings));
    let empty = gateway.memory();
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..count {
        let address = gateway.address;
        all.spawn(async move {
            let stream = TcpStream::connect(address).await;
            let mut client = Client::over(stream.expect("the client has a port and a file"));
            client.write(request("GET", &format!("{PATH}/{number}")).as_bytes()).await;
            let response = timeout(Duration::from_secs(60), client.try_response_unbounded()).await;
            Some((client, response.ok()??.status))
        });
    }
    let answered: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    let took = begun.elapsed();
    let good = answered.iter().filter(|(_, status)| *status == 200).count();
    let idle = (gateway.memory() - empty) * 1024 / u64::try_from(count).unwrap();
    let most = upstream.seen.most_open.load(SeqCst);
    println!(
        "{good} of {count} connections answered in {took:.1?}, over {most} to the server; \
         {idle} bytes of memory each while they are idle"
    );
    assert_eq!(good, count, "{}", gateway.log());
    assert!(most <= BOUND, "{most} connections to the server");
    assert!(took < Duration::from_secs(60));
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 1);
}

/// How many files this process may open, after asking for as many as it may.
fn allowed_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap())
}

async fn responding_after(delay: Duration) -> ScriptedUpstream {
    ScriptedUpstream::new(move |mut wire: Wire| async move {
        loop {
            wire.body().await?;
            sleep(delay).await;
            wire.write(raw_response("200 OK", "fine")).await?;
            wire.next().await?;
        }
    })
    .await
}

#[tokio::test]
async fn a_server_never_sees_more_connections_than_its_bound() {
    let upstream = responding_after(Duration::from_millis(20)).await;
    let config = on_server(&anonymous(upstream.address), "max_connections: 4");
    let gateway = Arc::new(Gateway::start(&config));
    let mut all = JoinSet::new();
    for number in 0..100 {
        let gateway = Arc::clone(&gateway);
        all.spawn(async move {
            let bytes = if number % 2 == 0 {
                request("GET", PATH).into_bytes()
            } else {
                with_body("POST", PATH, b"hello")
            };
            gateway.send(bytes).await.status
        });
    }
    assert!(all.join_all().await.into_iter().all(|status| status == 200));
    assert_eq!(upstream.seen.most_open.load(SeqCst), 4);
    assert_eq!(upstream.seen.opened.load(SeqCst), 4, "each was used again and again");
}

#[tokio::test]
async fn when_all_connections_stay_busy_the_client_is_told_to_retry() {
    let upstream = responding_after(Duration::from_secs(2)).await;
    let settings = "max_connections: 1, timeouts: { connect: 200ms }";
    let gateway = Arc::new(Gateway::start(&on_server(&anonymous(upstream.address), settings)));
    let theirs = Arc::clone(&gateway);
    let busy = tokio::spawn(async move { theirs.get(PATH).await.status });
    until(|| upstream.seen.heads().len() == 1).await;
    let begun = Instant::now();
    let response = gateway.get(PATH).await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
    assert_eq!(response.header("retry-after"), ["1"]);
    assert_eq!(busy.await.unwrap(), 200);
}

#[tokio::test]
async fn an_unreachable_server_is_a_502_and_uses_up_no_connection() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let setting = "    existing_authorization: pass_through\n";
    let gateway = Gateway::start(&on_server(&config(gone, setting), "max_connections: 1"));
    for _ in 0..3 {
        let response = gateway.send(own_token("GET")).await;
        assert_eq!((response.status, response.code().as_str()), (502, "upstream_unreachable"));
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_rejected_and_the_others_are_served() {
    let upstream = Upstream::echo().await;
    let gateway =
        Gateway::start(&(anonymous(upstream.address) + "limits: { max_connections: 2 }\n"));
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(gateway.address()).await;
        client.write(request("GET", PATH).as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
        clients.push(client);
    }
    let response = gateway.send(b"").await;
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
    assert_eq!(gateway.telemetry.connections.get(), 2);
    drop(clients.pop());
    let telemetry = &gateway.telemetry;
    until(|| telemetry.connections.get() == 1).await;
    assert_eq!(gateway.get(PATH).await.status, 200);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_rejected_over_tls_too() {
    let (upstream, identity) = (Upstream::echo().await, SelfSigned::new("gateway.example"));
    let files = tempfile::tempdir().unwrap();
    let tls = format!("callers: anonymous, tls: {{ {} }}", identity.listener_keys(files.path()));
    let config = anonymous(upstream.address).edit("callers: anonymous", &tls)
        + "limits: { max_connections: 1 }\n";
    let gateway = Gateway::start(&config);
    let mut first = identity.connect(gateway.address(), "gateway.example").await;
    first.write(request("GET", PATH).as_bytes()).await;
    assert_eq!(first.response().await.status, 200);
    let mut second = identity.connect(gateway.address(), "gateway.example").await;
    second.write(request("GET", PATH).as_bytes()).await;
    let response = second.response().await;
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
    assert_eq!(second.rest().await, "");
    assert_eq!(upstream.seen.requests().iter().filter(|seen| seen.path() == PATH).count(), 1);
    // A client that is silent is not waited for.
    let silent: Vec<_> =
        futures_util::future::join_all((0..70).map(|_| Client::connect(gateway.address()))).await;
    let late = identity.connect(gateway.address(), "gateway.example");
    let mut late = timeout(Duration::from_secs(5), late).await.expect("it comes in time");
    assert_eq!(late.response().await.status, 503);
    drop(silent);
}

#[tokio::test]
async fn a_listener_with_tls_serves_and_says_so_to_the_server() {
    let (upstream, identity) = (Upstream::echo().await, SelfSigned::new("gateway.example"));
    let files = tempfile::tempdir().unwrap();
    let tls = format!("callers: anonymous, tls: {{ {} }}", identity.listener_keys(files.path()));
    let gateway = Gateway::start(&anonymous(upstream.address).edit("callers: anonymous", &tls));
    let mut client = identity.connect(gateway.address(), "gateway.example").await;
    // Requests one after the other, two in one record, and one that is cut in the middle of its
    // head.
    for _ in 0..3 {
        client.write(request("GET", PATH).as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
    }
    client.write(request("GET", PATH).repeat(2).as_bytes()).await;
    assert_eq!([client.response().await.status, client.response().await.status], [200, 200]);
    let body = noise(3_000_000);
    let bytes = with_body("PUT", PATH, &body);
    client.write(&bytes[..7]).await;
    client.write(&bytes[7..]).await;
    assert_eq!(client.response().await.text(), "body of 3000000 bytes");
    let seen = upstream.seen.requests();
    assert!(seen.last().unwrap().body == body);
    assert!(seen.iter().all(|seen| seen.header("x-forwarded-proto") == ["https"]));
    // A client without TLS gets nothing.
    assert!(
        Client::connect(gateway.address()).await.is_closed_after(b"GET / HTTP/1.1\r\n\r\n").await
    );
}

#[tokio::test]
async fn a_server_with_tls_is_trusted_by_any_certificate_of_the_bundle_for_tokens_and_data() {
    let (upstream, identity) = (Upstream::echo().await, SelfSigned::new("localhost"));
    let server = TlsServer::start(identity.acceptor(), upstream.address).await;
    let files = tempfile::tempdir().unwrap();
    let other = SelfSigned::new("localhost").pem();
    let bundle = write(&files, "ca.crt", &(other + &identity.pem()));
    let gateway = Gateway::start(&tls_config("localhost", &server, &bundle, ""));
    for _ in 0..3 {
        let body = noise(1_000_000);
        let response = gateway.send(with_body("POST", PATH, &body)).await;
        assert_eq!((response.status, response.text().as_str()), (200, "body of 1000000 bytes"));
        assert!(upstream.seen.requests().last().unwrap().body == body);
    }
    assert_eq!(server.handshakes.load(SeqCst), 2, "one for the token, one for the rest");
    let host = format!("localhost:{}", server.port());
    assert_eq!(upstream.seen.requests()[0].header("host"), [host]);
}

#[tokio::test]
async fn a_server_with_a_wrong_certificate_gets_no_byte() {
    let (upstream, identity) = (Upstream::echo().await, SelfSigned::new("bi.example"));
    let server = TlsServer::start(identity.acceptor(), upstream.address).await;
    let files = tempfile::tempdir().unwrap();
    let right = write(&files, "right.crt", &identity.pem());
    let wrong = write(&files, "wrong.crt", &SelfSigned::new("localhost").pem());
    for (what, bundle) in [("a wrong name", &right), ("a wrong CA", &wrong)] {
        let gateway = Gateway::start(&tls_config("localhost", &server, bundle, ""));
        let response = gateway.get(PATH).await;
        assert!([502, 503].contains(&response.status), "{what}: {}", response.status);
        assert!(!response.text().contains(CANARY_SECRET));
        let response = gateway.send(own_token("GET")).await;
        assert_eq!((response.status, response.code().as_str()), (502, "upstream_unreachable"));
        assert_eq!(server.bytes.load(SeqCst), 0, "{what}");
        upstream.seen.assert_untouched(what);
    }
}

#[tokio::test]
async fn servers_at_one_address_with_different_trust_share_no_connection() {
    let (upstream, identity) = (Upstream::echo().await, SelfSigned::new("localhost"));
    let server = TlsServer::start(identity.acceptor(), upstream.address).await;
    let files = tempfile::tempdir().unwrap();
    let right = write(&files, "right.crt", &identity.pem());
    let wrong = write(&files, "wrong.crt", &SelfSigned::new("localhost").pem());
    let one = tls_config("localhost", &server, &right, "");
    let (head, tenants) = one.split_once("tenants:\n").unwrap();
    let other_server = head.lines().last().unwrap();
    let other_server = other_server.edit("main:", "other:").edit(&right, &wrong);
    let other_tenant = tenants
        .edit("acme:", "globex:")
        .edit("server: main", "server: other")
        .edit("site: site1", "site: site2");
    let gateway =
        Gateway::start(&format!("{head}{other_server}\ntenants:\n{tenants}{other_tenant}"));
    // A connection to the server that is trusted is idle now.
    assert_eq!(gateway.get(PATH).await.status, 200);
    let shaken = server.handshakes.load(SeqCst);
    let path = PATH.edit("site1", "site2");
    let own = own_token("GET").edit(PATH, &path);
    let response = gateway.send(own).await;
    assert_eq!((response.status, response.code().as_str()), (502, "upstream_unreachable"));
    assert_eq!(upstream.seen.requests().len(), 1);
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert_eq!(server.handshakes.load(SeqCst), shaken, "the first one's connection was kept");
}

#[tokio::test]
async fn a_unix_socket_replaces_a_dead_one_but_not_one_in_use() {
    let upstream = Upstream::echo().await;
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("gateway.sock");
    // A killed process has not removed this file.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let address = format!("unix:{}", path.display());
    let config = listening_at(address, &anonymous(upstream.address));
    let gateway = Gateway::start(&config);
    let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
    for _ in 0..2 {
        client.write(request("GET", PATH).as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
    }
    assert!(upstream.seen.requests()[0].header("x-forwarded-for").is_empty());
    let Err(error) = Gateway::try_start(&config) else { panic!("two listen on one socket") };
    assert!(error.to_string().contains("another process listens on it"), "{error}");
    client.write(request("GET", PATH).as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
    drop(client);
    assert!(gateway.running.stop().await);
    assert!(!path.exists(), "the socket's file goes away with it");
    // A file that is no socket belongs to another program.
    std::fs::write(&path, "precious").unwrap();
    assert!(Gateway::try_start(&config).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_client_that_sends_nothing_gets_no_response() {
    let upstream = Upstream::echo().await;
    let limits = "limits: { request_head_timeout: 200ms, keep_alive_timeout: 600ms }\n";
    let gateway = Gateway::start(&(anonymous(upstream.address) + limits));
    let mut silent = Client::connect(gateway.address()).await;
    assert_eq!(silent.try_response(false).await.map(|response| response.status), None);
    // Between requests the longer timeout holds, whatever the request before was like.
    for bytes in [request("GET", PATH).into_bytes(), with_body("PUT", PATH, &noise(65_536))] {
        let mut client = Client::connect(gateway.address()).await;
        client.write(&bytes).await;
        assert_eq!(client.response().await.status, 200);
        let begun = Instant::now();
        assert_eq!(client.try_response(false).await.map(|response| response.status), None);
        assert!(begun.elapsed() >= Duration::from_millis(550), "{:?}", begun.elapsed());
    }
}

/// No caller is known before a head is whole; so all unfinished heads together have a bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unfinished_heads_take_at_most_forty_mebibytes() {
    let upstream = Upstream::echo().await;
    let config = anonymous(upstream.address);
    let process = MeasuredProcess::serve(&config);
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n");
    let mut control = Client::connect(process.address).await;
    control.write(format!("{head}\r\n").as_bytes()).await;
    assert_eq!(control.response().await.status, 200);
    let before = process.memory();
    let long = format!("{head}X: {}", "x".repeat(60_000));
    let mut unfinished = Vec::new();
    for _ in 0..1000 {
        let mut client = Client::connect(process.address).await;
        // An evicted connection takes no more bytes.
        let _ = client.stream.write_all(long.as_bytes()).await;
        unfinished.push(client);
    }
    control.write(format!("{head}\r\n").as_bytes()).await;
    assert_eq!(control.response().await.status, 200, "others are served");
    // Evicted connections take a moment to close.
    let grown = || process.memory().saturating_sub(before) / 1024;
    until(|| grown() <= 40).await;
    let most = process.peak_memory().saturating_sub(before) / 1024;
    assert!(most <= 64, "{most} MiB more for a moment");
    // The gateway need not read in the order in which the clients wrote, so only the halves show
    // that the oldest were evicted.
    let mut served = [0, 0];
    for (number, mut client) in unfinished.into_iter().enumerate() {
        client.write(b"\r\n\r\n").await;
        // A reset (`None`) may overtake the 408.
        match client.try_response(false).await.map(|response| response.status) {
            Some(200) => served[number / 500] += 1,
            given_up => assert!(matches!(given_up, Some(408) | None), "{given_up:?}"),
        }
    }
    assert!(served[0] < served[1], "{served:?} of 500 and 500 are served");
    assert!(process.log().contains("limits.unfinished_heads"), "{}", process.log());
}

/// The rest of a large buffer would keep all of it alive while the next head is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_begins_behind_a_large_one_holds_its_own_bytes_alone() {
    let upstream = Upstream::echo().await;
    let process = MeasuredProcess::serve(&anonymous(upstream.address));
    let before = process.memory();
    let large =
        format!("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(60_000));
    let mut clients = Vec::new();
    for _ in 0..500 {
        let mut client = Client::connect(process.address).await;
        client.write(format!("{large}GET /").as_bytes()).await;
        assert_eq!(client.response().await.status, 404);
        clients.push(client);
    }
    let grown = process.memory().saturating_sub(before) / 1024;
    assert!(grown <= 16, "{grown} MiB for 500 beginnings of heads");
}

/// A TLS record cannot be decrypted before it is complete. Until then its bytes count as those of
/// an unfinished head.
#[tokio::test]
async fn unfinished_tls_records_are_bounded_together_with_unfinished_heads() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let signed = SelfSigned::new("localhost");
    let tls = format!("tls: {{ {} }}", signed.listener_keys(folder.path()));
    let listener = "callers: anonymous";
    let config = anonymous(upstream.address).edit(listener, &format!("{listener}, {tls}"));
    let gateway = Gateway::start(&(config + "limits: { unfinished_heads: 1MiB }\n"));
    // Each record announces 16,384 bytes, and one byte is missing.
    let record = [&[0x17, 3, 3, 0x40, 0][..], &[0; 16_383]].concat();
    let mut unfinished = Vec::new();
    for _ in 0..100 {
        let (mut tcp, _) = signed.connect(gateway.address(), "localhost").await.stream.into_inner();
        tcp.write_all(&record).await.unwrap();
        unfinished.push(tcp);
    }
    let (newest, oldest) = unfinished.split_last_mut().unwrap();
    // The gateway need not read in the order in which the clients wrote, so the number counts.
    let ends =
        oldest.iter_mut().map(|client| timeout(Duration::from_secs(3), read_to_its_end(client)));
    let ended =
        futures_util::future::join_all(ends).await.iter().filter(|ended| ended.is_ok()).count();
    assert!(ended >= 50, "{ended} of 99 clients were evicted");
    let ended = timeout(Duration::from_millis(200), read_to_its_end(newest)).await;
    assert!(ended.is_err(), "there is room for the newest");
    // Control: a request whose record arrives in pieces is served.
    let control = signed.connect(gateway.address(), "localhost").await;
    let (mut tcp, mut session) = control.stream.into_inner();
    for _ in 0..2 {
        let padding = format!("{PATH}?padding={}", "a".repeat(4000));
        session.writer().write_all(request("GET", &padding).as_bytes()).unwrap();
        let mut record = Vec::new();
        session.write_tls(&mut record).unwrap();
        for piece in record.chunks(1500) {
            tcp.write_all(piece).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        let mut response = Vec::new();
        while !response.starts_with(b"HTTP/1.1 200 OK\r\n") {
            let mut bytes = Vec::new();
            assert_ne!(tcp.read_buf(&mut bytes).await.unwrap(), 0, "the connection stays open");
            session.read_tls(&mut bytes.as_slice()).unwrap();
            session.process_new_packets().unwrap();
            // The read ends with `WouldBlock` when all was read.
            let _ = session.reader().read_to_end(&mut response);
        }
    }
}

async fn read_to_its_end(stream: &mut TcpStream) {
    // The end may be a reset.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// The library keeps a message of a handshake until it is whole; the bound is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_handshakes_are_bounded_together_as_heads_are() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let signed = SelfSigned::new("localhost");
    let tls = format!("tls: {{ {} }}", signed.listener_keys(folder.path()));
    let config = anonymous(upstream.address);
    let listener = "callers: anonymous";
    let config = config.edit(listener, &format!("{listener}, {tls}"));
    let process = MeasuredProcess::serve(&config);
    let before = process.memory();
    // A ClientHello that says it has 65,000 bytes, in records of 16,000, and never ends.
    let mut hello = vec![1, 0, 0xfd, 0xe8];
    hello.resize(65_000, 0);
    let records: Vec<u8> = hello
        .chunks(16_000)
        .flat_map(|piece| {
            let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
            [&[0x16, 3, 1][..], &length, piece].concat()
        })
        .collect();
    let mut unfinished = Vec::new();
    for _ in 0..1000 {
        let mut client = TcpStream::connect(process.address).await.unwrap();
        // An evicted connection takes no more bytes.
        let _ = client.write_all(&records).await;
        unfinished.push(client);
    }
    let grown = || process.memory().saturating_sub(before) / 1024;
    until(|| grown() <= 40).await;
    let mut oldest = Vec::new();
    let ended = timeout(Duration::from_secs(5), unfinished[0].read_to_end(&mut oldest)).await;
    assert!(ended.is_ok(), "the oldest was given up");
    let mut control = signed.connect(process.address, "localhost").await;
    control.write(request("GET", PATH).as_bytes()).await;
    assert_eq!(control.response().await.status, 200, "others are served");
}
