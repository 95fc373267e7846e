//! The steps of `boldgate demo --once`. Each prints the expected result of the gateway and of Bold
//! BI, and whether it occurred.

use std::fmt::{self, Display};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::boldbi::stand_in::StandIn;
use crate::cli::{Failure, print};

/// Runs and prints all steps. True if all results were as expected.
pub(super) async fn play(
    stand_in: &StandIn,
    gateway: &str,
    (embed, jwt): (&str, &str),
) -> Result<bool, Failure> {
    let mut runner = Runner {
        stand_in,
        gateway,
        client: Client::builder(TokioExecutor::new()).build_http(),
        passed: true,
    };
    let acme = "/bi/api/site/site1/v5.0/echo";
    let globex = "/bi/api/site/site2/v5.0/echo";
    let served =
        |user: &str| StepResult { status: 200, says: user.into(), exchanges: 0, requests: 1 };

    print("A request without a token, for tenant acme (embed secret, a user of Azure AD):")?;
    runner
        .step(Method::GET, acme, StepResult { exchanges: 1, ..served("reports@acme.example") })
        .await?;
    print("The same request again; its token is in the cache:")?;
    runner.step(Method::GET, acme, served("reports@acme.example")).await?;
    print("Tenant globex has a credential and a token of its own (password, a local user):")?;
    runner
        .step(Method::GET, globex, StepResult { exchanges: 1, ..served("svc@globex.example") })
        .await?;
    print("Bold BI revokes all tokens: 401, one exchange, and the request is sent again:")?;
    stand_in.revoke_all();
    let replayed = StepResult { exchanges: 1, requests: 2, ..served("reports@acme.example") };
    runner.step(Method::POST, acme, replayed).await?;
    print("No such tenant; Bold BI receives nothing:")?;
    let refused =
        |status, says: &str| StepResult { status, says: says.into(), exchanges: 0, requests: 0 };
    runner
        .step(Method::GET, "/bi/api/site/nowhere/v5.0/echo", refused(404, "tenant_unknown"))
        .await?;
    print("A route that issues tokens is closed, also to callers that the gateway admits:")?;
    runner.step(Method::POST, "/bi/api/site/site1/token", refused(403, "route_closed")).await?;

    print("A page embeds a dashboard, as the user of its JWT; the gateway signs the call:")?;
    let query = "embed_dashboard_id=c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff";
    let embedded = StepResult {
        status: 200,
        says: "jane@acme.example, rows [{&Region=IN(North)}]".into(),
        exchanges: 0,
        requests: 0,
    };
    runner.embed(embed, jwt, query, embedded).await?;
    print(if runner.passed {
        "All results were as expected."
    } else {
        "Some results were not as expected."
    })?;
    Ok(runner.passed)
}

struct Runner<'s> {
    stand_in: &'s StandIn,
    gateway: &'s str,
    client: Client<HttpConnector, Full<Bytes>>,
    passed: bool,
}

/// The result of a step.
#[derive(PartialEq, Eq)]
struct StepResult {
    status: u16,
    /// The user whose token reached Bold BI, or the code of the refusal.
    says: String,
    exchanges: u64,
    requests: u64,
}

impl Display for StepResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, says, exchanges, requests } = self;
        write!(f, "{status} {says}; exchanges: {exchanges}, requests to Bold BI: {requests}")
    }
}

impl Runner<'_> {
    async fn step(
        &mut self,
        method: Method,
        path: &str,
        expected: StepResult,
    ) -> Result<(), Failure> {
        print(&format!("  {method} {path}"))?;
        let result = self.send(method, path).await;
        self.passed &= result.as_ref().is_ok_and(|result| *result == expected);
        match result {
            Ok(result) if result == expected => print(&format!("    {result} - as expected")),
            Ok(result) => {
                print(&format!("    {result} - NOT AS EXPECTED\n    expected: {expected}"))
            }
            Err(error) => print(&format!("    no response: {error} - NOT AS EXPECTED")),
        }
    }

    /// The call of a page to the embed endpoint at `url`, which must be one call to Bold BI if it
    /// is not refused.
    async fn embed(
        &mut self,
        url: &str,
        jwt: &str,
        query: &str,
        expected: StepResult,
    ) -> Result<(), Failure> {
        print(&format!("  POST {}", url.find("/bi/").map_or(url, |at| &url[at..])))?;
        let before = self.stand_in.embed_requests();
        let result = self.send_embed(url, jwt, query).await;
        let calls = self.stand_in.embed_requests() - before;
        let good = result.as_ref().is_ok_and(|result| *result == expected)
            && calls == u64::from(expected.status == 200);
        self.passed &= good;
        match result {
            Ok(result) if good => print(&format!(
                "    {} {}; embed calls to Bold BI: {calls} - as expected",
                result.status, result.says
            )),
            Ok(result) => print(&format!(
                "    {} {}; embed calls to Bold BI: {calls} - NOT AS EXPECTED\n    expected: {} {}",
                result.status, result.says, expected.status, expected.says
            )),
            Err(error) => print(&format!("    no response: {error} - NOT AS EXPECTED")),
        }
    }

    async fn send_embed(
        &self,
        url: &str,
        jwt: &str,
        query: &str,
    ) -> Result<StepResult, Box<dyn std::error::Error + Send + Sync>> {
        let body = serde_json::json!({ "embedQueryString": query }).to_string();
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {jwt}"))
            .body(Full::new(Bytes::from(body)))?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        let (data, code) = (&body["Data"], body["code"].as_str().unwrap_or_default());
        let says = match (data["email"].as_str(), data["StandInFilter"].as_str()) {
            (Some(email), Some(filter)) => format!("{email}, rows {filter}"),
            _ => code.to_owned(),
        };
        Ok(StepResult { status: head.status.as_u16(), says, exchanges: 0, requests: 0 })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
    ) -> Result<StepResult, Box<dyn std::error::Error + Send + Sync>> {
        let (exchanges, requests) = (self.stand_in.token_requests(), self.stand_in.api_requests());
        let body = if method == Method::POST { "{\"from\": \"the demo\"}" } else { "" };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.gateway))
            .body(Full::new(Bytes::from_static(body.as_bytes())))?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        let says = body["user"].as_str().or(body["code"].as_str()).unwrap_or_default();
        Ok(StepResult {
            status: head.status.as_u16(),
            says: says.to_owned(),
            exchanges: self.stand_in.token_requests() - exchanges,
            requests: self.stand_in.api_requests() - requests,
        })
    }
}
