//! The form of the metrics page that a client wants: its format by `Accept`, as Prometheus
//! negotiates it, and gzip by `Accept-Encoding`.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::unfold;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use crate::telemetry::{MetricsPage, PageFormat};

/// The format that the client prefers. It is text if the client names none of the two, so that a
/// browser can show it.
pub(super) fn format(headers: &HeaderMap) -> PageFormat {
    let (mut open_metrics, mut text) = (None, None);
    for (range, parameters, weight) in listed(headers, &ACCEPT) {
        let of_type = match range.as_str() {
            "application/openmetrics-text"
                if version(&parameters).is_none_or(|v| matches!(v, "1.0.0" | "0.0.1")) =>
            {
                &mut open_metrics
            }
            "text/plain" if version(&parameters).is_none_or(|v| v == "0.0.4") => &mut text,
            _ => continue,
        };
        *of_type = (*of_type).max(Some(weight));
    }
    if open_metrics.is_some_and(|weight| weight > 0 && Some(weight) >= text) {
        PageFormat::OpenMetrics
    } else {
        PageFormat::Text
    }
}

/// Whether the client takes gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings: Vec<_> = listed(headers, &ACCEPT_ENCODING).collect();
    let weight_of = |name| codings.iter().find(|(coding, ..)| coding == name).map(|of| of.2);
    weight_of("gzip").or(weight_of("x-gzip")).or(weight_of("*")).is_some_and(|weight| weight > 0)
}

/// The page as the body of a response.
pub(super) type PageBody = UnsyncBoxBody<Bytes, JoinError>;

/// The page, chunk by chunk, compressed if the client takes that.
pub(super) struct PageChunks<P = MetricsPage> {
    page: P,
    encoder: Option<GzEncoder<Vec<u8>>>,
    ended: bool,
}

impl<P: Iterator<Item = String>> PageChunks<P> {
    pub(super) fn new(page: P, gzip: bool) -> Self {
        let encoder = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        Self { page, encoder, ended: false }
    }
}

impl<P: Iterator<Item = String>> Iterator for PageChunks<P> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let chunk = self.page.next();
            self.ended = chunk.is_none();
            let Some(encoder) = &mut self.encoder else { return chunk.map(Bytes::from) };
            let written = match &chunk {
                Some(chunk) => encoder.write_all(chunk.as_bytes()),
                None => encoder.try_finish(),
            };
            written.expect("writing to memory does not fail");
            if !encoder.get_ref().is_empty() {
                return Some(std::mem::take(encoder.get_mut()).into());
            }
        }
        None
    }
}

impl PageChunks {
    /// A body that makes each chunk when the client has taken those before it, on another thread.
    /// Each waits for its turn at `turns`.
    pub(super) fn into_body(self, turns: Arc<Semaphore>) -> PageBody {
        let chunks = unfold(Some(self), move |chunks| {
            let turns = Arc::clone(&turns);
            async move {
                let mut chunks = chunks?;
                // The semaphore is never closed.
                let turn = turns.acquire_owned().await.ok()?;
                let made = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    chunks.next().map(|chunk| (chunk, chunks))
                });
                match made.await {
                    Ok(Some((chunk, rest))) => Some((Ok(Frame::data(chunk)), Some(rest))),
                    Ok(None) => None,
                    // The response ends without its end, so that the client notices.
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        StreamBody::new(chunks).boxed_unsync()
    }
}

/// The items of a list of RFC 9110: each with its parameters and its weight in thousandths.
fn listed(
    headers: &HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = (String, Vec<(String, String)>, u32)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts.filter_map(|part| part.split_once('=')).map(|(key, value)| {
            (key.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned())
        });
        let (weights, parameters): (Vec<_>, Vec<_>) = parameters.partition(|(key, _)| key == "q");
        let weight = weights.first().map_or(1000, |(_, weight)| thousandths(weight));
        (name, parameters, weight)
    })
}

/// A weight that cannot be read counts as 0: the client's wish is not known.
fn thousandths(weight: &str) -> u32 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{fraction:0<3}");
    match (whole, digits.parse::<u32>()) {
        ("0", Ok(weight)) if digits.len() == 3 => weight,
        ("1", Ok(0)) if digits.len() == 3 => 1000,
        _ => 0,
    }
}

fn version(parameters: &[(String, String)]) -> Option<&str> {
    parameters.iter().find(|(key, _)| key == "version").map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_format_is_the_one_that_the_client_prefers_and_text_by_default() {
        use PageFormat::{OpenMetrics, Text};
        for (accept, expected) in [
            (&[][..], Text),
            (&["*/*"], Text),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Text),
            (&["application/openmetrics-text"], OpenMetrics),
            // Prometheus 2.42 and 3.
            (
                &["application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                   version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"],
                OpenMetrics,
            ),
            (
                &["application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                   encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;\
                   escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                   text/plain;version=0.0.4;q=0.2,*/*;q=0.1"],
                OpenMetrics,
            ),
            (&["text/plain;version=0.0.4, application/openmetrics-text;q=0.9"], Text),
            (&["text/plain;q=0.9", "application/openmetrics-text"], OpenMetrics),
            (&["application/openmetrics-text;q=0"], Text),
            (&["application/openmetrics-text; Q=0.001"], OpenMetrics),
            (&["application/openmetrics-text; version=\"1.0.0\" ; q=1.0"], OpenMetrics),
            (&["application/openmetrics-text;version=2.0.0"], Text),
            (&["APPLICATION/OpenMetrics-Text"], OpenMetrics),
            (&["application/openmetrics-text;q=1.1"], Text),
            (&["application/openmetrics-text;q=nan"], Text),
            (&[",;,=;q"], Text),
        ] {
            assert_eq!(format(&headers(&ACCEPT, accept)), expected, "{accept:?}");
        }
    }

    #[test]
    fn gzip_is_used_only_for_clients_that_take_it() {
        for (accept, expected) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["deflate, GZIP;q=0.5"], true),
            (&["identity"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["*"], true),
            (&["br", "gzip"], true),
            (&["gzipped"], false),
        ] {
            assert_eq!(accepts_gzip(&headers(&ACCEPT_ENCODING, accept)), expected, "{accept:?}");
        }
        let page = "boldgate_connections 1\n".repeat(1000);
        let chunks = || vec![page.clone(); 30].into_iter();
        let compressed = PageChunks::new(chunks(), true).collect::<Vec<_>>();
        assert!(compressed.len() > 1, "it is sent while it is made");
        let compressed = compressed.concat();
        assert!(compressed.len() < page.len());
        let mut read = String::new();
        flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut read).unwrap();
        assert_eq!(read, page.repeat(30));
        assert_eq!(PageChunks::new(chunks(), false).count(), 30);
    }
}
