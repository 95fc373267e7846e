//! Faults on the way to Bold BI: in the configuration, on this machine, in between and in the URL.

use super::*;

pub(super) fn in_the_configuration() -> Vec<Row> {
    let plant = || Plant::new("http://127.0.0.1:1/bi", "");
    let to = |url: &str| Plant::new(url, "");
    vec![
        row(
            "the configuration file is missing",
            plant().shell("rm \"${@:4:1}\"; exec \"$@\""),
            78,
            CONFIGURATION,
            &["cannot be read", "No such file", "`--config FILE`"],
        ),
        row(
            "a tab in the configuration",
            plant().edit("    server: main", "\tserver: main"),
            78,
            CONFIGURATION,
            &["gateway.yaml:9:2", "tab"],
        ),
        row(
            "a misspelt key",
            plant().edit("user_source", "user_sorce"),
            78,
            CONFIGURATION,
            &["user_sorce", "did you mean `user_source`?"],
        ),
        row(
            "the `url` goes on to /api",
            to("http://127.0.0.1:1/bi/api"),
            78,
            CONFIGURATION,
            &["`/api`", "end the URL before `/api`"],
        ),
        row(
            "the `url` has the site",
            to("http://127.0.0.1:1/bi/site/site1"),
            78,
            CONFIGURATION,
            &["`/site`", "key `site`"],
        ),
        row(
            "a password for a user of Azure AD",
            plant().password(PASSWORD).edit("source: local", "source: azure_ad"),
            78,
            CONFIGURATION,
            &["no password for users of this source", "replace `password` by `embed_secret`"],
        ),
        row(
            "the secret has a blank at its end",
            plant().secret(&format!("{EMBED_SECRET} \n")),
            78,
            CONFIGURATION,
            &["a blank (U+0020) at its end", "secret"],
        ),
        row(
            "the secret has an empty line behind it, with line ends of Windows",
            plant().secret(&format!("{EMBED_SECRET}\r\n\r\n")),
            78,
            CONFIGURATION,
            &["an empty line after the secret (Windows line ends, CR LF)", "remove the empty line"],
        ),
        row(
            "the secret begins with a byte order mark",
            plant().secret(&format!("\u{feff}{EMBED_SECRET}")),
            78,
            CONFIGURATION,
            &["byte order mark"],
        ),
        row(
            "the secret is empty",
            plant().secret("\n"),
            78,
            CONFIGURATION,
            &["it is empty", "Settings > Embed"],
        ),
        row(
            "the secret's file is missing",
            plant().shell("rm \"${4%/*}/secret\"; exec \"$@\""),
            78,
            CONFIGURATION,
            &["No such file", "create the file"],
        ),
        row(
            "the secret's file may not be read",
            plant().shell(
                "chmod 0 \"${4%/*}/secret\"; \
                 [ \"$(id -u)\" = 0 ] || exec \"$@\"; \
                 exec setpriv --bounding-set=-dac_override,-dac_read_search \"$@\"",
            ),
            78,
            CONFIGURATION,
            &["Permission denied", "let this user read the file"],
        ),
        row(
            "the secret's variable is not set",
            {
                let plant = plant();
                let file = format!("file: \"{}\"", plant.path("secret"));
                plant.edit(&file, "env: ACME_SECRET")
            },
            78,
            CONFIGURATION,
            &["it is not set"],
        ),
    ]
}

pub(super) async fn on_this_machine() -> Vec<Row> {
    let (stand_in, plant) = sound().await;
    let few = plant
        .edit("max_connections: 100 ", "max_connections: 2000 ")
        .shell("ulimit -n 256; exec \"$@\"")
        .with(stand_in);
    let (stand_in, plant) = sound().await;
    let audit =
        plant.edit("tenants:", "audit: { to: /nonexistent/audit.log }\ntenants:").with(stand_in);
    vec![
        row(
            "the audit log has no folder",
            audit,
            1,
            ("machine", "files"),
            &["/nonexistent/audit.log", "make the folder"],
        ),
        row(
            "too few descriptors",
            few,
            0,
            ("machine", "descriptors"),
            &["256 files may be open", "LimitNOFILE"],
        ),
    ]
}

