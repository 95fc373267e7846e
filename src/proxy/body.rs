//! Sends the body of a request, while listening for an early response of the server and for a
//! client that disconnects.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::session::{ClientFault, ClientGone, Session};
use crate::http1::{ClientSession, ResponseError, WriteState};

/// How much of the request's body was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// All of it.
    Done,
    /// The response came first; a rest of the body is not sent.
    Unfinished,
}

/// Why the transfer of a request and its response ended early.
#[derive(Debug)]
pub(super) enum TransferError {
    /// The client disconnected.
    ClientGone,
    /// The client paused for too long in the middle of its body.
    ClientSilent,
    /// The client's body is not framed as its head said.
    ClientMalformed,
    /// The body grew beyond the limit.
    TooLarge,
    /// The server's connection or response failed.
    Server(ResponseError),
}

impl From<ClientFault> for TransferError {
    fn from(fault: ClientFault) -> Self {
        match fault {
            ClientFault::Gone => Self::ClientGone,
            ClientFault::Silent => Self::ClientSilent,
            ClientFault::Malformed => Self::ClientMalformed,
        }
    }
}

impl From<ClientGone> for TransferError {
    fn from(_: ClientGone) -> Self {
        Self::ClientGone
    }
}

/// Waits for the response's head, or for the client to disconnect.
pub(super) async fn await_response(
    down: &mut Session,
    up: &mut ClientSession,
) -> Result<(), TransferError> {
    tokio::select! {
        biased;
        head = up.read_head() => head.map_err(TransferError::Server),
        gone = down.client_gone() => Err(gone.into()),
    }
}

/// Sends the body, beginning with the part `kept` from an earlier try, until all of it is sent or
/// the response's head has arrived.
pub(super) async fn upload(
    down: &mut Session,
    up: &mut ClientSession,
    kept: Option<Bytes>,
    limits: UploadLimits,
) -> Result<Upload, TransferError> {
    let state = Arc::clone(up.connection().write_state());
    state.set_elastic(true);
    // The server is not late before the client has sent everything.
    let read_timeout = up.set_read_timeout(None);
    let sent = send_all(down, up, kept, &limits, &state).await;
    up.set_read_timeout(read_timeout);
    state.set_elastic(false);
    match sent? {
        Upload::Done => await_response(down, up).await.map(|()| Upload::Done),
        Upload::Unfinished => Ok(Upload::Unfinished),
    }
}

/// Bounds of an upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadLimits {
    /// Longest time in which the server takes nothing.
    pub write: Duration,
    /// Longest time in which the client takes nothing.
    pub client: Duration,
    /// Most bytes of a body.
    pub max_body: u64,
}

async fn send_all(
    down: &mut Session,
    up: &mut ClientSession,
    kept: Option<Bytes>,
    limits: &UploadLimits,
    state: &WriteState,
) -> Result<Upload, TransferError> {
    if let Some(kept) = kept.filter(|kept| !kept.is_empty())
        && send_piece(up, Some(&kept), limits, state).await? == Upload::Unfinished
    {
        return Ok(Upload::Unfinished);
    }
    loop {
        let piece = tokio::select! {
            biased;
            early = up.read_head() => {
                return early.map(|()| Upload::Unfinished).map_err(TransferError::Server);
            }
            piece = down.read_body() => piece?,
        };
        if down.body_received() > limits.max_body {
            return Err(TransferError::TooLarge);
        }
        let sent = send_piece(up, piece.as_deref(), limits, state).await?;
        if piece.is_none() || sent == Upload::Unfinished {
            return Ok(sent);
        }
    }
}

/// Sends a piece of the body, or its end. `Unfinished` if the response's head came first.
async fn send_piece(
    up: &mut ClientSession,
    piece: Option<&[u8]>,
    limits: &UploadLimits,
    state: &WriteState,
) -> Result<Upload, TransferError> {
    let written = match piece {
        Some(piece) => up.write_body(piece).await,
        None => up.finish_body().await,
    };
    if let Err(error) = written {
        // The server may have responded and closed: its response may still be there to read.
        return match timeout(EARLY_RESPONSE_TIMEOUT, up.read_head()).await {
            Ok(Ok(())) => Ok(Upload::Unfinished),
            _ => Err(TransferError::Server(error)),
        };
    }
    if !state.is_pending() {
        return Ok(Upload::Done);
    }
    let mut head = pin!(up.read_head());
    let taken_or_response = poll_fn(|cx| match head.as_mut().poll(cx) {
        Poll::Ready(head) => Poll::Ready(head.map(|()| Upload::Unfinished)),
        Poll::Pending if !state.is_pending() => Poll::Ready(Ok(Upload::Done)),
        Poll::Pending => Poll::Pending,
    });
    match timeout(limits.write, taken_or_response).await {
        Ok(result) => result.map_err(TransferError::Server),
        Err(_) => Err(TransferError::Server(ResponseError::WriteTimeout)),
    }
}

