//! How many instructions it takes to admit a request, by the kind of its credential: counted by
//! valgrind, so the same on a busy machine as on an idle one. Ends with 1 when a kind that a bound
//! is promised for is over it.
//!
//! `cargo bench --bench admission`, or `make admission`; see `benches/README.md`.

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use boldgate::boldbi::embed::authorize_order;
use boldgate::caller::{Admits, ApiKey, ListenerTerms, PeerInfo};

use boldgate::config::Settings;
use boldgate::embed::EmbedOrder;
use boldgate::gateway::{Admission, Arrival, Gatekeeper};
use boldgate::refusal::Refusal;
use boldgate::request::{RawHead, RequestHead};
use http::header::{AUTHORIZATION, HOST, HeaderName};

/// As in the gateway itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A kind of request, and how it is counted.
struct Kind {
    name: &'static str,
    /// Most instructions that it may take more than an anonymous request.
    bound: Option<u64>,
    /// Requests are admitted by each of so many gatekeepers in turn: a token is new to each once.
    gatekeepers: usize,
    /// The difference between the counts of these two numbers of turns is what counts.
    turns: (usize, usize),
}

const KINDS: [Kind; 7] = [
    Kind { name: "anonymous", bound: None, gatekeepers: 1, turns: MANY },
    Kind { name: "api_key", bound: Some(1500), gatekeepers: 1, turns: MANY },
    Kind { name: "jwt_seen", bound: Some(3000), gatekeepers: 1, turns: MANY },
    Kind { name: "embed", bound: Some(4500), gatekeepers: 1, turns: MANY },
    Kind { name: "embed_read", bound: None, gatekeepers: 1, turns: MANY },
    Kind { name: "jwt_first", bound: None, gatekeepers: 20, turns: (0, 1) },
    Kind { name: "no_embed", bound: None, gatekeepers: 1, turns: MANY },
];
/// The tenant embeds, so that the other kinds are counted with all that embedding adds to them.
/// This one is an anonymous request of a tenant that does not.
const NO_EMBED: &str = "no_embed";
/// The call of a web page that embeds, admitted by a JWT that is in the cache, with the value of
/// one filter from its claims; and with its body read and checked, too. A page's request has more
/// headers than others, so that it is counted over an anonymous one with the same.
const EMBED: [&str; 2] = ["embed", "embed_read"];
const PAGE: Kind = Kind { name: "page", bound: None, gatekeepers: 1, turns: MANY };
const MANY: (usize, usize) = (1000, 3000);

/// Most instructions of an anonymous request itself, over which all others are counted.
const MAX_ANONYMOUS: u64 = 7000;

