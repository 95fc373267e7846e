//! A table of faults that people make in a set-up. The doctor names the cause of each in its first
//! step that is not OK. The messages are in a snapshot, to be read.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::TokenReply;
use http::StatusCode;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};

use super::certificates::in_the_certificate;
use super::plant::{FirstFault, Plant, USER, sound, sound_for, with_password};
use crate::support::stand_in::{EMBED_SECRET, PASSWORD};
use crate::support::tls::{SelfSigned, TlsServer};
use crate::support::upstream::{
    RawResponse, Request, Upstream, dead_address, free_address, status,
};
use at_bold_bi::{in_bold_bi, in_front_of_bold_bi, in_its_api, in_the_credential};
use nearby::{in_the_configuration, in_the_url, on_the_way, on_this_machine};

mod at_bold_bi;
mod nearby;

/// A fault, and what the doctor must say of it.
pub struct Row {
    fault: &'static str,
    plant: Plant,
    code: i32,
    /// The subject and the step that is the first with a fault.
    step: (&'static str, &'static str),
    /// Words of the message that name the cause.
    cause: Vec<&'static str>,
}

impl Row {
    /// The message that the doctor prints about the fault, or the way in which it is wrong.
    async fn diagnosed(&self) -> Result<String, String> {
        let ended = self.plant.diagnose(&["--json"]).await;
        let everything = format!("{}{}", ended.stdout, ended.stderr);
        let first = FirstFault::of(&ended.stdout)
            .ok_or_else(|| format!("nothing was found: {everything}"))?;
        let FirstFault { subject, step, found, to_do } = first;
        if (subject, step.as_str()) != self.step || ended.code != Some(self.code) {
            return Err(format!("{subject}, {step}, {:?}: {everything}", ended.code));
        }
        let message = format!("{found}\n{to_do}");
        if let Some(word) = self.cause.iter().find(|word| !message.contains(**word)) {
            return Err(format!("`{word}` is not in {message}"));
        }
        for secret in [EMBED_SECRET, PASSWORD, "canary", "eyJ"] {
            if everything.contains(secret) {
                return Err(format!("`{secret}` shows: {everything}"));
            }
        }
        let (fault, code) = (self.fault, self.code);
        let message =
            format!("{fault}\n  {subject}, {step}: {found}\n  to do: {to_do}\n  exit {code}\n\n");
        Ok(self.plant.steady(&message))
    }
}

pub fn row(
    fault: &'static str,
    plant: Plant,
    code: i32,
    step: (&'static str, &'static str),
    cause: &[&'static str],
) -> Row {
    Row { fault, plant, code, step, cause: cause.to_vec() }
}

const CONFIGURATION: (&str, &str) = ("machine", "configuration");
const DNS: (&str, &str) = ("server", "dns");
const TCP: (&str, &str) = ("server", "tcp");
pub const TLS: (&str, &str) = ("server", "tls");
const HTTP: (&str, &str) = ("server", "http");
const CLOCK: (&str, &str) = ("server", "clock");
const URL: (&str, &str) = ("server", "url");
const HEALTH: (&str, &str) = ("server", "health");
const EXCHANGE: (&str, &str) = ("tenant", "exchange");
const REQUEST: (&str, &str) = ("tenant", "request");

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn doctor_names_the_cause_of_each_planted_fault_in_its_first_broken_step() {
    let mut rows = in_the_configuration();
    rows.extend(on_this_machine().await);
    rows.extend(on_the_way().await);
    rows.extend(in_the_certificate().await);
    rows.extend(in_the_url().await);
    rows.extend(in_front_of_bold_bi().await);
    rows.extend(in_the_credential().await);
    rows.extend(in_bold_bi().await);
    rows.extend(in_its_api().await);
    assert!(rows.len() >= 30, "there are {} faults", rows.len());
    let (mut all, mut wrong) = (String::new(), Vec::new());
    for row in rows {
        match row.diagnosed().await {
            Ok(message) => all += &message,
            Err(error) => wrong.push(format!("{}: {error}", row.fault)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // Resolvers have words of their own for a name that does not exist.
    for said in ["Name or service not known", "Temporary failure in name resolution"] {
        all = crate::support::edit::Edit::edit_any(all.as_str(), said, "[the resolver's words]");
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("faults", all) });
}

/// A server that responds to every request as `handler` says.
async fn handled(
    server: &str,
    handler: impl Fn(&Request) -> RawResponse + Send + Sync + 'static,
) -> Plant {
    let upstream = Upstream::with_handler_for_all(handler).await;
    Plant::new(&format!("http://{}/bi", upstream.address), server)
        .shows(upstream.address, "[server]")
        .with(upstream)
}

fn html(status: &str, text: &str) -> RawResponse {
    let body = format!("<html><body>{text}</body></html>");
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}");
    RawResponse { bytes: format!("{head}\r\n\r\n{body}").into_bytes(), keep: true }
}

fn raw(status: u16, headers: &[(&str, &str)], body: &str) -> TokenReply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let status = StatusCode::from_u16(status).unwrap();
    TokenReply::Raw { status, headers: headers.collect(), body: body.into() }
}

/// An address at which the kernel drops the packets of new connections: its queue is full.
async fn filtering() -> (SocketAddr, impl Sized + Send + 'static) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(listener.as_fd(), 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue is never full");
    }
    (address, (listener, queued))
}

/// A server that writes `text` to each connection, then closes it.
async fn responding(text: &'static str) -> (SocketAddr, impl Sized + Send + 'static) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                // Unread input would turn the end into a reset.
                let _ = stream.read(&mut [0; 4096]).await;
            });
        }
    });
    (address, task)
}
