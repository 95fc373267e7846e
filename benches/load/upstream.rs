//! What is behind the gateway: the stand-in, or a server that does no more than it must, so that it
//! takes little of the machine. Both give every site a token of its own and answer 401 to another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{StandIn, StandInOptions, StandInSite, StandInUser};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Connection, content_length};

pub(crate) const USER: &str = "bench@example.com";
pub(crate) const SECRET: &str = "bench-embed-secret";
/// Bytes of an answer's body.
pub(crate) const BODY: usize = 1024;

/// Which of the two.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    StandIn,
    Fast,
}

pub(crate) enum Upstream {
    StandIn(StandIn),
    Fast { address: SocketAddr, exchanges: Arc<AtomicU64> },
}

impl Upstream {
    /// Starts one with sites `t0`, `t1` and so on, in this thread's runtime.
    pub(crate) async fn start(kind: Kind, sites: usize) -> io::Result<Self> {
        match kind {
            Kind::StandIn => Ok(Self::StandIn(stand_in(sites).await?)),
            Kind::Fast => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
                let address = listener.local_addr()?;
                let exchanges = Arc::new(AtomicU64::new(0));
                tokio::spawn(accept(listener, Arc::clone(&exchanges)));
                Ok(Self::Fast { address, exchanges })
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::StandIn(stand_in) => stand_in.addr(),
            Self::Fast { address, .. } => *address,
        }
    }

    /// How many tokens were asked for. More than one for each site and asker means that one was
    /// refused, or not kept.
    pub(crate) fn exchanges(&self) -> u64 {
        match self {
            Self::StandIn(stand_in) => stand_in.token_requests(),
            Self::Fast { exchanges, .. } => exchanges.load(Relaxed),
        }
    }

    /// The tokens of all sites, for requests that go past the gateway.
    pub(crate) async fn tokens(&self, sites: usize) -> io::Result<Vec<String>> {
        let mut connection = Connection::open(self.address()).await?;
        let form = format!("grant_type=embed_secret&username={USER}&embed_secret={SECRET}");
        let mut tokens = Vec::with_capacity(sites);
        for site in 0..sites {
            let request = format!(
                "POST /bi/api/site/t{site}/token HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
                form.len()
            );
            let (_, reply) = connection.ask(request.as_bytes()).await?;
            let reply: serde_json::Value = serde_json::from_slice(reply)?;
            let token = reply["access_token"].as_str();
            tokens.push(token.ok_or_else(|| io::Error::other("no token was given"))?.to_owned());
        }
        Ok(tokens)
    }
}

/// A GET of a site, with a token or without.
pub(crate) fn request(site: usize, token: Option<&str>) -> Vec<u8> {
    let mut text = format!(
        "GET /bi/api/site/t{site}/v4.0/items?size={BODY} HTTP/1.1\r\nHost: bench\r\n\
         User-Agent: boldgate-bench\r\nAccept: application/json\r\n"
    );
    if let Some(token) = token {
        text += &format!("Authorization: Bearer {token}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

async fn stand_in(sites: usize) -> io::Result<StandIn> {
    let user = StandInUser { email: USER.into(), password: None, source: UserSource::Local };
    let site = |site: usize| StandInSite {
        id: Some(format!("t{site}")),
        embed_secret: SECRET.into(),
        users: vec![user.clone()],
    };
    StandIn::start(StandInOptions {
        sites: (0..sites).map(site).collect(),
        token_lifetime: Duration::from_secs(24 * 60 * 60),
        record: false,
        ..StandInOptions::default()
    })
    .await
}

async fn accept(listener: TcpListener, exchanges: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let exchanges = Arc::clone(&exchanges);
        tokio::spawn(async move {
            // When it ends is the client's affair; a broken connection shows there.
            let _ = serve(stream, &exchanges).await;
        });
    }
}

async fn serve(mut stream: TcpStream, exchanges: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (Vec::new(), Vec::new());
    while stream.read_buf(&mut input).await? > 0 {
        if answer(&input, &mut output, exchanges)? {
            stream.write_all(&output).await?;
            input.clear();
            output.clear();
        }
    }
    Ok(())
}

/// Answers a request that is whole; nobody here sends the next one before its answer.
fn answer(input: &[u8], output: &mut Vec<u8>, exchanges: &AtomicU64) -> io::Result<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(body) = head.parse(input).map_err(io::Error::other)? else {
        return Ok(false);
    };
    if input.len() < body + content_length(head.headers).unwrap_or(0) {
        return Ok(false);
    }
    let path = head.path.unwrap_or_default();
    let site = path.strip_prefix("/bi/api/site/").and_then(|rest| rest.split_once('/'));
    let (site, route) = site.unwrap_or_default();
    if route == "token" {
        exchanges.fetch_add(1, Relaxed);
        let token = token(site);
        let reply =
            format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":86400}}"#);
        write(output, "200 OK", reply.as_bytes());
        return Ok(true);
    }
    let sent = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case("authorization"));
    let sent = sent.and_then(|header| header.value.strip_prefix(b"Bearer "));
    if sent.is_some_and(|sent| is_token(sent, site.as_bytes())) {
        write(output, "200 OK", &ITEMS);
    } else {
        write(output, "401 Unauthorized", b"{}");
    }
    Ok(true)
}

fn write(output: &mut Vec<u8>, status: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
        body.len()
    );
    output.extend_from_slice(head.as_bytes());
    output.extend_from_slice(body);
}

/// As long as a JWT of Bold BI, and of one site only.
fn token(site: &str) -> String {
    format!("{site}.{FILLER}")
}

fn is_token(sent: &[u8], site: &[u8]) -> bool {
    let rest = sent.strip_prefix(site).and_then(|rest| rest.strip_prefix(b"."));
    rest == Some(FILLER.as_bytes())
}

const FILLER: &str = {
    const BYTES: [u8; 470] = [b'k'; 470];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => unreachable!(),
    }
};
static ITEMS: [u8; BODY] = {
    let mut json = [b' '; BODY];
    (json[0], json[BODY - 1]) = (b'[', b']');
    json
};
