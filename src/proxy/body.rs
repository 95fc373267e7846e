//! What goes up while something may already come down: the request's body, an answer that does not
//! wait for its end, and a client that leaves.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::protocols::http::v1::{client, server};
use pingora::{Error, ErrorType};
use tokio::time::timeout;

use super::connection::{Connection, WriteState};

/// How far the request's body got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// All of it was sent.
    Done,
    /// The answer came first; the rest is still the client's.
    Unfinished,
}

/// What ends an exchange with the server before its answer is complete.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client left, or its connection broke.
    ClientGone,
    /// The client was silent for too long in the middle of its body.
    ClientSilent,
    /// The client's body is not framed as its head said.
    ClientMalformed,
    /// The body grew beyond the limit.
    TooLarge,
    /// The server's side.
    Server(Box<Error>),
}

/// Waits for the answer's head while nothing more is sent, watching for a client that leaves.
pub(super) async fn await_answer(
    down: &mut server::HttpSession,
    up: &mut client::HttpSession,
) -> Result<(), Broken> {
    tokio::select! {
        biased;
        head = answer_head(up) => head.map_err(Broken::Server),
        gone = await_client_gone(down) => Err(gone),
    }
}

/// Ends when the client leaves; never, once a next request of its has begun to arrive.
pub(super) async fn await_client_gone(down: &mut server::HttpSession) -> Broken {
    // Whatever it returns, be it a broken connection, the client is not there any more.
    let _ = down.read_body_or_idle(true).await;
    Broken::ClientGone
}

/// Sends the body, first what was `kept` of it from an earlier try, until all is sent or the
/// answer's head is there.
pub(super) async fn upload(
    down: &mut server::HttpSession,
    up: &mut client::HttpSession,
    kept: Option<Bytes>,
    limits: UploadLimits,
) -> Result<Upload, Broken> {
    let state = Arc::clone(Connection::write_state(up.stream()));
    state.set_elastic(true);
    let sent = send_all(down, up, kept, &limits, &state).await;
    state.set_elastic(false);
    match sent? {
        Upload::Done => await_answer(down, up).await.map(|()| Upload::Done),
        Upload::Unfinished => Ok(Upload::Unfinished),
    }
}

/// Bounds of an upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadLimits {
    /// Longest time for which the server takes nothing.
    pub write: Duration,
    /// Most bytes of a body.
    pub max_body: u64,
}

async fn send_all(
    down: &mut server::HttpSession,
    up: &mut client::HttpSession,
    kept: Option<Bytes>,
    limits: &UploadLimits,
    state: &WriteState,
) -> Result<Upload, Broken> {
    if let Some(kept) = kept.filter(|kept| !kept.is_empty())
        && send_piece(up, Some(&kept), limits, state).await? == Upload::Unfinished
    {
        return Ok(Upload::Unfinished);
    }
    loop {
        let piece = tokio::select! {
            biased;
            early = answer_head(up) => {
                return early.map(|()| Upload::Unfinished).map_err(Broken::Server);
            }
            piece = down.read_body_bytes() => piece.map_err(|e| client_fault(&e))?,
        };
        if down.body_bytes_read() as u64 > limits.max_body {
            return Err(Broken::TooLarge);
        }
        let sent = send_piece(up, piece.as_deref(), limits, state).await?;
        if piece.is_none() || sent == Upload::Unfinished {
            return Ok(sent);
        }
    }
}

/// Sends a piece, or the end of the body. `Unfinished` when the answer's head came instead.
async fn send_piece(
    up: &mut client::HttpSession,
    piece: Option<&[u8]>,
    limits: &UploadLimits,
    state: &WriteState,
) -> Result<Upload, Broken> {
    let written = match piece {
        Some(piece) => up.write_body(piece).await,
        None => up.finish_body().await,
    };
    if let Err(error) = written {
        // A server that has answered and closed already: its answer may still be there to read.
        return match timeout(LAST_WORDS, answer_head(up)).await {
            Ok(Ok(())) => Ok(Upload::Unfinished),
            _ => Err(Broken::Server(error)),
        };
    }
    if !state.is_pending() {
        return Ok(Upload::Done);
    }
    let mut head = pin!(answer_head(up));
    let taken_or_answered = poll_fn(|cx| match head.as_mut().poll(cx) {
        Poll::Ready(head) => Poll::Ready(head.map(|()| Upload::Unfinished)),
        Poll::Pending if !state.is_pending() => Poll::Ready(Ok(Upload::Done)),
        Poll::Pending => Poll::Pending,
    });
    match timeout(limits.write, taken_or_answered).await {
        Ok(result) => result.map_err(Broken::Server),
        Err(_) => Err(Broken::Server(Error::explain(
            ErrorType::WriteTimedout,
            "the server takes no more of the body",
        ))),
    }
}

