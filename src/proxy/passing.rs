//! Requests that are passed on without a token of ours (`ui: pass`), and the connections to the
//! server of a request, whatever lets it go on.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::admitted::{Admitted, Right};
use super::downstream::{Peer, RequestClient};
use super::session::Session;
use super::upstream::{Lease, PassedUpstream, Upstream};
use super::{Decision, Proxy, Record};
use crate::caller::ListenerTerms;
use crate::gateway::Passage;
use crate::refusal::Refusal;
use crate::request::{RawHead, RequestHead, Upgrade};

impl Proxy {
    /// Checks a request that goes on without a token of ours.
    pub(super) fn pass<'h>(
        &self,
        down: &Session,
        (raw, head): (&'h RawHead, RequestHead<'h>),
        passage: Passage,
        client: (&'h Peer, Cow<'h, RequestClient>),
        terms: &ListenerTerms,
        record: &mut Record,
    ) -> Result<Decision<'h>, Refusal> {
        record.passed(&passage);
        if down.upgrade() == Upgrade::WebSocket {
            return Err(Refusal::WebSocket);
        }
        self.check_length(head.body)?;
        let right = Right::Passed(passage);
        self.going_on(Admitted::new(raw, head, right, client, terms), record)
    }

    /// The connections to the server.
    pub(super) fn upstream(&self, admitted: &Admitted<'_>) -> Result<&Upstream, Refusal> {
        Ok(match &admitted.right {
            Right::Admitted(admission) => self.upstreams[admission.tenant().index].upstream(),
            Right::Passed(passage) => self.passed_upstream(passage)?.upstream(),
        })
    }

    /// A session to the server.
    pub(super) async fn lease(
        &self,
        admitted: &Admitted<'_>,
        avoided: Option<SocketAddr>,
    ) -> Result<Lease, Refusal> {
        match &admitted.right {
            Right::Admitted(admission) => {
                let tenant = admission.tenant();
                self.upstreams[tenant.index].lease(&tenant.name, avoided).await
            }
            Right::Passed(passage) => self.passed_upstream(passage)?.lease(avoided).await,
        }
    }

    /// The connections for a request that is passed on. The listener may be of another
    /// configuration than this proxy for a moment, in which a server is gone.
    fn passed_upstream(&self, passage: &Passage) -> Result<&PassedUpstream, Refusal> {
        self.passed_server(Some(&passage.server.name)).ok_or(Refusal::ListenerChanged)
    }

    /// The server of this name that is passed on.
    pub fn passed_server(&self, name: Option<&str>) -> Option<&PassedUpstream> {
        let mut passed = self.passed.iter();
        name.and_then(|name| passed.find(|passed| passed.upstream().server().name == name))
    }
}
