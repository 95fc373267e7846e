//! The demo, and the pretend Bold BI alone.

use super::*;

#[test]
fn the_demo_runs_without_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boldgate(&["demo", "--once"]);
    let ended = Process::start({
        command.env("TMPDIR", folder.path());
        command
    })
    .end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // It shows two refusals, and the log explains them.
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.lines().all(|line| line.contains("\"INFO\"")), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its files are gone");
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("demo", ended.stdout);
    });
}

#[tokio::test]
async fn every_line_that_the_demo_tells_to_paste_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boldgate(&["demo", "--port", "0"]);
    command.env("TMPDIR", folder.path());
    let demo = Process::start(command);
    let introduction = demo.stdout(|text| text.contains("Press Ctrl-C to end."));

    let mut statuses = Vec::new();
    for line in introduction.lines().filter(|line| line.trim_start().starts_with("curl ")) {
        let response = paste(line).await;
        if line.contains("/echo") {
            assert!(response.text().contains("reports@acme.example"), "{}", response.text());
        }
        if line.contains("/boldgate/embed/") {
            let reply: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(reply["Data"]["email"], "jane@acme.example", "{reply}");
            assert_eq!(reply["Data"]["StandInFilter"], "[{&Region=IN(North)}]");
        }
        if line.contains("/metrics") {
            assert!(response.text().contains("boldgate_token_exchanges_total"));
        }
        statuses.push(response.status);
    }
    assert_eq!(statuses, [200, 200, 200, 404, 403, 200, 200, 200]);
    let page = introduction.lines().find_map(|l| l.trim().strip_prefix("page")).unwrap();
    let page = paste(&format!("curl {}/", page.split_whitespace().next().unwrap())).await;
    assert!(page.text().contains("/boldgate/embed/authorize"), "{}", page.text());

    // stdout is no terminal here, and yet there is one readable line for each request.
    let lines = demo.stdout(|text| text.matches(" request=").count() == 6);
    for said in ["served tenant=acme token=exchange", "tenant=globex", "refusal=route_closed"] {
        assert!(lines.contains(said), "{said}: {lines}");
    }
    let settings = introduction.lines().find_map(|l| l.trim().strip_prefix("settings")).unwrap();
    assert_eq!(run(&["check", settings.trim()]).code, Some(0));

    let rotation = introduction.lines().find(|line| line.trim().starts_with("boldgate rotate"));
    let words: Vec<_> = rotation.unwrap().split_whitespace().skip(1).collect();
    let rotated = run(&words);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    for line in introduction.lines().filter(|line| line.contains("/v5.0/echo")) {
        assert_eq!(paste(line).await.status, 200, "the gateway goes on");
    }

    demo.signal(Signal::INT);
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its files are gone");
}

/// A demo whose files are in this folder, and what it prints at its start.
fn demo_in(folder: &tempfile::TempDir) -> (Process, String) {
    let mut command = boldgate(&["demo", "--port", "0"]);
    command.env("TMPDIR", folder.path());
    let demo = Process::start(command);
    let introduction = demo.stdout(|text| text.contains("Press Ctrl-C to end."));
    (demo, introduction)
}

fn files_in(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path()).unwrap().count()
}

#[tokio::test]
async fn the_rotation_that_the_demo_tells_of_harms_no_later_call() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, introduction) = demo_in(&folder);
    let line = |holds: &str| introduction.lines().find(|line| line.contains(holds)).unwrap();
    let embed = async || {
        let reply = paste(line("/boldgate/embed/")).await;
        (reply.status, reply.text().contains("access_token"))
    };
    assert_eq!(embed().await, (200, true), "control");
    let words: Vec<_> = line("boldgate rotate").split_whitespace().skip(1).collect();
    for _ in 0..2 {
        let rotated = run(&words);
        assert_eq!(rotated.code, Some(0), "{rotated:?}");
        let active = "the changed configuration is active";
        let rotations = |log: &str| log.matches(active).count();
        let before = rotations(&demo.stderr(|_| true));
        demo.stderr(|log| rotations(log) > before);
        assert_eq!(embed().await, (200, true));
    }
    let api = paste(line("curl -i http://127.0.0.1")).await;
    assert_eq!(api.status, 200, "{}", api.text());
}

