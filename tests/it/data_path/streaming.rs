//! Bodies on their way: responses that do not wait for the end of the request, both directions at
//! once, and ends that come too early on either side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::http1::read_until;
use crate::support::measured_process::{MeasuredProcess, megabytes};
use crate::support::scripted::{
    ScriptedUpstream, Wire, noise, on_server, raw_response, request, with_body,
};
use crate::support::upstream::{CANARY_TOKEN, RawResponse, Upstream, ok};
use crate::support::waiting::until;

const SOON: Duration = Duration::from_secs(1);

fn chunked_head(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
}

#[tokio::test]
async fn a_response_that_comes_before_the_end_of_the_upload_is_passed_on() {
    for (what, closes, after) in [
        ("at once, without reading", false, Duration::ZERO),
        ("later, when the socket is full", false, Duration::from_millis(300)),
        ("and closes", true, Duration::ZERO),
        ("later, and closes", true, Duration::from_millis(300)),
    ] {
        let upstream = ScriptedUpstream::new(move |mut wire: Wire| async move {
            sleep(after).await;
            wire.write(raw_response("413 Too Large", "too large for us")).await?;
            if !closes {
                // The client neither reads nor closes, until the gateway does.
                while wire.stream.ready(tokio::io::Interest::ERROR).await.is_err() {}
            }
            Ok(())
        })
        .await;
        let gateway = Gateway::start(&anonymous(upstream.address));
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        let (reading, mut writing) = stream.into_split();
        let upload = tokio::spawn(async move {
            let head =
                format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
            writing.write_all(head.as_bytes()).await?;
            writing.write_all(&vec![b'x'; 50_000_000]).await
        });
        let mut client = Client::over(tokio::io::join(reading, tokio::io::sink()));
        let response = client.response().await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (413, "too large for us"),
            "{what}"
        );
        assert_eq!(response.header("connection"), ["close"], "{what}");
        let line = gateway.access_lines(1).await.remove(0);
        assert_eq!(line["boldgate.outcome"], "upstream_client_error", "{what}");
        upload.abort();
    }
}

#[tokio::test]
async fn an_upstream_may_answer_each_chunk_as_it_arrives() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        echo_chunks(&mut wire).await
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(chunked_head(PATH).as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    let talk = async {
        let end = read_until(&mut stream, &mut buffer, b"\r\n\r\n").await.unwrap().unwrap();
        assert!(buffer.starts_with(b"HTTP/1.1 200"));
        buffer.drain(..end);
        for number in 0..50 {
            let chunk = format!("9\r\nnumber {number:02}\r\n");
            stream.write_all(chunk.as_bytes()).await.unwrap();
            let end =
                read_until(&mut stream, &mut buffer, chunk.as_bytes()).await.unwrap().unwrap();
            assert_eq!(buffer[..end], *chunk.as_bytes());
            buffer.drain(..end);
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        read_until(&mut stream, &mut buffer, b"0\r\n\r\n").await.unwrap().unwrap();
    };
    timeout(Duration::from_secs(10), talk).await.expect("each chunk comes back before the next");
}

/// Sends each chunk of the request back before it reads the next.
async fn echo_chunks(wire: &mut Wire) -> std::io::Result<()> {
    loop {
        let line = read_until(&mut wire.stream, &mut wire.buffer, b"\r\n").await?.unwrap();
        let size = std::str::from_utf8(&wire.buffer[..line - 2]).unwrap().to_owned();
        let size = usize::from_str_radix(&size, 16).unwrap();
        crate::support::http1::fill(&mut wire.stream, &mut wire.buffer, line + size + 2).await?;
        let chunk: Vec<u8> = wire.buffer.drain(..line + size + 2).collect();
        wire.write(chunk).await?;
        if size == 0 {
            wire.wait_for_end().await;
            return Ok(());
        }
    }
}

#[tokio::test]
async fn ten_megabytes_each_way_at_the_same_time_do_not_block_each_other() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        // The server reads nothing while it cannot write.
        echo_chunks(&mut wire).await
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let body = noise(10_000_000);
    let (reading, mut writing) = TcpStream::connect(gateway.address()).await.unwrap().into_split();
    let sent = body.clone();
    let upload = tokio::spawn(async move {
        writing.write_all(chunked_head(PATH).as_bytes()).await.unwrap();
        for piece in sent.chunks(100_000) {
            writing.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
            writing.write_all(piece).await.unwrap();
            writing.write_all(b"\r\n").await.unwrap();
        }
        writing.write_all(b"0\r\n\r\n").await.unwrap();
        writing
    });
    // This client reads slowly, so the response is still under way when the request was sent.
    let mut client = Client::over(tokio::io::join(reading, tokio::io::sink()));
    sleep(Duration::from_millis(200)).await;
    let response = client.response().await;
    assert!(response.whole && response.body == body, "{} bytes came back", response.body.len());
    upload.await.unwrap();
}

