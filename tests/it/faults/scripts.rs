//! The faults as data: the fault, the responses that clients may and must see meanwhile, and the
//! time to recover.

use std::time::Duration;

use boldgate::boldbi::stand_in::TokenReply;
use http::StatusCode;

use crate::support::faults::faulty_server::{FaultyServer, PATIENCE};
use crate::support::faults::misbehaving_clients::Misbehaviour;
use crate::support::faults::proxy::{Connect, End, Fault, Faults};

/// One fault.
#[derive(Clone, Copy)]
pub struct Script {
    pub name: &'static str,
    /// Begins the fault. [`FaultyServer::end_faults`] ends it when its effect was seen.
    pub begin: fn(&FaultyServer),
    /// Whether all tokens are revoked as well, so that every tenant needs an exchange.
    pub revokes: bool,
    /// The effect that must be seen. Without it the check would prove nothing.
    pub effect: Effect,
    /// The statuses that clients may see beside 200.
    pub may: &'static [u16],
    /// Whether responses may visibly break off.
    pub breaks: bool,
    /// Whether whole responses may be corrupt: only where bytes change on a connection without TLS.
    pub mangles: bool,
    /// Nothing fails any more after this time, although the fault goes on. `None` if it may.
    pub settles: Option<Duration>,
    /// Nothing fails any more this long after its end, plus the time that a request without a fault
    /// takes on a busy machine.
    pub recovers: Duration,
}

/// The visible effect of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A response with this status.
    Status(u16),
    /// A response with any of the allowed statuses.
    AnyStatus,
    /// A response that breaks off.
    Broken,
    /// A right response that took at least this long.
    Slow(Duration),
    /// Another exchange.
    Exchange,
    /// Nothing for the clients, although the fault took effect.
    Nothing,
}

impl Script {
    const fn may(mut self, statuses: &'static [u16]) -> Self {
        self.may = statuses;
        self
    }

    const fn breaks(mut self) -> Self {
        self.breaks = true;
        self
    }

    const fn mangles(mut self) -> Self {
        self.mangles = true;
        self
    }

    /// Requests that are in flight at the end of the fault may still fail.
    const fn lingers(mut self) -> Self {
        self.recovers = self.recovers.saturating_add(PATIENCE);
        self
    }

    /// The gateway waits this long before it tries again, so it cannot recover sooner.
    const fn held_back(mut self, wait: Duration) -> Self {
        self.recovers = self.recovers.saturating_add(wait);
        self
    }

    /// Another address takes over after a check has found the fault (one each 1.1 s, each within
    /// 0.5 s), and after the pauses between exchanges.
    const fn settles(mut self) -> Self {
        self.settles = Some(Duration::from_millis(2_500));
        self
    }

    const fn revoking(mut self) -> Self {
        self.revokes = true;
        self
    }
}

/// A fault that clients may notice as a 502 only, unless a script allows more.
const fn fault(name: &'static str, effect: Effect, begin: fn(&FaultyServer)) -> Script {
    Script {
        name,
        begin,
        revokes: false,
        effect,
        may: &[502],
        breaks: false,
        mangles: false,
        settles: None,
        recovers: RECOVERS,
    }
}

/// A fault that clients notice only by the time that requests take.
const fn harmless(name: &'static str, effect: Effect, begin: fn(&FaultyServer)) -> Script {
    fault(name, effect, begin).may(&[])
}

const fn up(to_server: Fault) -> Faults {
    Faults { to_server, to_gateway: Fault::None }
}

const fn down(to_gateway: Fault) -> Faults {
    Faults { to_server: Fault::None, to_gateway }
}

/// An outage of the token endpoint is over within a second: while the breaker is open, an exchange
/// begins every 600 to 800 ms, and what one permit remembers of a failure it remembers for 800 ms
/// at most. Everything else recovers with the next connection.
pub const RECOVERS: Duration = Duration::from_secs(1);

/// All faults of servers with one address, each once.
pub fn scripts() -> Vec<Script> {
    [
        connections(),
        responses(),
        false_responses(),
        requests(),
        exchanges(),
        token_endpoint(),
        api(),
        clients(),
    ]
    .concat()
}

