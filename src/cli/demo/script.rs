//! What `boldgate demo --once` plays: each step says what it expects of the gateway and of Bold BI,
//! and whether it came so.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::boldbi::stand_in::StandIn;
use crate::cli::{Failure, say};

/// Plays all steps and prints them; true if all came as expected.
pub(super) async fn play(stand_in: &StandIn, gateway: &str) -> Result<bool, Failure> {
    let mut stage = Stage {
        stand_in,
        gateway,
        client: Client::builder(TokioExecutor::new()).build_http(),
        held: true,
    };
    let acme = "/bi/api/site/site1/v5.0/echo";
    let globex = "/bi/api/site/site2/v5.0/echo";
    let served =
        |user: &'static str| Expected { status: 200, says: user, exchanges: 0, requests: 1 };

    say("A request without a token, for tenant acme (embed secret, a user of Azure AD):")?;
    stage
        .step(Method::GET, acme, Expected { exchanges: 1, ..served("reports@acme.example") })
        .await?;
    say("The same again; its token is in the cache:")?;
    stage.step(Method::GET, acme, served("reports@acme.example")).await?;
    say("Tenant globex has a credential and a token of its own (password, a local user):")?;
    stage
        .step(Method::GET, globex, Expected { exchanges: 1, ..served("svc@globex.example") })
        .await?;
    say("Bold BI revokes all tokens: it says 401, one exchange, and the request is sent again:")?;
    stand_in.revoke_all();
    let replayed = Expected { exchanges: 1, requests: 2, ..served("reports@acme.example") };
    stage.step(Method::POST, acme, replayed).await?;
    say("No such tenant; nothing reaches Bold BI:")?;
    let refused = |status, says| Expected { status, says, exchanges: 0, requests: 0 };
    stage
        .step(Method::GET, "/bi/api/site/nowhere/v5.0/echo", refused(404, "tenant_unknown"))
        .await?;
    say("A route that hands out tokens is closed, even to those whom the gateway serves:")?;
    stage.step(Method::POST, "/bi/api/site/site1/token", refused(403, "route_closed")).await?;

    say(if stage.held { "All of it went as it should." } else { "Something went wrong." })?;
    Ok(stage.held)
}

struct Stage<'s> {
    stand_in: &'s StandIn,
    gateway: &'s str,
    client: Client<HttpConnector, Full<Bytes>>,
    held: bool,
}

/// What a step should come to.
struct Expected {
    status: u16,
    /// The user whose token reached Bold BI, or the code of the refusal.
    says: &'static str,
    exchanges: u64,
    requests: u64,
}

/// What a step came to.
struct Came {
    status: StatusCode,
    says: String,
    exchanges: u64,
    requests: u64,
}

impl Stage<'_> {
    async fn step(
        &mut self,
        method: Method,
        path: &str,
        expected: Expected,
    ) -> Result<(), Failure> {
        say(&format!("  {method} {path}"))?;
        match self.send(method, path).await {
            Ok(came) => {
                let held = came.status.as_u16() == expected.status
                    && came.says == expected.says
                    && came.exchanges == expected.exchanges
                    && came.requests == expected.requests;
                say(&format!(
                    "    {} {}; exchanges: {}, requests to Bold BI: {} {}",
                    came.status.as_u16(),
                    came.says,
                    came.exchanges,
                    came.requests,
                    if held { "- as expected" } else { "- NOT AS EXPECTED" },
                ))?;
                if !held {
                    say(&format!(
                        "    expected: {} {}; exchanges: {}, requests to Bold BI: {}",
                        expected.status, expected.says, expected.exchanges, expected.requests
                    ))?;
                }
                self.held &= held;
            }
            Err(error) => {
                say(&format!("    no answer: {error} - NOT AS EXPECTED"))?;
                self.held = false;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Came, Box<dyn std::error::Error + Send + Sync>> {
        let (exchanges, requests) = (self.stand_in.token_requests(), self.stand_in.api_requests());
        let body = if method == Method::POST { "{\"from\": \"the demo\"}" } else { "" };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.gateway))
            .body(Full::new(Bytes::from_static(body.as_bytes())))?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        let says = body["user"].as_str().or(body["code"].as_str()).unwrap_or_default();
        Ok(Came {
            status: head.status,
            says: says.to_owned(),
            exchanges: self.stand_in.token_requests() - exchanges,
            requests: self.stand_in.api_requests() - requests,
        })
    }
}