#[tokio::test]
async fn a_client_that_reads_only_after_sending_all_gets_a_response_that_came_earlier() {
    let upstream = ScriptedUpstream::new(|wire: Wire| async move {
        let Wire { stream, mut buffer, head } = wire;
        let (mut reading, mut writing) = stream.into_split();
        let responding = tokio::spawn(async move {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n";
            writing.write_all(head.as_bytes()).await?;
            writing.write_all(&noise(10_000_000)).await?;
            Ok::<_, std::io::Error>(writing)
        });
        let body = crate::support::http1::read_body(&mut reading, &mut buffer, &head).await?;
        assert!(body == noise(10_000_000));
        let _writing = responding.await.unwrap()?;
        let _ = reading.read(&mut [0]).await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    let body = noise(10_000_000);
    let sent = timeout(Duration::from_secs(20), client.write(&with_body("PUT", PATH, &body))).await;
    sent.expect("the upload does not wait for the response to be read");
    let response = client.response().await;
    assert!(response.whole && response.body == body);
}

#[tokio::test]
async fn when_the_client_disconnects_its_request_ends_at_the_server_and_frees_its_connection() {
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let upstream = ScriptedUpstream::new(move |mut wire: Wire| {
        let begun = Arc::clone(&begun);
        async move {
            if wire.head.contains("/next") {
                return wire.write(raw_response("200 OK", "next")).await;
            }
            if wire.head.contains("/download") {
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nbegin").await?;
            }
            begun.notify_one();
            wire.wait_for_end().await;
            Ok(())
        }
    })
    .await;
    let gateway = Gateway::start(&on_server(&anonymous(upstream.address), "max_connections: 1"));
    for (what, bytes) in [
        ("before the response", request("GET", PATH)),
        (
            "before the response to a body",
            String::from_utf8(with_body("POST", PATH, b"x")).unwrap(),
        ),
        (
            "in mid-upload",
            format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin"),
        ),
        ("in mid-upload of chunks", chunked_head(PATH) + "5\r\nbegin\r\n"),
        ("in mid-download", request("GET", &format!("{PATH}/download"))),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.write(bytes.as_bytes()).await;
        timeout(Duration::from_secs(5), told.notified()).await.expect(what);
        drop(client);
        upstream.seen.all_closed_within(SOON).await;
        let response = timeout(SOON, gateway.get(&format!("{PATH}/next"))).await.expect(what);
        assert_eq!(response.text(), "next", "{what}");
    }
    let lines = gateway.access_lines(10).await;
    let gone = lines.iter().filter(|line| line["boldgate.outcome"] == "client_gone").count();
    assert_eq!(gone, 5);
    until(|| gateway.telemetry.connections.get() == 0).await;
}

#[tokio::test]
async fn a_response_that_breaks_off_at_the_server_breaks_off_for_the_client() {
    let upstream = Upstream::with_handler(|request| {
        let text = if request.line().contains("/chunked") {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
        };
        RawResponse { bytes: text.into(), keep: false }
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for (path, version) in
        [("/length", "1.1"), ("/chunked", "1.1"), ("/length", "1.0"), ("/chunked", "1.0")]
    {
        let response = gateway
            .send(format!("GET {PATH}{path} HTTP/{version}\r\nHost: localhost\r\n\r\n"))
            .await;
        assert_eq!(response.status, 200);
        assert!(!response.whole, "{path} in HTTP/{version} looks whole: {:?}", response.text());
    }
    for line in gateway.access_lines(4).await {
        assert_eq!(line["boldgate.outcome"], "truncated");
        assert_eq!(line["http.response.body.size"], 5);
    }
}

#[tokio::test]
async fn a_post_that_gets_no_response_is_not_sent_again() {
    let upstream = Upstream::with_handler(|_| RawResponse { bytes: Vec::new(), keep: false }).await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for (method, body) in [("POST", &b"hello"[..]), ("POST", b""), ("DELETE", b""), ("GET", b"")] {
        let before = upstream.seen.requests().len();
        let response = gateway.send(with_body(method, PATH, body)).await;
        assert_eq!((response.status, response.code().as_str()), (502, "upstream_invalid"));
        assert_eq!(upstream.seen.requests().len(), before + 1, "{method}");
    }
}

#[tokio::test]
async fn on_a_connection_that_the_server_closes_only_a_safe_request_is_sent_again() {
    // The server answers one request on each connection, and closes it when the second arrives. To
    // the gateway that looks like a connection that was closed while it was idle.
    for (method, body, status, hits) in [
        ("GET", &b""[..], 200, 3),
        ("HEAD", b"", 200, 3),
        ("POST", b"hello", 502, 2),
        ("POST", b"", 502, 2),
        ("DELETE", b"", 502, 2),
    ] {
        let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
            wire.body().await?;
            let head = wire.head.starts_with("HEAD");
            wire.write(raw_response("200 OK", if head { "" } else { "fine" })).await?;
            wire.next().await
        })
        .await;
        let second_too = Arc::clone(&upstream.seen);
        let gateway = Gateway::start(&anonymous(upstream.address));
        assert_eq!(gateway.get(PATH).await.status, 200);
        let mut client = Client::connect(gateway.address()).await;
        let bytes = if body.is_empty() {
            request(method, PATH).into_bytes()
        } else {
            with_body(method, PATH, body)
        };
        client.write(&bytes).await;
        let response = client.try_response(method == "HEAD").await.unwrap();
        assert_eq!(response.status, status, "{method}");
        // The second request on the first connection is not counted by the script.
        assert_eq!(second_too.opened.load(SeqCst), hits - 1, "{method}");
    }
}

#[tokio::test]
async fn the_time_of_a_try_that_got_no_response_is_the_servers_and_not_ours() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        wire.write(raw_response("200 OK", "fine")).await?;
        wire.next().await?;
        sleep(Duration::from_millis(400)).await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for _ in 0..2 {
        assert_eq!(gateway.get(PATH).await.status, 200);
    }
    let seconds = |name: &str| -> f64 {
        let page = gateway.telemetry.render();
        let series = format!("{name}_seconds_sum{{");
        let of_series = page.lines().filter(|line| line.starts_with(&series));
        of_series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let ours = seconds("boldgate_added_duration");
    let theirs = seconds("boldgate_upstream_response_duration");
    assert!(ours < 0.3 && theirs >= 0.4, "{ours}, {theirs}");
}

#[tokio::test]
async fn a_server_that_stays_silent_is_given_up() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        if wire.head.contains("/half") {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await?;
        }
        wire.wait_for_end().await;
        Ok(())
    })
    .await;
    let config = on_server(&anonymous(upstream.address), "timeouts: { read: 300ms }");
    let gateway = Gateway::start(&config);
    for bytes in [request("GET", PATH).into_bytes(), with_body("POST", PATH, b"hello")] {
        let begun = Instant::now();
        let response = gateway.send(bytes).await;
        assert_eq!((response.status, response.code().as_str()), (504, "upstream_timeout"));
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
    let response = gateway.get(&format!("{PATH}/half")).await;
    assert!(!response.whole);
    upstream.seen.all_closed_within(SOON).await;
    assert_eq!(gateway.access_lines(3).await[2]["boldgate.outcome"], "truncated");
}