#[tokio::test]
async fn sighup_reloads_the_demo_and_each_signal_that_ends_it_removes_its_files() {
    for end in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let folder = tempfile::tempdir().unwrap();
        let (demo, introduction) = demo_in(&folder);
        for stray in [Signal::USR1, Signal::USR2, Signal::ALARM] {
            demo.signal(stray);
        }
        demo.signal(Signal::HUP);
        demo.stderr(|log| log.contains("the configuration and its files have not changed"));
        let line = introduction.lines().find(|line| line.contains("/v5.0/dashboards")).unwrap();
        assert_eq!(paste(line).await.status, 200, "it goes on");
        assert_eq!(files_in(&folder), 1, "control");
        demo.signal(end);
        let ended = demo.end();
        assert_eq!((ended.code, files_in(&folder)), (Some(0), 0), "{end:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_demo_that_is_interrupted_or_cannot_listen_leaves_no_files_behind() {
    let folder = tempfile::tempdir().unwrap();
    let begin = |arguments: &[&str]| {
        let mut command = boldgate(arguments);
        command.env("TMPDIR", folder.path());
        Process::start(command)
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = begin(&["demo", "--port", &port]).end();
    assert_eq!((ended.code, files_in(&folder)), (Some(1), 0), "{}", ended.stderr);
    let once = begin(&["demo", "--once"]);
    // It may end by itself before the signal comes.
    until(|| files_in(&folder) > 0 || once.stdout(|_| true).contains("token")).await;
    once.signal(Signal::INT);
    let ended = once.end();
    assert_eq!(files_in(&folder), 0, "{}", ended.stderr);
}

#[tokio::test]
async fn the_masked_page_of_the_demo_has_no_token_and_shows_the_data_of_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boldgate(&["demo", "--port", "0"]);
    command.env("TMPDIR", folder.path());
    let demo = Process::start(command);
    let introduction = demo.stdout(|text| text.contains("Press Ctrl-C to end."));
    let page = introduction.lines().find_map(|l| l.trim().strip_prefix("masked")).unwrap();
    let page = page.split_whitespace().next().unwrap().strip_prefix("http://").unwrap();
    let (address, page) = page.split_once('/').unwrap();
    let send = async |method: &str, path: &str, lines: &str| {
        let mut client = Client::connect(address.parse().unwrap()).await;
        let head = format!("{method} /{path} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n");
        client.write(head.as_bytes()).await;
        let response = client.response().await;
        let (text, status) = (response.text(), response.status);
        assert!(!text.contains("eyJ") && !text.contains("bgk_"), "{path}: {text}");
        response.header("set-cookie").iter().for_each(|cookie| assert!(!cookie.contains("eyJ")));
        (status, text, response.header("set-cookie").join(""))
    };
    let (status, text, _) = send("GET", page, "").await;
    assert!(status == 200 && text.contains("enableDomainMasking: true"), "{text}");
    assert!(text.contains(">nobody<") && !text.contains("/jwt/"), "{text}");
    let (status, _, cookie) = send("GET", "sign-in/jane@acme.example", "").await;
    assert_eq!(status, 303);
    let jane = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let (_, text, _) = send("GET", page, &jane).await;
    assert!(text.contains(">jane@acme.example<"), "{text}");

    let data = "masked/acme-masked/v1.0/design/loadwidgetdata";
    let own =
        format!("Origin: http://{address}\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n");
    // A page cannot name another user.
    let spoofed = format!("{own}{jane}X-Forwarded-Email: joe@acme.example\r\n");
    let (status, text, _) = send("POST", data, &spoofed).await;
    let served: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &served["user"]), (200, &"jane@acme.example".into()), "{text}");
    assert_eq!(send("POST", data, &own).await.0, 401, "nobody has signed in");
    let stranger = format!(
        "{jane}Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n"
    );
    let (status, text, _) = send("POST", data, &stranger).await;
    assert!(status == 403 && text.contains("origin_refused"), "{text}");
    let export = "masked/acme-masked/v1.0/design/export/dashboard";
    let (status, text, _) = send("POST", export, &format!("{own}{jane}")).await;
    assert!(status == 403 && text.contains("route_closed"), "{text}");
}

/// Sends what a line of the form `curl [-i] [-s] [-X METHOD] URL [-H HEADER] [-d 'BODY']` sends. A
/// header may have `$(curl -s URL)` in it.
async fn paste(line: &str) -> crate::support::client::Response {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |option| words.iter().skip_while(|word| **word != option).nth(1).copied();
    let url = words.iter().find_map(|word| word.strip_prefix("http://")).unwrap();
    let (address, path) = url.split_once('/').unwrap();
    let body = line.split_once(" -d '").map_or("", |(_, rest)| rest.strip_suffix('\'').unwrap());
    let method = after("-X").unwrap_or(if body.is_empty() { "GET" } else { "POST" });
    let mut headers = String::new();
    for header in line.split(" -H ").skip(1) {
        let quote = header.chars().next().unwrap();
        let header = &header[1..=header[1..].find(quote).unwrap()];
        let header = match header.split_once("$(") {
            Some((before, command)) => {
                let inner = Box::pin(paste(command.strip_suffix(')').unwrap())).await;
                format!("{before}{}", inner.text())
            }
            None => header.to_owned(),
        };
        headers += &format!("{header}\r\n");
    }
    let mut client = Client::connect(address.parse().unwrap()).await;
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    client.write((head + body).as_bytes()).await;
    client.response().await
}

#[test]
fn a_demo_whose_port_is_taken_says_how_to_get_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(&["demo", "--port", &port]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&format!("`127.0.0.1:{port}`")), "{}", ended.stderr);
    assert!(ended.stderr.contains("--port 0"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_gateway_of_its_own_works_with_what_the_pretend_bold_bi_alone_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boldgate(&["demo", "--bold-bi-only", "--port", "0"]);
    command.env("TMPDIR", folder.path());
    let bold_bi = Process::start(command);
    let said = bold_bi.stdout(|text| text.contains("Press Ctrl-C to end."));
    let after = |name: &str| {
        let (_, rest) = said.split_once(name).expect(&said);
        rest.split([',', '\n']).next().unwrap().trim().to_owned()
    };
    let secret = write(&folder, "secret", &after("embed secret"));
    let text = config(&after("url"), &secret);
    assert_eq!(after("username"), "reports@acme.example", "the user of that configuration");
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &text));
    let mut client = Client::connect(gateway.address()).await;
    let echo = "GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write(echo.as_bytes()).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().contains("reports@acme.example"), "{}", response.text());

    let port = after("url").rsplit_once(':').unwrap().1.trim_end_matches("/bi").to_owned();
    let taken = run(&["demo", "--bold-bi-only", "--port", &port]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains("--port 0"), "{}", taken.stderr);
    bold_bi.signal(Signal::TERM);
    assert_eq!(bold_bi.end().code, Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "it writes no files");
}
