//! The decisions that `explain` prints.

use super::*;

#[test]
fn explain_prints_the_decision_on_a_request_and_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let key = boldgate::caller::ApiKey::generate().unwrap();
    let text = config("http://127.0.0.1:1/bi", &secret)
        .edit("listeners:\n", "listeners:\n  - { address: 127.0.0.1:7777, callers: required }\n")
        + &format!(
            "callers:\n  portal:\n    api_key: {{ sha256: {} }}\n    may: [{{ tenant: acme, routes: [read] }}]\n",
            key.hash()
        );
    let file = write(&folder, "gateway.yaml", &text);
    let header = format!("X-Api-Key: {}", key.expose());
    let explain = |method: &str, url: &str, header: &str| {
        run(&["explain", method, url, "-H", header, "--config", &file])
    };
    let url = "https://gw.example.com/bi/api/site/site1/v5.0/dashboards";

    let admitted = explain("GET", url, &header);
    assert_eq!((admitted.code, &*admitted.stderr), (Some(0), ""), "{}", admitted.stdout);
    for said in [
        "caller:    portal",
        "tenant:    acme",
        "class:     read",
        "subject:   reports@acme.example",
        "decision:  admitted, with a token of the subject",
    ] {
        assert!(admitted.stdout.contains(said), "{said}: {}", admitted.stdout);
    }
    for (method, url, header, said) in [
        ("POST", url, &*header, "refused, 403 route_closed"),
        ("GET", url, "X-Api-Key: wrong", "refused, 401 caller_unauthenticated"),
        ("GET", "/bi/api/site/nowhere/x", &header, "refused, 404 tenant_unknown"),
        ("GET", "/bi/api/site/site1/../x", &header, "refused, 400 request_refused"),
        ("TRACE", url, &header, "refused, 405 method_refused"),
    ] {
        let refused = explain(method, url, header);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stdout.contains(said), "{said}: {}", refused.stdout);
        let has_class = refused.stdout.contains("class:     write");
        assert_eq!(has_class, said.ends_with("route_closed"), "{}", refused.stdout);
        assert!(!refused.stdout.contains(key.expose()) && !refused.stderr.contains(key.expose()));
    }
}

#[test]
fn explain_knows_pages_by_their_origin() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let text = config("http://127.0.0.1:1/bi", &secret).edit(
        "    site: site1\n",
        "    site: site1\n    cors: { origins: [https://app.example] }\n",
    );
    let file = write(&folder, "gateway.yaml", &text);
    let url = "http://localhost:8080/bi/api/site/site1/v5.0/dashboards";
    let preflight = "Access-Control-Request-Method: GET";
    for (method, headers, code, said) in [
        (
            "GET",
            &["Origin: https://app.example"][..],
            0,
            "origin:    https://app.example, which may",
        ),
        (
            "GET",
            &["Origin: http://localhost:8080"],
            0,
            "origin:    http://localhost:8080, which may",
        ),
        ("GET", &["Sec-Fetch-Site: none"], 0, "decision:  admitted"),
        ("GET", &["Origin: https://evil.example"], 1, "refused, 403 origin_refused"),
        ("GET", &["Origin: https://evil.example"], 1, "not listed in `tenants.acme.cors.origins`"),
        ("OPTIONS", &["Origin: https://app.example", preflight], 0, "responds with 204"),
        ("OPTIONS", &["Origin: null", preflight], 1, "refused, 403 origin_refused"),
    ] {
        let headers = headers.iter().flat_map(|header| ["-H", header]);
        let all = ["explain", method, url, "--config", &file].into_iter().chain(headers);
        let all: Vec<_> = all.collect();
        let explained = run(&all);
        let text = explained.stdout + &explained.stderr;
        assert_eq!(explained.code, Some(code), "{text}");
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn explain_trusts_a_proxy_by_the_given_address() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let key = boldgate::caller::ApiKey::generate().unwrap();
    let text = config("http://127.0.0.1:1/bi", &secret)
        .edit("listeners:\n", "listeners:\n  - { address: 127.0.0.1:7777, callers: required }\n")
        + &format!(
            "callers:\n  proxy:\n    api_key: {{ sha256: {} }}\n    may:\n      - tenant: acme\n        \
         routes: [read]\n        subject: {{ header: X-User, from: [192.0.2.0/24], domains: [acme.example] }}\n",
            key.hash()
        );
    let file = write(&folder, "gateway.yaml", &text);
    let header = format!("X-Api-Key: {}", key.expose());
    let url = "/bi/api/site/site1/v5.0/dashboards";
    for (address, code, said) in [
        ("192.0.2.7", 0, "subject:   ann@acme.example"),
        ("198.51.100.7", 1, "refused, 403 subject_refused"),
    ] {
        let user = ["-H", "X-User: ann@acme.example", "--from", address];
        let explained = ["explain", "GET", url, "--config", &file, "-H", &header];
        let explained = run(&[&explained[..], &user].concat());
        assert_eq!(explained.code, Some(code), "{address}: {}", explained.stdout);
        assert!(explained.stdout.contains(said), "{address}: {}", explained.stdout);
    }
}

