//! The gateway's reading of requests beside that of other servers: whatever goes on must be what
//! they, too, would have read from the same bytes, request by request. They may refuse more, or
//! less.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::upstream::{Upstream, ok};

/// Method, target and body of a request, as somebody has read it.
type Read = (String, String, Vec<u8>);

/// Well-formed requests, each with another one behind it.
fn seeds() -> Vec<Vec<u8>> {
    let hidden = format!("GET {PATH}/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let length = hidden.len();
    let chunk = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    let host = "Host: localhost\r\n";
    let post = format!("POST {PATH} HTTP/1.1\r\n{host}");
    [
        format!("GET {PATH}?a=b HTTP/1.1\r\n{host}Accept: */*\r\n\r\n"),
        format!("GET http://localhost{PATH} HTTP/1.1\r\n{host}\r\n"),
        format!("GET {PATH} HTTP/1.0\r\n{host}Connection: keep-alive\r\n\r\n"),
        format!("{post}Content-Length: {length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 0\r\nX: y\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"),
        format!("{post}Content-Length: {length}\r\nX: chunked\r\n\r\n{chunk}"),
        format!("{post}X-Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc"),
        format!("DELETE {PATH} HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\n0\r\n\r\n"),
    ]
    .map(|request| (request + &hidden).into_bytes())
    .into()
}

/// One of the seeds with a few changes of the kind that parsers disagree about.
fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 28] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"\x0b",
        b"\x7f",
        b"\x80",
        b":",
        b";",
        b",",
        b"0",
        b"3",
        b"+",
        b"-",
        b"chunked",
        b"identity",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: other\r\n",
        b"%20",
        b"#",
        b"\"",
        b"HTTP/1.0",
        b"0\r\n\r\n",
        b"\r\n\r\n",
    ];
    let mut bytes = random.choice(seeds).expect("there are seeds").clone();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len());
        let until = (at + random.usize(1..4)).min(bytes.len());
        let piece = *random.choice(&PIECES).expect("there are pieces");
        match random.u8(..5) {
            0 => drop(bytes.drain(at..until)),
            1 => drop(bytes.splice(at..until, piece.iter().copied())),
            2 => bytes[at] = random.u8(..),
            _ => drop(bytes.splice(at..at, piece.iter().copied())),
        }
    }
    bytes
}

/// Sends the bytes on a connection of their own, and reads all that comes until it ends.
async fn send(address: SocketAddr, bytes: &[u8], half_close: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses them may close before all are written.
    let _ = stream.write_all(bytes).await;
    if half_close {
        let _ = stream.shutdown().await;
    }
    let mut all = Vec::new();
    let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "{} hangs", bytes.escape_ascii());
    all
}

/// The requests that the gateway has read: those that it forwarded, and `None` for each refused
/// one.
async fn gateway_reads(gateway: &Gateway, upstream: &Upstream, bytes: &[u8]) -> Vec<Option<Read>> {
    let responses = send(gateway.address(), bytes, false).await;
    let responses = String::from_utf8_lossy(&responses).into_owned();
    let mut went_on = reads(upstream).into_iter();
    let statuses = responses.split("HTTP/1.1 ").skip(1);
    let finals = statuses.filter(|status| !status.starts_with("100"));
    let read = finals.map(|status| status.starts_with("200").then(|| went_on.next()).flatten());
    let read: Vec<_> = read.collect();
    assert_eq!(went_on.next(), None, "what went on has a response: {}", bytes.escape_ascii());
    read
}

fn reads(upstream: &Upstream) -> Vec<Read> {
    let seen = upstream.seen.take();
    let read = |request: crate::support::upstream::Request| {
        let words: Vec<_> = request.line().split(' ').map(str::to_owned).collect();
        (words[0].clone(), words[1].clone(), request.body)
    };
    seen.into_iter().map(read).collect()
}

/// How hyper reads the bytes.
async fn hyper_reads(bytes: &[u8]) -> Vec<Read> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let read: Arc<Mutex<Vec<Read>>> = Arc::default();
    let theirs = Arc::clone(&read);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let read = Arc::clone(&theirs);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes().to_vec();
                let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
                read.lock().unwrap().push((parts.method.to_string(), target.to_owned(), body));
                Ok::<_, hyper::Error>(hyper::Response::new(Full::new(Bytes::new())))
            }
        });
        // Bytes that are no request end the connection with an error.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    send(address, bytes, true).await;
    server.await.unwrap();
    let read = read.lock().unwrap();
    read.clone()
}

