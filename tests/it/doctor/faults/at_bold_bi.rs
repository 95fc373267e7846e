//! Faults of Bold BI and of what stands in front of it, and credentials that it refuses.

use super::*;

pub(super) async fn in_front_of_bold_bi() -> Vec<Row> {
    let mut rows = Vec::new();
    let (stand_in, plant) = sound().await;
    let health = plant
        .edit("max_connections: 10 ", "max_connections: 10, health_check: { path: /healthz } ")
        .with(stand_in);
    rows.push(row(
        "the path of the health check is wrong",
        health,
        1,
        HEALTH,
        &["GET /healthz: status 404", "`health_check.path`"],
    ));
    for (fault, minutes, cause) in [
        ("the clock here is ten minutes slow", 10_i64, "the server's clock is 10 minutes ahead"),
        ("the clock here is ten minutes fast", -10, "the clock here is 10 minutes ahead"),
    ] {
        let upstream = Upstream::with_handler_for_all(move |_| {
            let now = OffsetDateTime::from(SystemTime::now());
            // Some seconds of the way, so that the whole minutes do not depend on the moment.
            let date = now + time::Duration::seconds(60 * minutes + 5 * minutes.signum());
            let date = date.format(&time::format_description::well_known::Rfc2822).unwrap();
            let body = r#"{"access_token":"canary-token","expires_in":3600}"#;
            let head = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {}", body.len());
            RawResponse { bytes: format!("{head}\r\n\r\n{body}").into_bytes(), keep: true }
        })
        .await;
        let plant = Plant::new(&format!("http://{}/bi", upstream.address), "").with(upstream);
        rows.push(row(fault, plant, 1, CLOCK, &[cause, "NTP"]));
    }
    rows.push(row(
        "the port redirects to https",
        handled("", |_| {
            "HTTP/1.1 301 Moved\r\nLocation: https://bi.example.com/bi?canary\r\nContent-Length: 0\r\n\r\n"
                .into()
        })
        .await,
        1,
        HTTP,
        &["redirected to `https://bi.example.com`", "set the server's `url` to `https://bi.example.com/bi`"],
    ));
    rows.push(row(
        "a token reply that breaks off",
        handled("", |request| {
            let whole = status(405, "POST alone");
            if request.line().starts_with("GET") {
                return whole;
            }
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_vec();
            RawResponse { bytes: half, keep: false }
        })
        .await
        .at_this_time(),
        1,
        EXCHANGE,
        &["in the middle of its response", "size limit"],
    ));
    rows.push(row(
        "the port of another web server",
        handled("", |_| html("404 Not Found", "nginx")).await,
        1,
        EXCHANGE,
        &["404, with a web page", "credential was not judged", "check the port", "in a browser"],
    ));
    rows.push(row(
        "the allow-list of Bold BI refuses this machine",
        handled("", |_| html("403 Forbidden", "Access Denied")).await,
        1,
        EXCHANGE,
        &["403", "blocked before", "POST from `127.0.0.1` to `/bi/api/site/site1/token`"],
    ));
    rows.push(row(
        "the proxy in front does not know the host",
        handled("", |_| status(421, "Misdirected Request")).await,
        1,
        EXCHANGE,
        &["421", "does not serve the host"],
    ));
    rows
}

pub(super) async fn in_the_credential() -> Vec<Row> {
    let mut rows = Vec::new();
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "the wrong embed secret",
        plant.secret("canary-that-is-wrong").with(stand_in),
        1,
        EXCHANGE,
        &["the credential was refused", "embed secret is this site's"],
    ));
    rows.push(row(
        "the wrong password",
        with_password(UserSource::Local, "canary-that-is-wrong").await,
        1,
        EXCHANGE,
        &["the credential was refused", "the password is wrong"],
    ));
    rows.push(row(
        "a password for a user of single sign-on",
        with_password(UserSource::AzureAd, PASSWORD).await,
        1,
        EXCHANGE,
        &["(single sign-on): such a user needs the grant `embed_secret`"],
    ));
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "an unknown user",
        plant.edit(USER, "nobody@acme.example").with(stand_in),
        1,
        EXCHANGE,
        &["unknown user"],
    ));
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "the wrong site",
        plant.edit("site: site1", "site: Site1").with(stand_in),
        1,
        EXCHANGE,
        &["404, with a web page", "compare `site`", "upper and lower case"],
    ));
    let (stand_in, plant) = sound().await;
    let plant = plant.file("new", "canary-that-is-wrong");
    let new = plant.path("new");
    rows.push(row(
        "a new secret that is wrong",
        plant.arguments(&["acme", "--secret-file", &new]).with(stand_in),
        1,
        EXCHANGE,
        &["refuses the new secret from `/", "was not tried", "do not install this file"],
    ));
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "a new secret whose file is missing",
        plant.arguments(&["acme", "--secret-file", "/nonexistent/new"]).with(stand_in),
        1,
        ("machine", "secret"),
        &["/nonexistent/new", "No such file"],
    ));
    rows
}

