//! Requests to the admin listener, and its page of metrics as a strict reader takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::client::{Client, Response};
use super::edit::Edit;

pub async fn ask(address: SocketAddr, method: &str, path: &str) -> Response {
    ask_with(address, method, path, "").await
}

pub async fn ask_with(address: SocketAddr, method: &str, path: &str, lines: &str) -> Response {
    let mut client = Client::connect(address).await;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n");
    client.write(request.as_bytes()).await;
    if method == "HEAD" { client.response_to_head().await } else { client.response().await }
}

/// A document of the status API, which shows no canary.
pub async fn read_json(address: SocketAddr, path: &str) -> serde_json::Value {
    let response = ask(address, "GET", path).await;
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    assert_eq!(response.header("content-type"), ["application/json"], "{path}");
    // That host is in the configuration of most tests.
    let shown = response.text().edit_any("canary-host", "");
    assert!(!shown.contains("canary"), "{path}: {shown}");
    serde_json::from_str(&response.text()).unwrap()
}

/// The problems of the overview, each as `severity section: text`.
pub async fn problems(address: SocketAddr) -> Vec<String> {
    let overview = read_json(address, "/api/v1/status").await;
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let of = |one: &serde_json::Value| {
        format!("{} {}: {}", text(&one["severity"]), text(&one["section"]), text(&one["text"]))
    };
    overview["problems"].as_array().unwrap().iter().map(of).collect()
}

/// Metrics as a strict reader of OpenMetrics 1.0 takes them.
pub struct Metrics {
    pub families: BTreeMap<String, Family>,
    pub samples: Vec<Sample>,
}

/// A family of metrics.
#[derive(Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    unit: Option<String>,
}

/// One sample of a page.
pub struct Sample {
    pub family: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: String,
}

impl Metrics {
    pub async fn read(admin: SocketAddr) -> Self {
        let accept = "Accept: application/openmetrics-text\r\n";
        let response = ask_with(admin, "GET", "/metrics", accept).await;
        assert_eq!(response.status, 200);
        let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(response.header("content-type"), [form]);
        Self::parse(&response.text())
    }

    pub fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
        let mut metrics = Self { families: BTreeMap::new(), samples: Vec::new() };
        let mut current = String::new();
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let mut word = || words.next().expect(line).to_owned();
                let (what, name, said) = (word(), word(), word());
                if current != name {
                    assert!(!metrics.families.contains_key(&name), "{name} comes in one piece");
                }
                let family = metrics.families.entry(name.clone()).or_default();
                match what.as_str() {
                    "HELP" => family.help = said,
                    "TYPE" => family.kind = said,
                    "UNIT" => family.unit = Some(said),
                    other => panic!("unknown comment {other}"),
                }
                current = name;
            } else {
                metrics.sample(line, &current);
            }
        }
        metrics.check();
        metrics
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').expect(line)),
            None => (series, ""),
        };
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (key, value) = label.split_once('=').expect(line);
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect(line);
            (key.to_owned(), value.to_owned())
        });
        self.samples.push(Sample {
            family: family.to_owned(),
            name: name.to_owned(),
            labels: labels.collect(),
            value: value.to_owned(),
        });
    }

    fn check(&self) {
        for (name, family) in &self.families {
            let is_ours = name.starts_with("boldgate_");
            assert!(is_ours || name.starts_with("process_"), "{name}");
            assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}");
            if let Some(unit) = &family.unit {
                assert!(name.ends_with(&format!("_{unit}")), "{name} ends with its unit");
            }
            let of_time = family.kind == "histogram" || name.contains("timestamp");
            assert_eq!(of_time && is_ours, family.unit.is_some() && is_ours, "{name}");
        }
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            let family = self.families.get(&sample.family).expect("a sample has a TYPE before it");
            let suffix = sample.name.strip_prefix(&sample.family).expect("it is of its family");
            let expected: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("no metric of ours is a {other}"),
            };
            assert!(expected.contains(&suffix), "{}", sample.name);
            assert!(sample.value.parse::<f64>().unwrap() >= 0.0, "{}", sample.name);
            assert!(seen.insert((&sample.name, &sample.labels)), "{} is there once", sample.name);
        }
    }

    /// The sample of this name (without `boldgate_`), tenant, and outcome or result; an empty text
    /// stands for a label that is not there.
    pub fn value(&self, name: &str, tenant: &str, kind: &str) -> Option<u64> {
        let label = |sample: &Sample, key| sample.labels.get(key).cloned().unwrap_or_default();
        let found = self.samples.iter().find(|sample| {
            sample.name == format!("boldgate_{name}")
                && label(sample, "tenant") == tenant
                && (label(sample, "outcome") + &label(sample, "result")) == kind
        });
        found.map(|sample| sample.value.parse().expect("a whole number"))
    }

    /// The sum of the samples of this name (without `boldgate_`) that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let found = self.samples.iter().filter(|sample| {
            sample.name == format!("boldgate_{name}")
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        });
        found.map(|sample| sample.value.parse::<u64>().expect("a whole number")).sum()
    }
}
