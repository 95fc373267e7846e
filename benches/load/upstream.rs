//! The upstream of the gateway: the stand-in, with sites `t0`, `t1` and so on. It gives each a
//! token of its own and responds with 401 to any other. It serves several times what the gateway
//! can.

use std::io;
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{StandIn, StandInOptions, StandInSite, StandInUser};

use crate::client::Connection;

pub(crate) const USER: &str = "bench@example.com";
pub(crate) const SECRET: &str = "bench-embed-secret";
/// Bytes of a response's body.
pub(crate) const BODY: usize = 1024;

/// Starts a stand-in with so many sites, in this thread's runtime.
pub(crate) async fn start(sites: usize) -> io::Result<StandIn> {
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

/// The tokens of all sites, for requests that go past the gateway.
pub(crate) async fn tokens(stand_in: &StandIn, sites: usize) -> io::Result<Vec<String>> {
    let mut connection = Connection::open(stand_in.addr()).await?;
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
