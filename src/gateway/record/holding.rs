//! Resources that all share and a request holds: its connection, its shares, memory.
//!
//! From its head on, and to its last byte: it is a part of the request's record.

use std::sync::Arc;

use http::HeaderMap;

use crate::auth::Principal;
use crate::gateway::client::peer::Peer;
use crate::gateway::client::places::{Busy, Places};
use crate::gateway::memory::{Holder, Lease, Memory, REQUEST_BYTES};
use crate::gateway::refusal::Refusal;

/// Bytes that a header takes beside its text, at worst: an entry of a map that has grown.
const HEADER_BYTES: usize = 144;

/// Shared resources that a request holds.
#[derive(Debug)]
pub struct Holding {
    /// The other end of its connection.
    pub peer: Arc<Peer>,
    is_first: bool,
    busy: Option<Busy>,
    memory: Option<Lease>,
    /// Bytes of it without what is buffered.
    own: u64,
    /// Refusal of a head that could not be held.
    overloaded: Option<Refusal>,
}

/// By so much what is buffered has to change before the account is told.
const STEP: u64 = 16 << 10;

impl Holding {
    /// A request begins on the connection of `peer`.
    pub fn begin(peer: &Arc<Peer>) -> Self {
        Self {
            is_first: peer.activity.begin(),
            peer: Arc::clone(peer),
            busy: None,
            memory: None,
            own: 0,
            overloaded: None,
        }
    }

    /// Holds a head for its connection until it is known whose it is; one that can't be
    /// held is dropped. That is for HTTP/2, where a few packed bytes may be many.
    pub fn head(&mut self, memory: &Arc<Memory>, holder: Holder, headers: &mut HeaderMap) {
        match memory.lease(holder, bytes(headers)) {
            Ok(lease) => self.memory = Some(lease),
            Err(refusal) => {
                *headers = HeaderMap::new();
                self.overloaded = Some(refusal);
            }
        }
    }

    /// Waits until its connection has a place.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] where that takes too long, or its head was dropped.
    pub async fn admitted(&mut self, places: &Places) -> Result<(), Refusal> {
        if let Some(refusal) = self.overloaded.take() {
            return Err(refusal);
        }
        places.admitted(&self.peer.activity).await
    }

    /// Counts the request for its token and its client, and holds what it takes. Returns
    /// what is held for a body of `declared` bytes, to be given back once it was sent on.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where token or client have their share, or memory is short.
    pub fn count(
        &mut self,
        (memory, places): (&Arc<Memory>, &Arc<Places>),
        principal: &Principal,
        client: std::net::IpAddr,
        headers: &HeaderMap,
        declared: u64,
    ) -> Result<Lease, Refusal> {
        let holder = memory.holder(client, principal);
        let (is_first, is_proxy) = (self.is_first, self.peer.is_proxy());
        self.busy = Some(places.busy(holder, is_first, is_proxy)?);
        let own = REQUEST_BYTES + bytes(headers);
        let all = own.saturating_add(declared);
        let mut body = memory.lease(holder, all)?;
        self.memory = Some(body.split(own));
        self.own = own;
        Ok(body)
    }

    /// Holds as many bytes as are buffered for the request at present.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] where memory is short.
    pub fn buffers(&mut self, bytes: usize) -> Result<(), Refusal> {
        let Some(memory) = &mut self.memory else {
            return Ok(());
        };
        let all = self.own + bytes as u64;
        if all.abs_diff(memory.bytes()) < STEP {
            return Ok(());
        }
        memory.resize(all)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.peer.activity.end();
    }
}

/// Bytes that a head takes.
fn bytes(headers: &HeaderMap) -> u64 {
    let each = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_BYTES
    };
    headers.iter().map(each).sum::<usize>() as u64
}