#[tokio::test]
async fn a_client_that_sends_its_body_slowly_is_no_fault_of_the_server() {
    let upstream = Upstream::echo().await;
    let config = on_server(&anonymous(upstream.address), "timeouts: { read: 200ms }");
    let gateway = Gateway::start(&config);
    let mut client = Client::connect(gateway.address()).await;
    client.write((chunked_head(PATH) + "5\r\nhello\r\n").as_bytes()).await;
    sleep(Duration::from_millis(500)).await;
    client.write(b"0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "body of 5 bytes");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_body_is_told_so() {
    let upstream = Upstream::echo().await;
    let config = anonymous(upstream.address) + "limits: { body_timeout: 200ms }\n";
    let gateway = Gateway::start(&config);
    let response = gateway.send(chunked_head(PATH) + "5\r\nhel").await;
    assert_eq!((response.status, response.code().as_str()), (408, "request_timeout"));
    assert_eq!(upstream.seen.requests().len(), 0, "half a body is no request");
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_response_is_disconnected() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await?;
        loop {
            wire.write(vec![b'x'; 1 << 20]).await?;
        }
    })
    .await;
    let config = anonymous(upstream.address) + "limits: { body_timeout: 300ms }\n";
    let gateway = Gateway::start(&config);
    let mut client = Client::connect(gateway.address()).await;
    client.write(request("GET", PATH).as_bytes()).await;
    // The client stays connected and reads nothing.
    assert_eq!(gateway.access_lines(1).await[0]["boldgate.outcome"], "client_gone");
    upstream.seen.all_closed_within(SOON).await;
    let telemetry = &gateway.telemetry;
    until(|| telemetry.connections.get() == 0).await;
}