fn connections() -> Vec<Script> {
    vec![
        fault("the server is gone", Effect::Status(502), |server| gone(server, Connect::Refused)),
        fault("connections are reset at once", Effect::Status(502), |server| {
            gone(server, Connect::Reset);
        }),
        fault("connections are closed at once", Effect::Status(502), |server| {
            gone(server, Connect::Closed);
        }),
        fault("connections are accepted, in silence", Effect::Status(504), |server| {
            gone(server, Connect::Silent);
        })
        .may(&[502, 504]),
        fault("the server is gone, the tokens too", Effect::Status(502), |server| {
            gone(server, Connect::Refused);
        })
        .revoking(),
        fault("open connections are reset once", Effect::Nothing, |server| {
            server.proxy.sever(End::Reset);
        })
        .breaks(),
        fault("open connections are closed once", Effect::Nothing, |server| {
            server.proxy.sever(End::Closed);
        })
        .breaks(),
    ]
}

fn gone(server: &FaultyServer, connect: Connect) {
    server.proxy.connect(connect);
    server.proxy.sever(End::Reset);
}

/// Faults of responses.
fn responses() -> Vec<Script> {
    vec![
        harmless("responses come late", Effect::Slow(LATE), |server| {
            server.request_faults(down(Fault::Latency(LATE)));
        }),
        fault("responses come too late", Effect::Status(504), |server| {
            server.request_faults(down(Fault::Latency(TOO_LATE)));
        })
        .lingers()
        .may(&[502, 504])
        .breaks(),
        harmless("responses come slowly", Effect::Slow(LATE), |server| {
            server.request_faults(down(Fault::Rate(20_000)));
        }),
        harmless("responses come in scraps", Effect::Nothing, |server| {
            server.request_faults(down(Fault::Scraps));
        }),
        fault("no response comes", Effect::Status(504), |server| {
            server.request_faults(down(Fault::StallAfter(0)));
        })
        .may(&[504])
        .breaks(),
        fault("responses stall in the head", Effect::Status(504), |server| {
            server.request_faults(down(Fault::StallAfter(IN_HEAD)));
        })
        .may(&[504])
        .breaks(),
        fault("responses stall in the body", Effect::Broken, |server| {
            server.request_faults(down(Fault::StallAfter(IN_BODY)));
        })
        .may(&[504])
        .breaks(),
        fault("a reset in place of a response", Effect::Status(502), |server| {
            server.request_faults(down(Fault::ResetAfter(0)));
        })
        .breaks(),
        fault("a reset in the head of a response", Effect::Status(502), |server| {
            server.request_faults(down(Fault::ResetAfter(IN_HEAD)));
        })
        .breaks(),
        fault("a reset in the body of a response", Effect::Broken, |server| {
            server.request_faults(down(Fault::ResetAfter(IN_BODY)));
        })
        .breaks(),
        fault("an end in place of a response", Effect::Status(502), |server| {
            server.request_faults(down(Fault::CloseAfter(0)));
        })
        .breaks(),
        fault("an end in the head of a response", Effect::Status(502), |server| {
            server.request_faults(down(Fault::CloseAfter(IN_HEAD)));
        })
        .breaks(),
        fault("an end in the body of a response", Effect::Broken, |server| {
            server.request_faults(down(Fault::CloseAfter(IN_BODY)));
        })
        .breaks(),
        fault("half an end in place of a response", Effect::Status(502), |server| {
            server.request_faults(down(Fault::HalfCloseAfter(0)));
        })
        .breaks(),
        fault("half an end in the body of a response", Effect::Broken, |server| {
            server.request_faults(down(Fault::HalfCloseAfter(IN_BODY)));
        })
        .breaks(),
    ]
}