/// Both directions at once: the rest of the body goes up while the answer's body comes down. Ends
/// when either is complete; `Done` when that was the request's body.
pub(super) async fn duplex(
    down: &mut server::HttpSession,
    up: &mut client::HttpSession,
    limits: &UploadLimits,
) -> Result<Upload, Broken> {
    let to_client = Arc::clone(Connection::write_state(down.stream()));
    let to_server = Arc::clone(Connection::write_state(up.stream()));
    to_client.set_elastic(true);
    to_server.set_elastic(true);
    let result = both_ways(down, up, limits, &to_client, &to_server).await;
    for state in [to_client, to_server] {
        state.set_elastic(false);
        state.set_paused(false);
    }
    result
}

enum Event {
    FromClient(pingora::Result<Option<Bytes>>),
    FromServer(pingora::Result<Option<Bytes>>),
    Drained,
}

async fn both_ways(
    down: &mut server::HttpSession,
    up: &mut client::HttpSession,
    limits: &UploadLimits,
    to_client: &WriteState,
    to_server: &WriteState,
) -> Result<Upload, Broken> {
    // Read on one side, and the other is still busy with what came before. A paused side is not
    // read, so these hold no more than what its session had read already: 64 KiB.
    let (mut going_up, mut coming_down) = (VecDeque::<Bytes>::new(), VecDeque::<Bytes>::new());
    let (mut client_done, mut server_done) = (false, false);
    loop {
        while !to_server.is_pending()
            && let Some(piece) = going_up.pop_front()
        {
            up.write_body(&piece).await.map_err(Broken::Server)?;
        }
        while !to_client.is_pending()
            && let Some(piece) = coming_down.pop_front()
        {
            down.write_body(&piece).await.map_err(|_| Broken::ClientGone)?;
        }
        if server_done && coming_down.is_empty() {
            return Ok(Upload::Unfinished);
        }
        if client_done && going_up.is_empty() {
            up.finish_body().await.map_err(Broken::Server)?;
            for piece in coming_down {
                down.write_body(&piece).await.map_err(|_| Broken::ClientGone)?;
            }
            return Ok(Upload::Done);
        }
        let event = {
            // What is on its way to a paused side is pushed along all the same.
            to_server.set_paused(!coming_down.is_empty());
            to_client.set_paused(!going_up.is_empty());
            let mut from_client = pin!(down.read_body_bytes());
            let mut from_server = pin!(up.read_body_bytes());
            let next = poll_fn(|cx| {
                if !server_done && let Poll::Ready(piece) = from_server.as_mut().poll(cx) {
                    return Poll::Ready(Event::FromServer(piece));
                }
                if !client_done && let Poll::Ready(piece) = from_client.as_mut().poll(cx) {
                    return Poll::Ready(Event::FromClient(piece));
                }
                let drained = (!going_up.is_empty() && !to_server.is_pending())
                    || (!coming_down.is_empty() && !to_client.is_pending());
                if drained { Poll::Ready(Event::Drained) } else { Poll::Pending }
            });
            next.await
        };
        match event {
            Event::Drained => {}
            Event::FromServer(Ok(Some(piece))) => coming_down.push_back(piece),
            Event::FromServer(Ok(None)) => server_done = true,
            Event::FromServer(Err(error)) => return Err(Broken::Server(error)),
            Event::FromClient(Ok(Some(piece))) => {
                if down.body_bytes_read() as u64 > limits.max_body {
                    return Err(Broken::TooLarge);
                }
                going_up.push_back(piece);
            }
            Event::FromClient(Ok(None)) => client_done = true,
            Event::FromClient(Err(error)) => return Err(client_fault(&error)),
        }
    }
}

/// The final head of the answer; informational ones before it are for us, not for the client.
pub(super) async fn answer_head(up: &mut client::HttpSession) -> pingora::Result<()> {
    loop {
        up.read_response().await.map_err(|error| error.into_up())?;
        match up.get_status() {
            Some(StatusCode::SWITCHING_PROTOCOLS) => {
                return Error::e_explain(
                    ErrorType::InvalidHTTPHeader,
                    "it switches protocols although it was not asked to",
                );
            }
            Some(status) if status.is_informational() => {}
            _ => return Ok(()),
        }
    }
}

fn client_fault(error: &Error) -> Broken {
    match error.etype() {
        ErrorType::ReadTimedout => Broken::ClientSilent,
        ErrorType::ReadError | ErrorType::ConnectionClosed => Broken::ClientGone,
        // The end of the connection in the middle of a body; chunks that are none come as others.
        kind if kind.as_str() == "PrematureBodyEnd" => Broken::ClientGone,
        _ => Broken::ClientMalformed,
    }
}

/// How long an answer is looked for after the server has stopped to take the body.
const LAST_WORDS: Duration = Duration::from_secs(1);