#[tokio::test]
async fn the_access_line_counts_the_bytes_of_both_bodies() {
    let upstream = Upstream::with_handler(|_| ok(&"y".repeat(70_000))).await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    gateway.send(with_body("POST", PATH, &noise(200_000))).await;
    let mut client = Client::connect(gateway.address()).await;
    client.write((chunked_head(PATH) + "5\r\nhello\r\n0\r\n\r\n").as_bytes()).await;
    client.response().await;
    let lines = gateway.access_lines(2).await;
    for (line, received) in lines.iter().zip([200_000, 5]) {
        assert_eq!(line["http.request.body.size"], received);
        assert_eq!(line["http.response.body.size"], 70_000);
        assert_eq!(line["boldgate.outcome"], "served");
        assert_eq!(line["url.path"], PATH);
    }
}

#[tokio::test]
async fn each_piece_of_a_response_reaches_the_client_before_the_next_is_there() {
    // Bodies with a length, in chunks, and up to the end of the connection.
    for framing in ["Content-Length: 11\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        let told = Arc::new(Notify::new());
        let read = Arc::clone(&told);
        let upstream = ScriptedUpstream::new(move |mut wire: Wire| {
            let read = Arc::clone(&read);
            async move {
                let chunked = framing.contains("chunked");
                wire.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n")).await?;
                read.notified().await;
                wire.write(if chunked { "5\r\nfirst\r\n" } else { "first" }).await?;
                read.notified().await;
                wire.write(if chunked { "6\r\nsecond\r\n0\r\n\r\n" } else { "second" }).await
            }
        })
        .await;
        let gateway = Gateway::start(&anonymous(upstream.address));
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        // One byte of a next request must not block the response.
        stream.write_all((request("GET", PATH) + "G").as_bytes()).await.unwrap();
        let mut buffer = Vec::new();
        for part in [&b"\r\n\r\n"[..], b"first", b"second"] {
            let came = timeout(Duration::from_secs(5), read_until(&mut stream, &mut buffer, part));
            came.await.unwrap_or_else(|_| panic!("{framing:?}: {part:?} did not come")).unwrap();
            told.notify_one();
        }
    }
}