/// Options give `explain` the facts of a connection, and it decides as `serve` does.
#[test]
fn explain_and_check_know_certificates_processes_and_expired_keys() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let pem = |name: &str| {
        let own = SelfSigned::new(name);
        let certificate = write(&folder, &format!("{name}.crt"), &own.pem());
        (certificate, write(&folder, &format!("{name}.key"), &own.key_pem()))
    };
    let (known, key) = pem("reports.example");
    let (stranger, _) = pem("stranger.example");
    let tls = format!("{{ certificate_file: {known}, key_file: {key}, client_ca_file: {known} }}");
    let may = "may: [{ tenant: acme, routes: [read] }]";
    let text = config("http://127.0.0.1:1/bi", &secret).edit(
        "listeners:\n",
        &format!(
            "listeners:\n  - {{ address: 127.0.0.1:7778, callers: required, tls: {tls} }}\n  \
             - {{ address: \"unix:/run/boldgate.sock\", callers: required }}\n"
        ),
    ) + &format!(
        "callers:\n  reports:\n    certificates: [{{ san_dns: reports.example }}]\n    {may}\n  \
         cron:\n    unix: {{ uid: 1000 }}\n    api_key: {{ sha256: {}, expires: 2020-01-01T00:00:00Z }}\n    {may}\n",
        "ab".repeat(32)
    );
    let file = write(&folder, "gateway.yaml", &text);
    let socket = ["--listener", "unix:/run/boldgate.sock", "--gid", "1000", "--uid"];
    let url = "/bi/api/site/site1/v5.0/dashboards";
    for (options, code, said) in [
        (vec!["--client-cert", &known], 0, "caller:    reports"),
        (vec!["--client-cert", &stranger], 1, "refused, 403 certificate_unknown"),
        (vec![], 1, "this listener demands a client certificate"),
        ([&socket[..], &["1000"]].concat(), 0, "caller:    cron"),
        ([&socket[..], &["1001"]].concat(), 1, "refused, 401 caller_unauthenticated"),
        (vec!["--listener", "127.0.0.1:0"], 0, "caller:    anonymous"),
        (
            vec!["--listener", "127.0.0.1:0", "-H", "Host: evil.example"],
            1,
            "refused, 421 host_refused",
        ),
    ] {
        let all = [&["explain", "GET", url, "--config", &file], &options[..]].concat();
        let explained = run(&all);
        let text = explained.stdout + &explained.stderr;
        assert_eq!(explained.code, Some(code), "{options:?}: {text}");
        assert!(text.contains(said), "{options:?}: {text}");
    }
    let checked = run(&["check", &file]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stderr.contains("warning: ") && checked.stderr.contains("has passed"));
}