pub(super) async fn in_bold_bi() -> Vec<Row> {
    let mut rows = Vec::new();
    for (fault, reply, step, cause) in [
        (
            "a sign-in page in place of the token endpoint",
            TokenReply::Html,
            EXCHANGE,
            &["it is a web page (HTML) in place of a token", "sign-in page"][..],
        ),
        (
            "a firewall in front of the token endpoint",
            raw(403, &[("Content-Type", "text/html")], "<html>Blocked</html>"),
            EXCHANGE,
            &["403", "firewall", "POST from `127.0.0.1`"],
        ),
        (
            "IIS asks for its own sign-in",
            raw(401, &[("WWW-Authenticate", "Negotiate")], ""),
            EXCHANGE,
            &["WWW-Authenticate", "requires its own sign-in"],
        ),
        (
            "a compressed token reply",
            raw(200, &[("Content-Encoding", "gzip")], "\u{1f}"),
            EXCHANGE,
            &["gzip", "switch off compression"],
        ),
        (
            "a token that lives for three thousand years",
            raw(200, &[], r#"{"access_token":"canary","expires_in":99999999999}"#),
            EXCHANGE,
            &["more than 100 years", "a proxy or a stub?"],
        ),
        (
            "a token whose life ended before it began",
            raw(200, &[], r#"{"access_token":"canary","expires_in":-60}"#),
            EXCHANGE,
            &["a lifetime below zero", "compare the clock here"],
        ),
    ] {
        let (stand_in, plant) = sound().await;
        stand_in.set_reply(reply);
        rows.push(row(fault, plant.with(stand_in), 1, step, cause));
    }
    rows.push(row(
        "the token endpoint redirects",
        handled("", |request| {
            if request.line().starts_with("POST") {
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: /login?canary\r\n\
                 Content-Length: 0\r\n\r\n"
                    .into()
            } else {
                status(405, "POST alone")
            }
        })
        .await,
        1,
        EXCHANGE,
        &["(307)", "it leads to `http://127.0.0.1:", "/login`", "exempt the token endpoint"],
    ));
    let of_joe = r#"{"access_token":"canary","expires_in":600,"email":"joe@acme.example"}"#;
    rows.push(row(
        "a token for another user",
        handled("", move |request| match request.line() {
            line if line.starts_with("POST") => status(200, of_joe),
            line if line.ends_with("/token HTTP/1.1") => status(405, "POST alone"),
            _ => status(200, "[]"),
        })
        .await,
        0,
        EXCHANGE,
        &["a token of `joe@acme.example`, another user than", "the gateway uses it"],
    ));
    let (stand_in, plant) = sound().await;
    stand_in.set_token_lifetime(Duration::from_secs(60));
    let short = plant.with(stand_in);
    rows.push(row(
        "a token that lives for a minute",
        short,
        0,
        EXCHANGE,
        &["lives for 60 seconds", "not urgent"],
    ));
    for (fault, status, cause) in [
        ("the token endpoint limits the rate", StatusCode::TOO_MANY_REQUESTS, "limits the rate"),
        ("the token endpoint cannot serve", StatusCode::SERVICE_UNAVAILABLE, "a proxy in front"),
    ] {
        let (stand_in, plant) = sound().await;
        // The first request is the one that looks for the token endpoint.
        stand_in.fail_next_token(status, 2);
        rows.push(row(fault, plant.with(stand_in), 1, EXCHANGE, &[cause]));
    }
    rows
}

pub(super) async fn in_its_api() -> Vec<Row> {
    let mut rows = Vec::new();
    let claims = r#"{"aud":"https://bi.other.example/bi/site/site1","exp":4102444800}"#;
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims), encode("canary"));
    let body = format!(r#"{{"access_token":"{token}","expires_in":3600}}"#);
    let (stand_in, plant) = sound().await;
    stand_in.set_reply(raw(200, &[], &body));
    rows.push(row(
        "the site has another URL, and its API accepts no token for this one",
        plant.with(stand_in),
        1,
        REQUEST,
        &["is for the site at `bi.other.example`, but", "*Site Domain*", "*Lock site URL*"],
    ));
    for (fault, status, cause) in [
        (
            "Bold BI does not accept its own token",
            StatusCode::UNAUTHORIZED,
            &["gave just now", "1. look for a proxy"][..],
        ),
        ("the user may not use the API", StatusCode::FORBIDDEN, &["may not use the API"]),
        (
            "the API is not published",
            StatusCode::NOT_FOUND,
            &["no such route", "publish all paths below `/bi/api/site/site1/`"],
        ),
        ("the API fails", StatusCode::BAD_GATEWAY, &["status 502", "health and logs"]),
    ] {
        let (stand_in, plant) = sound_for(UserSource::Local).await;
        stand_in.fail_next_api(status, 1);
        rows.push(row(fault, plant.with(stand_in), 1, REQUEST, cause));
    }
    rows
}