/// nginx in front of a server that records what it passes on.
struct Nginx {
    address: SocketAddr,
    upstream: Upstream,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    async fn start() -> Self {
        let upstream = Upstream::with_handler(|_| ok("")).await;
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log /dev/null;\n\
             events {{ }}\n\
             http {{\n access_log off; client_header_timeout 300ms; client_body_timeout 300ms;\n\
             keepalive_timeout 300ms; lingering_close off; proxy_ignore_client_abort on;\n\
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             server {{ listen {address}; location / {{ proxy_pass http://{};\n\
             proxy_http_version 1.1; }} }}\n}}\n",
            upstream.address
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let process = Command::new("nginx")
            .args(["-c", "nginx.conf", "-p"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed: .ci/need nginx");
        crate::support::waiting::until(|| std::net::TcpStream::connect(address).is_ok()).await;
        Self { address, upstream, process, _folder: folder }
    }

    async fn reads(&self, bytes: &[u8]) -> Vec<Read> {
        send(self.address, bytes, false).await;
        reads(&self.upstream)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The server may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How many requests went on, and how many of the cases had none.
#[derive(Default)]
struct Tally {
    went_on: usize,
    refused: usize,
}

/// `cases` mutated requests to the gateway, and what went on of each beside what the others read.
async fn compare(seed: u64, cases: usize, with_nginx: bool) -> Tally {
    let upstream = Upstream::with_handler(|_| ok("")).await;
    let short = "limits: { request_head_timeout: 300ms, body_timeout: 300ms, \
                 keep_alive_timeout: 100ms }\n";
    let gateway = Gateway::start(&(anonymous(upstream.address) + short));
    let nginx = if with_nginx { Some(Nginx::start().await) } else { None };
    let (seeds, mut random) = (seeds(), fastrand::Rng::with_seed(seed));
    let mut tally = Tally::default();
    for case in 0..cases {
        let bytes = match seeds.get(case) {
            Some(seed) => seed.clone(),
            None => mutated(&seeds, &mut random),
        };
        let ours = gateway_reads(&gateway, &upstream, &bytes).await;
        let went_on = ours.iter().flatten().count();
        if case < seeds.len() {
            assert!(went_on > 0, "a control goes on: {}", bytes.escape_ascii());
        }
        tally.went_on += went_on;
        tally.refused += usize::from(went_on == 0);
        let mut others = vec![("hyper", hyper_reads(&bytes).await)];
        if let Some(nginx) = &nginx {
            others.push(("nginx", nginx.reads(&bytes).await));
        }
        for (name, theirs) in others {
            let differ = |(ours, theirs): (&Option<Read>, &Read)| {
                ours.as_ref().is_some_and(|ours| ours != theirs)
            };
            let differ = ours.iter().zip(&theirs).any(differ);
            assert!(
                !differ,
                "{}\nwent on as {ours:?}\n{name} reads {theirs:?}",
                bytes.escape_ascii()
            );
        }
    }
    tally
}

async fn compare_at_once(workers: u64, cases: usize, with_nginx: bool) -> Tally {
    let mut all = tokio::task::JoinSet::new();
    for worker in 0..workers {
        all.spawn(compare(worker, cases, with_nginx));
    }
    let mut sum = Tally::default();
    for Tally { went_on, refused } in all.join_all().await {
        sum = Tally { went_on: sum.went_on + went_on, refused: sum.refused + refused };
    }
    println!("{} requests went on, of {} cases nothing did", sum.went_on, sum.refused);
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_odd_bytes_are_forwarded_as_hyper_reads_them() {
    let tally = compare_at_once(16, 60, false).await;
    assert!(tally.went_on > 100 && tally.refused > 100, "both happen often enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx; `make readers` runs it"]
async fn ten_thousand_odd_requests_are_forwarded_as_nginx_and_hyper_read_them() {
    let tally = compare_at_once(32, 320, true).await;
    assert!(tally.went_on > 1000 && tally.refused > 1000, "both happen often enough");
}