/// Invalid responses.
fn false_responses() -> Vec<Script> {
    vec![
        fault("responses are corrupt from the start", Effect::Status(502), |server| {
            server.request_faults(down(Fault::CorruptAfter(0)));
        })
        .may(&[502, 504])
        .breaks()
        .mangles(),
        fault("responses are corrupt in the head", Effect::AnyStatus, |server| {
            server.request_faults(down(Fault::CorruptAfter(IN_HEAD)));
        })
        .may(&[502, 504])
        .breaks()
        .mangles(),
        fault("another protocol responds", Effect::Status(502), |server| {
            server.request_faults(down(Fault::Instead(
                b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
            )));
        })
        .breaks(),
        fault("TLS responds", Effect::Status(502), |server| {
            server.request_faults(down(Fault::Instead(b"\x15\x03\x03\x00\x02\x02\x46")));
        })
        .breaks(),
        fault("a response has two lengths", Effect::Status(502), |server| {
            server.request_faults(down(Fault::Instead(
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            )));
        })
        .breaks(),
        fault("a response switches protocols", Effect::Status(502), |server| {
            server.request_faults(down(Fault::Instead(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            )));
        })
        .breaks(),
        fault("a response ends between its head's lines", Effect::Status(502), |server| {
            server
                .request_faults(down(Fault::Instead(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")));
        })
        .breaks(),
        harmless("every response comes twice", Effect::Nothing, |server| {
            server.request_faults(down(Fault::Twice));
        })
        .may(&[502])
        .breaks(),
    ]
}

/// Faults of one of two addresses: clients notice nothing once it is ejected.
pub fn one_of_two_addresses() -> Vec<Script> {
    let scripts = [
        fault("one of two addresses is gone", Effect::Nothing, |server| {
            gone(server, Connect::Refused);
        }),
        fault("one of two addresses resets connections", Effect::Nothing, |server| {
            gone(server, Connect::Reset);
        }),
        fault("one of two addresses closes connections", Effect::Nothing, |server| {
            gone(server, Connect::Closed);
        }),
        fault("one of two addresses is silent", Effect::Nothing, |server| {
            gone(server, Connect::Silent);
        }),
        fault("one of two addresses stalls", Effect::Nothing, |server| {
            server.request_faults(down(Fault::StallAfter(0)));
        }),
        fault("one of two addresses resets responses", Effect::Nothing, |server| {
            server.request_faults(down(Fault::ResetAfter(0)));
        }),
        fault("one of two addresses speaks another protocol", Effect::Nothing, |server| {
            server.request_faults(down(Fault::Instead(b"SSH-2.0-OpenSSH_9.2p1\r\n")));
        }),
        fault("one of two addresses gives no tokens", Effect::Exchange, |server| {
            server.exchange_faults(down(Fault::ResetAfter(0)));
        })
        .revoking(),
    ];
    scripts.map(|script| script.may(OUTAGE).breaks().settles()).into()
}

/// Faults of other clients.
fn clients() -> Vec<Script> {
    vec![
        harmless("clients abort in heads", Effect::Nothing, |server| {
            server.behave(Misbehaviour::AbortInHead);
        }),
        harmless("clients abort in bodies", Effect::Nothing, |server| {
            server.behave(Misbehaviour::AbortInBody);
        }),
        harmless("clients reset before the response", Effect::Nothing, |server| {
            server.behave(Misbehaviour::ResetBeforeResponse);
        }),
        harmless("clients reset in responses", Effect::Nothing, |server| {
            server.behave(Misbehaviour::ResetInResponse);
        }),
        harmless("clients close half of connections", Effect::Nothing, |server| {
            server.behave(Misbehaviour::HalfClose);
        }),
        harmless("clients speak another protocol", Effect::Nothing, |server| {
            server.behave(Misbehaviour::Send(b"SSH-2.0-OpenSSH_9.2p1\r\n"));
        }),
        harmless("clients speak TLS", Effect::Nothing, |server| {
            server.behave(Misbehaviour::Send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"));
        }),
        harmless("clients drip", Effect::Nothing, |server| server.behave(Misbehaviour::Drip)),
        harmless("clients read nothing of responses", Effect::Nothing, |server| {
            server.behave(Misbehaviour::ReadNothing);
        }),
        harmless("clients say nothing", Effect::Nothing, |server| {
            server.behave(Misbehaviour::Silent);
        }),
    ]
}

/// Faults of requests on their way to the server.
fn requests() -> Vec<Script> {
    vec![
        harmless("requests come late", Effect::Slow(LATE), |server| {
            server.request_faults(up(Fault::Latency(LATE)));
        }),
        harmless("requests come slowly", Effect::Slow(Duration::from_millis(20)), |server| {
            server.request_faults(up(Fault::Rate(40_000)));
        }),
        harmless("requests come in scraps", Effect::Nothing, |server| {
            server.request_faults(up(Fault::Scraps));
        }),
        fault("no request arrives", Effect::Status(504), |server| {
            server.request_faults(up(Fault::StallAfter(0)));
        })
        .may(&[504]),
        fault("requests stall in the head", Effect::Status(504), |server| {
            server.request_faults(up(Fault::StallAfter(IN_HEAD)));
        })
        .may(&[504]),
        fault("requests stall in the body", Effect::Status(504), |server| {
            server.request_faults(up(Fault::StallAfter(IN_BODY)));
        })
        .may(&[504]),
        fault("a reset in the head of a request", Effect::Status(502), |server| {
            server.request_faults(up(Fault::ResetAfter(IN_HEAD)));
        })
        .breaks(),
        fault("a reset in the body of a request", Effect::Status(502), |server| {
            server.request_faults(up(Fault::ResetAfter(IN_BODY)));
        })
        .breaks(),
        fault("an end in the head of a request", Effect::Status(502), |server| {
            server.request_faults(up(Fault::CloseAfter(IN_HEAD)));
        })
        .breaks(),
        fault("half an end in the head of a request", Effect::AnyStatus, |server| {
            server.request_faults(up(Fault::HalfCloseAfter(IN_HEAD)));
        })
        .may(&[400, 502])
        .breaks(),
        fault("requests are corrupt", Effect::AnyStatus, |server| {
            server.request_faults(up(Fault::CorruptAfter(0)));
        })
        .may(&[400, 401, 404, 502, 504])
        .breaks()
        .mangles(),
    ]
}

/// Faults of exchanges on their way. All tokens are revoked, so that each tenant needs one.
fn exchanges() -> Vec<Script> {
    let scripts = [
        harmless("tokens come late", Effect::Exchange, |server| {
            server.exchange_faults(down(Fault::Latency(LATE)));
        }),
        harmless("tokens come in scraps", Effect::Exchange, |server| {
            server.exchange_faults(Faults { to_server: Fault::Scraps, to_gateway: Fault::Scraps });
        }),
        fault("no token comes", Effect::Status(504), |server| {
            server.exchange_faults(down(Fault::StallAfter(0)));
        })
        .may(OUTAGE),
        fault("tokens stall in the body", Effect::Status(504), |server| {
            server.exchange_faults(down(Fault::StallAfter(IN_BODY)));
        })
        .may(OUTAGE),
        fault("no exchange arrives", Effect::Status(504), |server| {
            server.exchange_faults(up(Fault::StallAfter(0)));
        })
        .may(OUTAGE),
        fault("a reset in place of a token", Effect::AnyStatus, |server| {
            server.exchange_faults(down(Fault::ResetAfter(0)));
        })
        .may(OUTAGE),
        fault("a reset in the reply with the token", Effect::AnyStatus, |server| {
            server.exchange_faults(down(Fault::ResetAfter(IN_BODY)));
        })
        .may(OUTAGE),
        fault("an end in the reply with the token", Effect::AnyStatus, |server| {
            server.exchange_faults(down(Fault::CloseAfter(IN_BODY)));
        })
        .may(OUTAGE),
        fault("an end in the request for a token", Effect::AnyStatus, |server| {
            server.exchange_faults(up(Fault::CloseAfter(IN_HEAD)));
        })
        .may(OUTAGE),
        fault("tokens are corrupt", Effect::AnyStatus, |server| {
            server.exchange_faults(down(Fault::CorruptAfter(IN_HEAD)));
        })
        .may(OUTAGE),
        fault("another protocol gives tokens", Effect::AnyStatus, |server| {
            server.exchange_faults(down(Fault::Instead(b"220 mail.example ESMTP\r\n")));
        })
        .may(OUTAGE),
    ];
    scripts.map(Script::revoking).into()
}

/// Faults of the token endpoint itself.
fn token_endpoint() -> Vec<Script> {
    vec![
        refused("the token endpoint responds with 500", |server| {
            server.stand_in.fail_next_token(StatusCode::INTERNAL_SERVER_ERROR, u64::MAX);
        }),
        refused("the token endpoint responds with 503", |server| {
            server.stand_in.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, u64::MAX);
        }),
        refused("the token endpoint responds with 429 and asks to wait", |server| {
            server.stand_in.set_reply(TokenReply::Raw {
                status: StatusCode::TOO_MANY_REQUESTS,
                headers: vec![("Retry-After".into(), "1".into())],
                body: b"{}".to_vec(),
            });
        })
        .held_back(Duration::from_secs(1)),
        refused("the login fails", |server| server.stand_in.set_reply(TokenReply::FailedLogin))
            .held_back(REFUSED),
        refused("the secret was regenerated", |server| {
            for identity in server.identities() {
                server.stand_in.set_embed_secret(Some(&identity.site), "another");
            }
        })
        .held_back(REFUSED),
        refused("a page comes for a token", |server| server.stand_in.set_reply(TokenReply::Html)),
        refused("nothing comes for a token", |server| server.stand_in.set_reply(TokenReply::Empty)),
        refused("half a reply comes for a token", |server| {
            server.stand_in.set_reply(TokenReply::Truncated);
        }),
        refused("the reply with the token breaks off", |server| {
            server.stand_in.set_reply(TokenReply::BrokenOff);
        }),
        refused("the reply with the token is too large", |server| {
            server.stand_in.set_reply(TokenReply::Oversize);
        }),
        refused("two tokens come", |server| server.stand_in.set_reply(TokenReply::DuplicateKeys)),
        refused("a token has a line end in it", |server| {
            server.stand_in.set_reply(TokenReply::LineEndInToken);
        }),
        refused("the token endpoint redirects", |server| {
            server.stand_in.set_reply(TokenReply::Redirect("http://127.0.0.1:9/".into()));
        }),
        fault("the token endpoint never responds", Effect::Status(504), |server| {
            server.stand_in.set_reply(TokenReply::Never);
        })
        .lingers()
        .may(OUTAGE)
        .revoking(),
        harmless("tokens live for a second or two", Effect::Exchange, |server| {
            server.stand_in.set_token_lifetime(Duration::from_secs(2));
        })
        .revoking(),
        harmless("tokens say nothing of their end", Effect::Exchange, |server| {
            server.stand_in.set_reply(TokenReply::NoExpiry);
        })
        .revoking(),
    ]
}

/// No token can be had, for a reason that is no time-out.
const fn refused(name: &'static str, begin: fn(&FaultyServer)) -> Script {
    fault(name, Effect::AnyStatus, begin).may(OUTAGE).revoking()
}

/// Faults of the API.
fn api() -> Vec<Script> {
    vec![
        fault("the API responds with 500", Effect::Status(500), |server| {
            server.stand_in.fail_next_api(StatusCode::INTERNAL_SERVER_ERROR, u64::MAX);
        })
        .may(&[500]),
        fault("the API responds with 503", Effect::Status(503), |server| {
            server.stand_in.fail_next_api(StatusCode::SERVICE_UNAVAILABLE, u64::MAX);
        })
        .may(&[503]),
        fault("the API responds with 429", Effect::Status(429), |server| {
            server.stand_in.fail_next_api(StatusCode::TOO_MANY_REQUESTS, u64::MAX);
        })
        .may(&[429]),
        fault("the API responds with 401 to everything", Effect::Status(401), |server| {
            server.stand_in.fail_next_api(StatusCode::UNAUTHORIZED, u64::MAX);
        })
        .may(&[401]),
        fault("a burst of 401", Effect::Exchange, |server| {
            server.stand_in.fail_next_api(StatusCode::UNAUTHORIZED, 20);
        })
        .may(&[401]),
        harmless("all tokens are revoked", Effect::Exchange, |server| server.stand_in.revoke_all()),
        harmless("one user's tokens are revoked", Effect::Exchange, |server| {
            server.stand_in.revoke(&server.identities()[0].user);
        }),
        harmless("the API is slow", Effect::Slow(LATE), |server| {
            server.stand_in.set_latency(Duration::ZERO, LATE);
        }),
        fault("the API never responds", Effect::Status(504), |server| {
            server.stand_in.set_latency(Duration::ZERO, Duration::from_secs(60));
        })
        .lingers()
        .may(&[504]),
    ]
}

/// A refused credential is tried again after this time, so that no account is locked. A changed
/// credential is tried at once.
const REFUSED: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_millis(50);
/// Longer than the gateway waits.
const TOO_LATE: Duration = PATIENCE.saturating_add(LATE);
const IN_HEAD: usize = 40;
const IN_BODY: usize = 500;
/// The statuses that clients may see while no token can be had.
const OUTAGE: &[u16] = &[502, 503, 504];