pub(super) async fn on_the_way() -> Vec<Row> {
    let quick = ", timeouts: { connect: 500ms, token_exchange: 500ms }";
    let dead = dead_address();
    let (filtered, filtered_guard) = filtering().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap();
    let (closing, closing_task) = responding("").await;
    let (ssh, ssh_task) = responding("SSH-2.0-OpenSSH_9.2\r\n").await;
    let (stand_in, _) = sound().await;
    let url = |address: SocketAddr| format!("http://{address}/bi");
    let ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, free_address().port()));
    let (second, sound_plant) = sound().await;
    let one_of_two = format!(", addresses: [\"{}\", \"{dead}\"]", second.addr());
    let own = SelfSigned::new("localhost");
    let (secure, _) = sound().await;
    let tls = TlsServer::start(own.acceptor(), secure.addr()).await;
    let http_to_tls = Plant::new(&format!("http://{}/bi", tls.address), "");
    vec![
        row(
            "the host is unknown",
            // A resolver without a network may take ten seconds.
            Plant::new("http://bold-bi.invalid/bi", ", timeouts: { connect: 60s }"),
            1,
            DNS,
            &["`bold-bi.invalid`", "getent hosts"],
        ),
        row(
            "the wrong port, where nothing listens",
            Plant::new(&url(dead), "").shows(dead, "[server]"),
            1,
            TCP,
            &["Connection refused", "nothing listens at", "`ss -ltn`"],
        ),
        row(
            "a firewall drops the packets",
            Plant::new(&url(filtered), quick)
                .with(filtered_guard)
                .shows(filtered, "[server]")
                .shows(format!("{} {}", filtered.ip(), filtered.port()), "[server]"),
            1,
            TCP,
            &["`nc -vz -w 5 127.0.0.1 ", "have 127.0.0.1 -> 127.0.0.1:", "firewalls"],
        ),
        row(
            "only an IPv6 address, at which Bold BI does not listen",
            Plant::new("http://localhost/bi", &format!(", addresses: [\"{ipv6}\"]"))
                .shows(ipv6, "[server]"),
            1,
            TCP,
            &["all are IPv6 addresses", "IPv4 address in `addresses`", "IPv4 only"],
        ),
        row(
            "one of two addresses is dead",
            Plant::new("http://localhost/bi", &one_of_two)
                .with(second)
                .with(sound_plant)
                .shows(dead, "[server]"),
            0,
            TCP,
            &["Connection refused", "can be connected to, and used", "start Bold BI at 127.0.0.1:"],
        ),
        row(
            "`https` for a port of plain HTTP",
            Plant::new(&format!("https://localhost:{}/bi", stand_in.addr().port()), "")
                .shows(stand_in.addr(), "[server]")
                .with(stand_in),
            1,
            TLS,
            &["speaks plain HTTP", "`http://`"],
        ),
        row(
            "`http` for a port of TLS",
            http_to_tls.shows(tls.address, "[server]").with(tls).with(secure),
            1,
            HTTP,
            &["speaks TLS", "`https://`"],
        ),
        row(
            "the server accepts connections and is silent",
            Plant::new(&url(silent_address), quick).shows(silent_address, "[server]").with(silent),
            1,
            HTTP,
            &["no response within", "/bi/health-check` here", "raise `timeouts.token_exchange`"],
        ),
        row(
            "the server closes each connection",
            Plant::new(&url(closing), "").with(closing_task),
            1,
            HTTP,
            &["closed the connection without a response", "serves neither HTTP nor TLS"],
        ),
        row(
            "the port of another protocol",
            Plant::new(&url(ssh), "").with(ssh_task),
            1,
            HTTP,
            &["not in HTTP", "check the port"],
        ),
    ]
}

pub(super) async fn in_the_url() -> Vec<Row> {
    let mut rows = Vec::new();
    for (fault, path) in [("the `url` lacks /bi", ""), ("the `url` has /bi twice", "/bi/bi")] {
        let (stand_in, _) = sound().await;
        let plant = Plant::new(&format!("http://{}{path}", stand_in.addr()), "")
            .shows(stand_in.addr(), "[server]")
            .with(stand_in);
        rows.push(row(fault, plant, 1, URL, &["but at /bi/api/site/site1/token", "/bi`"]));
    }
    rows.push(row(
        "the `url` lacks /bi, and the token endpoint hides from a GET",
        handled("", |request| match request.line() {
            "POST /bi/api/site/site1/token HTTP/1.1" => status(400, "Email address is empty"),
            _ => html("404 Not Found", "nginx"),
        })
        .await
        .edit("/bi\"", "\""),
        1,
        URL,
        &["but at /bi/api/site/site1/token"],
    ));
    rows
}