/// Keys of nobody, as like the one that is known as can be: KEY-01. How much of a key is right must
/// not show in the time that a refusal takes.
const REFUSED: [Kind; 3] = [
    Kind { name: "key_unknown", bound: None, gatekeepers: 1, turns: MANY },
    Kind { name: "key_first_byte_differs", bound: None, gatekeepers: 1, turns: MANY },
    Kind { name: "key_last_byte_differs", bound: None, gatekeepers: 1, turns: MANY },
];
/// Most instructions that refusals of these may differ by: less than to compare a key byte by byte.
const REFUSALS_DIFFER: u64 = 16;
/// Each process has hash tables of its own, where now and then two keys meet: the least of so many
/// counts.
const COUNTS_OF_A_REFUSAL: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.as_slice() {
        [] => report(),
        [child, kind, turns] if child == "--admit" => {
            let mut kinds = KINDS.iter().chain(&REFUSED).chain([&PAGE]);
            let kind = kinds.find(|known| known.name == kind).expect("one of the kinds");
            admit(kind, turns.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        _ => {
            let _ = std::io::stderr()
                .write_all(b"it takes no arguments: cargo bench --bench admission\n");
            ExitCode::from(2)
        }
    }
}

/// Counts each kind and prints a table.
fn report() -> ExitCode {
    let mut lines =
        String::from("| request | instructions | over anonymous | bound |\n|---|---|---|---|\n");
    let (mut anonymous, mut kept, page) = (0, true, each(&PAGE));
    for kind in &KINDS {
        let each = each(kind);
        if kind.name == "anonymous" {
            anonymous = each;
        }
        let base = if EMBED.contains(&kind.name) { page } else { anonymous };
        let over = each.saturating_sub(base);
        let is_base = kind.name == "anonymous";
        let bound = if is_base { Some(MAX_ANONYMOUS) } else { kind.bound };
        let within = bound.is_none_or(|bound| if is_base { each } else { over } <= bound);
        kept &= within;
        let bound = match bound {
            Some(bound) if within => bound.to_string(),
            Some(bound) => format!("{bound}, **broken**"),
            None => "–".to_owned(),
        };
        lines += &format!("| {} | {each} | {over} | {bound} |\n", kind.name);
    }
    lines += &format!("| {} | {page} | – | – |\n", PAGE.name);
    let refusals = REFUSED
        .each_ref()
        .map(|kind| (0..COUNTS_OF_A_REFUSAL).map(|_| each(kind)).min().expect("it is counted"));
    let least = refusals.iter().min().expect("there are some");
    for (kind, count) in REFUSED.iter().zip(&refusals) {
        let differs = count - least;
        let within = differs <= REFUSALS_DIFFER;
        kept &= within;
        let broken = if within { "" } else { ", **broken**" };
        lines += &format!(
            "| {} | {count} | {differs} over the least | {REFUSALS_DIFFER}{broken} |\n",
            kind.name
        );
    }
    std::io::stdout().write_all(lines.as_bytes()).expect("stdout is open");
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The instructions of one admission of this kind.
fn each(kind: &Kind) -> u64 {
    let (few, many) = kind.turns;
    let admissions = ((many - few) * kind.gatekeepers) as u64;
    (counted(kind, many) - counted(kind, few)) / admissions
}

/// The instructions of a whole process that admits so many times.
fn counted(kind: &Kind, turns: usize) -> u64 {
    let own = std::env::current_exe().expect("Linux tells");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(own);
    valgrind.args(["--admit", kind.name, &turns.to_string()]);
    let output = valgrind.output().expect("valgrind is installed: .ci/need valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("Collected : "));
    let count = count.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind tells no count: {text}"))
}

fn admit(kind: &Kind, turns: usize) {
    let key = ApiKey::generate().expect("the system has randomness");
    let files = tempfile::tempdir().expect("there is a folder for temporary files");
    let mut config = config(files.path(), &key);
    if kind.name == NO_EMBED {
        let of_embed =
            |line: &&str| ["embed:", "cors:", "[embed]"].iter().any(|key| line.contains(key));
        config = config.split_inclusive('\n').filter(|line| !of_embed(line)).collect();
    }
    let gatekeepers: Vec<_> = (0..kind.gatekeepers).map(|_| gatekeeper(&config)).collect();
    let credential = match kind.name {
        "anonymous" | "page" | NO_EMBED => None,
        "jwt_seen" | "jwt_first" | "embed" | "embed_read" => {
            Some((AUTHORIZATION, format!("Bearer {TOKEN}")))
        }
        name => Some((X_API_KEY, key_sent(name, &key))),
    };
    let admits = if credential.is_some() { Admits::Known } else { Admits::Anonymous };
    let terms = ListenerTerms { admits, hosts: None, trusted_proxies: None, ui: None };
    let raw = match kind.name {
        "page" => head_of_page("/v4.0/items", None),
        "embed" | "embed_read" => head_of_page("/boldgate/embed/authorize", credential),
        _ => head(credential),
    };
    let known = head(Some((X_API_KEY, key.expose().to_owned())));
    let refused = REFUSED.iter().any(|other| other.name == kind.name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("it starts").block_on(async {
        if refused {
            // The keys that refused keys are compared with.
            let head = RequestHead::parse(&known);
            let admission = decide(&gatekeepers[0], &terms, &head.expect("it is good")).await;
            assert!(admission.is_ok(), "the known key is admitted");
        }
        for _ in 0..turns {
            for gatekeeper in &gatekeepers {
                let head = RequestHead::parse(&raw);
                let admission = decide(gatekeeper, &terms, &head.expect("it is good")).await;
                assert_eq!(admission.is_err(), refused);
                if kind.name == "embed_read" {
                    let _ = black_box(read(admission.as_ref().expect("it is admitted")));
                }
                let _ = black_box(admission);
            }
        }
    });
}

/// All that is decided on a request.
async fn decide(
    gatekeeper: &Gatekeeper,
    terms: &ListenerTerms,
    head: &RequestHead<'_>,
) -> Result<Admission, Refusal> {
    let peer = PeerInfo::default();
    match gatekeeper.arrive(terms, &peer, head)? {
        Arrival::Request(arrived) => gatekeeper.admit(terms, &peer, head, arrived).await,
        Arrival::Preflight(_) | Arrival::Passage(_) => unreachable!("none is sent"),
    }
}

/// The order of a page, from the body of its call.
fn read(admission: &Admission) -> EmbedOrder {
    let tenant = admission.permit.tenant();
    let settings = tenant.embed.as_ref().expect("the tenant embeds");
    let grant = admission.embed.as_deref().expect("it is an embed call").clone();
    let subject = admission.permit.subject().as_str();
    authorize_order(BODY.as_bytes(), settings, grant, subject).expect("it is good")
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The key that a request of this kind sends.
fn key_sent(kind: &str, known: &ApiKey) -> String {
    let known = known.expose();
    match kind {
        "key_unknown" => "bgk_".to_owned() + &"k".repeat(known.len() - 4),
        "key_first_byte_differs" => format!("B{}", &known[1..]),
        // The last digit of a key of this size stands for four bits, so this one ends no valid key.
        "key_last_byte_differs" => format!("{}_", &known[..known.len() - 1]),
        _ => known.to_owned(),
    }
}

fn gatekeeper(config: &str) -> Gatekeeper {
    let settings = Settings::parse(config, "bench.yaml").expect("it is good");
    Gatekeeper::new(settings.caller_auth, settings.tenants, settings.policy, settings.throttles)
}

fn head(credential: Option<(HeaderName, String)>) -> RawHead {
    let usual = [
        (HOST, "localhost:8080"),
        (HeaderName::from_static("user-agent"), "reports/2.1 (+https://example.com)"),
        (HeaderName::from_static("accept"), "application/json"),
        (HeaderName::from_static("accept-encoding"), "gzip, br"),
    ];
    let usual = usual.map(|(name, value)| (name, value.to_owned()));
    let mut raw = String::from("GET /bi/api/site/site1/v4.0/items?top=20 HTTP/1.1\r\n");
    for (name, value) in usual.into_iter().chain(credential) {
        raw += &format!("{name}: {value}\r\n");
    }
    raw += "\r\n";
    RawHead::read(raw.as_bytes()).expect("it is a head")
}

/// The call of a page, or another request of it.
fn head_of_page(route: &str, credential: Option<(HeaderName, String)>) -> RawHead {
    let mut raw = format!(
        "POST /bi/api/site/site1{route} HTTP/1.1\r\nhost: localhost:8080\r\nuser-agent: Mozilla/5.0\r\n\
         accept: */*\r\naccept-encoding: gzip, br\r\norigin: https://app.example\r\n\
         sec-fetch-site: cross-site\r\nsec-fetch-mode: cors\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n",
        BODY.len()
    );
    if let Some((name, value)) = credential {
        raw += &format!("{name}: {value}\r\n");
    }
    raw += "\r\n";
    RawHead::read(raw.as_bytes()).expect("it is a head")
}

fn config(files: &Path, key: &ApiKey) -> String {
    let write = |name: &str, text: &str| {
        let path = files.join(name);
        std::fs::write(&path, text).expect("files can be written");
        path.display().to_string()
    };
    let jwks = write(
        "jwks.json",
        &format!(
            r#"{{"keys":[{{"kty":"RSA","kid":"2026-11","alg":"RS256","e":"AQAB","n":"{MODULUS}"}}]}}"#
        ),
    );
    format!(
        "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required }}
servers:
  main: {{ url: https://bi.example.com/bi }}
tenants:
  acme:
    server: main
    site: site1
    cors: {{ origins: [https://app.example] }}
    embed: {{ datasource_filters: [{{ name: Tenant, claim: tenant }}] }}
    credential:
      grant: embed_secret
      username: reports@acme.example
      embed_secret: {{ file: {} }}
      user_source: azure_ad
callers:
  batch:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: acme, routes: [read] }} ]
  portal:
    jwt:
      issuer: https://login.example.com/
      audience: boldgate
      algorithms: [RS256]
      jwks_file: {jwks}
    may:
      - {{ tenant: acme, routes: [read] }}
      - {{ tenant: acme, routes: [embed], subject: {{ claim: email, domains: [acme.example] }} }}
",
        write("secret", "an-embed-secret"),
        key.hash(),
    )
}

/// The body of an embed call as version 14.2 of the SDK sends it.
const BODY: &str = r#"{"embedQuerString":"embed_nonce=6734f2e0-47d0-4465-ada3-35101315b686&embed_dashboard_id=c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff&embed_dashboard_ids=&embed_dashboard_path=&embed_dashboard_paths=&pinboard_name=&embed_mode=view&embed_timestamp=1795623333&embed_expirationtime=86400","embedQueryString":"embed_nonce=6734f2e0-47d0-4465-ada3-35101315b686&embed_dashboard_id=c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff&embed_dashboard_ids=&embed_dashboard_path=&embed_dashboard_paths=&pinboard_name=&embed_mode=view&embed_timestamp=1795623333&embed_expirationtime=86400","dashboardServerApiUrl":"https://bi.example.com/bi/api/site/site1"}"#;

/// Of an RSA key of 2,048 bits that was thrown away after it had signed [`TOKEN`].
const MODULUS: &str = "\
     nfWZWfoQRTqO4GB21te83cjWBU05amBrnfpUm8YE9OnR3tRRXkuMqJDPdC2Vs_wMzviu_ZqU6-MJ2iYlZL8l1yBJ8Y\
     38o61P77HOj5KXJzD-dpDgUeCTXCgWeJaD2k_KUCbM1gQVw48_2C8QFcF-n0OWciDhG3IeyATLUfJZMXEVBu60zeDf\
     V-_NIlzhA7QNEGmz8M3xj43kezTfMPRoJZD1FjGBpHiJ_QtL_yz2uCABtAO7t8l567Ui_U-tEdrWRdLhZgWdTHtQ7W\
     QWNFl3oEx92SQCatMmCj6ianrgXgviLCUhnW37RZWFcqdF5IHskKf7IexqFhwNy6M0e0BWQw";

/// Good until the year 2100.
const TOKEN: &str = "\
     eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjIwMjYtMTEifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV\
     4YW1wbGUuY29tLyIsImF1ZCI6ImJvbGRnYXRlIiwic3ViIjoiMjQ4Mjg5NzYxMDAxIiwiZW1haWwiOiJhbm5AYWNtZ\
     S5leGFtcGxlIiwidGVuYW50IjoiYWNtZSIsInNjb3BlIjoib3BlbmlkIHByb2ZpbGUgZW1haWwiLCJpYXQiOjE3NjQ\
     wMDAwMDAsImV4cCI6NDEwMjQ0NDgwMCwianRpIjoiMDE5MGE1YzgtN2MxZS03ZDNhLTlkMmItM2YxZTVhNmI3YzhkI\
     n0.Uo3C1TowTCtfgqkZa-Ps9yB-Y6KIV4zZEYVlIjXVztEOZWLWmhgzWpimD-8nGfFNzEN5YkbhzbwyzBcwNvixrFE\
     Trvzc9-VWqjmk9KmIdqw-FhZwbTuqhpK2m768TLzTOy2C9cVx42I_91CtGJTodsRepcULcCCiF41a0Sxbz_DQcG3k0\
     XmxzbVN2oZH4S3cxP1DKgjsBTvcLi2_aiM5l5fflKgoNxEZJOmKYSkIwT2zNdKjV5ya9vFd08lY7bygg4OX-wafWXM\
     v6OSC_bNONlLlRxqMLDfcPnb-2r-gJwkkhDdX3Ysu9d1M19QcvP4_0UxGVH10z8WBpdIs_nymiw";