#[tokio::test]
async fn a_server_that_reads_slowly_gets_the_end_of_the_body_after_its_response_has_begun() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        loop {
            wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            // By now the sockets between us are full, and the end of the body waits in the gateway.
            sleep(Duration::from_millis(500)).await;
            let body = wire.body().await?;
            let text = format!("{} bytes", body.len());
            wire.write(format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len())).await?;
            wire.next().await?;
        }
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for length in [3_000_000, 5_000_000, 7_000_000] {
        let response = gateway.send(with_body("PUT", PATH, &noise(length))).await;
        assert_eq!(response.text(), format!("{length} bytes"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_through_two_hundred_megabytes_each_way() {
    const SIZE: usize = 200_000_000;
    let taken = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&taken);
    let upstream = ScriptedUpstream::new(move |mut wire: Wire| {
        let taken = Arc::clone(&theirs);
        async move {
            let mut piece = vec![b'x'; 1 << 16];
            if wire.head.starts_with("PUT") {
                let mut left = SIZE - wire.buffer.len();
                while left > 0 {
                    left -= wire.stream.read(&mut piece).await?;
                }
                taken.store(SIZE, SeqCst);
                return wire.write(raw_response("200 OK", "taken")).await;
            }
            if wire.head.contains("/download") {
                wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await?;
                let mut left = SIZE;
                while left > 0 {
                    left -= wire.stream.write(&piece[..piece.len().min(left)]).await?;
                }
                return Ok(());
            }
            wire.write(raw_response("200 OK", "warm")).await
        }
    })
    .await;
    let gateway = MeasuredProcess::serve(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address).await;
    client.write(request("GET", PATH).as_bytes()).await;
    assert_eq!(client.response().await.text(), "warm");
    let before = gateway.peak_memory();

    let head = format!("PUT {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
    client.write(head.as_bytes()).await;
    let piece = vec![b'x'; 1 << 16];
    let mut left = SIZE;
    while left > 0 {
        left -= client.stream.write(&piece[..piece.len().min(left)]).await.unwrap();
    }
    assert_eq!(client.response().await.text(), "taken");
    assert_eq!(taken.load(SeqCst), SIZE);
    let uploaded = gateway.peak_memory();

    client.write(request("GET", &format!("{PATH}/download")).as_bytes()).await;
    let mut buffer = Vec::new();
    let end = read_until(&mut client.stream, &mut buffer, b"\r\n\r\n").await.unwrap().unwrap();
    let mut received = buffer.len() - end;
    let mut piece = vec![0; 1 << 16];
    while received < SIZE {
        let read = client.stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "the response ended after {received} bytes");
        received += read;
        if received % 64 == 0 {
            // A client slower than the server must not make the gateway buffer the difference.
            tokio::task::yield_now().await;
        }
    }
    let downloaded = gateway.peak_memory();
    // The kernel counts per processor: a later peak can read a little lower than an earlier one.
    let growth = [uploaded, downloaded].map(|peak| megabytes(peak.saturating_sub(before)));
    println!(
        "peak memory: {:.1} MiB before; 200 MB up: +{:.1} MiB; and 200 MB down: +{:.1} MiB",
        megabytes(before),
        growth[0],
        growth[1]
    );
    assert!(growth[1] < 16.0, "memory grew by {growth:?} MiB");
}

/// Our token, in an error that comes in pieces while the request is still going up.
#[tokio::test]
async fn a_token_is_hidden_in_a_response_that_comes_before_the_end_of_the_request() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        let at = wire.head.find("Bearer ").expect("a token is put on");
        let shown = wire.head[at..].lines().next().unwrap().to_owned();
        let (first, second) = shown.split_at(shown.len() / 2);
        let length = shown.len();
        wire.write(format!("HTTP/1.1 400 X\r\nContent-Length: {length}\r\n\r\n{first}")).await?;
        sleep(Duration::from_millis(50)).await;
        wire.write(second.to_owned()).await
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n");
    client.write(format!("{head}\r\nbegin").as_bytes()).await;
    let response = client.response().await;
    assert_eq!(response.status, 400);
    assert!(response.text().starts_with("Bearer ****"), "{}", response.text());
    assert!(!response.text().contains(CANARY_TOKEN), "{}", response.text());
}