/// Sends the rest of the body while it relays the response. Ends when either is complete; `Done` if
/// that is the request's body.
pub(super) async fn duplex(
    down: &mut Session,
    up: &mut ClientSession,
    limits: &UploadLimits,
) -> Result<Upload, TransferError> {
    let to_client = Arc::clone(down.connection().write_state());
    let to_server = Arc::clone(up.connection().write_state());
    to_client.set_elastic(true);
    to_server.set_elastic(true);
    // The server may be waiting for the client.
    let read_timeout = up.set_read_timeout(None);
    let transfer = Duplex {
        down,
        up,
        limits,
        to_client: &to_client,
        to_server: &to_server,
        going_up: None,
        coming_down: None,
        client_done: false,
        server_done: false,
        server_takes: true,
    };
    let result = transfer.run().await;
    up.set_read_timeout(read_timeout);
    to_client.set_elastic(false);
    to_server.set_elastic(false);
    result
}

/// Both directions at once. While one side still writes the piece before, nothing more is read from
/// the other, so that each direction holds one piece.
struct Duplex<'d> {
    down: &'d mut Session,
    up: &'d mut ClientSession,
    limits: &'d UploadLimits,
    to_client: &'d WriteState,
    to_server: &'d WriteState,
    /// Read from the client, to be sent to the server.
    going_up: Option<Bytes>,
    /// Read from the server, to be sent to the client.
    coming_down: Option<Bytes>,
    client_done: bool,
    server_done: bool,
    /// A server that has responded may take no more of the body; its response counts all the same.
    server_takes: bool,
}

enum Event {
    FromClient(Result<Option<Bytes>, ClientFault>),
    FromServer(Result<Option<Bytes>, ResponseError>),
    Drained,
}

impl Duplex<'_> {
    async fn run(mut self) -> Result<Upload, TransferError> {
        loop {
            if !self.to_server.is_pending()
                && let Some(piece) = self.going_up.take()
            {
                self.server_takes = self.up.write_body(&piece).await.is_ok();
            }
            if !self.to_client.is_pending() {
                self.write_down().await?;
            }
            if self.server_done && self.coming_down.is_none() {
                return Ok(Upload::Unfinished);
            }
            if self.client_done && self.going_up.is_none() && self.server_takes {
                self.server_takes = self.up.finish_body().await.is_ok();
                self.write_down().await?;
                if self.server_takes {
                    return Ok(Upload::Done);
                }
            }
            match self.next_event().await? {
                Event::Drained => {}
                Event::FromServer(Ok(Some(piece))) => self.coming_down = Some(piece),
                Event::FromServer(Ok(None)) => self.server_done = true,
                Event::FromServer(Err(error)) => return Err(TransferError::Server(error)),
                Event::FromClient(Ok(Some(piece))) => {
                    if self.down.body_received() > self.limits.max_body {
                        return Err(TransferError::TooLarge);
                    }
                    self.going_up = Some(piece);
                }
                Event::FromClient(Ok(None)) => self.client_done = true,
                Event::FromClient(Err(fault)) => return Err(fault.into()),
            }
        }
    }

    async fn write_down(&mut self) -> Result<(), ClientGone> {
        match self.coming_down.take() {
            Some(piece) => self.down.write_body(&piece).await,
            None => Ok(()),
        }
    }

    /// Waits for a piece from either side, or until a side has taken the piece that waits for it.
    async fn next_event(&mut self) -> Result<Event, TransferError> {
        let (up_waits, down_waits) = (self.going_up.is_some(), self.coming_down.is_some());
        let (down, up) = (&mut *self.down, &mut *self.up);
        let mut from_client = pin!(async {
            if self.client_done || up_waits || !self.server_takes {
                down.write_pending().await;
                std::future::pending().await
            } else {
                down.read_body().await
            }
        });
        let mut from_server = pin!(async {
            if self.server_done || down_waits {
                let _ = poll_fn(|cx| up.connection().poll_write_pending(cx)).await;
                std::future::pending().await
            } else {
                up.read_body().await
            }
        });
        let next = poll_fn(|cx| {
            if let Poll::Ready(piece) = from_server.as_mut().poll(cx) {
                return Poll::Ready(Event::FromServer(piece));
            }
            if let Poll::Ready(piece) = from_client.as_mut().poll(cx) {
                return Poll::Ready(Event::FromClient(piece));
            }
            let drained = (up_waits && !self.to_server.is_pending())
                || (down_waits && !self.to_client.is_pending());
            if drained { Poll::Ready(Event::Drained) } else { Poll::Pending }
        });
        // A side that is not read from cannot be late.
        let write_timeout = |_| TransferError::Server(ResponseError::WriteTimeout);
        match (up_waits, down_waits) {
            (_, true) => {
                timeout(self.limits.client, next).await.map_err(|_| TransferError::ClientGone)
            }
            (true, false) => timeout(self.limits.write, next).await.map_err(write_timeout),
            (false, false) => Ok(next.await),
        }
    }
}

/// Longest wait for an early response after a write to the server has failed.
const EARLY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
