//! Counts of the requests that each workspace, token and route has at work.

use std::sync::Arc;

use crate::auth::Principal;
use crate::config::Route;
use crate::gateway::limits::slots::{Seat, Seats};
use crate::gateway::refusal::Refusal;
use crate::names::{RouteName, Workspace};

/// Requests of a route whose bodies may be on their way beside those that have a place or
/// wait for one.
const ON_THEIR_WAY: u32 = 64;

/// Requests at work by workspace, by token and by route.
#[derive(Debug)]
pub struct Concurrency {
    workspaces: Arc<Seats<Workspace>>,
    tokens: Arc<Seats<Arc<str>>>,
    /// On their way to a route, waiting there, or at work.
    routes: Arc<Seats<RouteName>>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            workspaces: Seats::new(),
            tokens: Seats::new(),
            routes: Seats::new(),
        }
    }
}

/// Seats that a request takes, as far as there are limits.
#[derive(Debug, Default)]
pub struct Seating {
    _workspace: Option<Seat<Workspace>>,
    _token: Option<Seat<Arc<str>>>,
    route: Option<Seat<RouteName>>,
}

impl Concurrency {
    /// Counts a request for its workspace and its token, from its head on.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when one of them has as many as it may have.
    pub fn seat(&self, principal: &Principal, workspace: Option<u32>) -> Result<Seating, Refusal> {
        let full = |limit| Refusal::Full { limit };
        Ok(Seating {
            _workspace: match workspace {
                Some(limit) => {
                    let seat = self.workspaces.take(&principal.workspace, limit);
                    Some(seat.ok_or(full(limit))?)
                }
                None => None,
            },
            _token: match principal.limits.conc {
                Some(limit) => {
                    let seat = self.tokens.take(&principal.token_id, limit);
                    Some(seat.ok_or(full(limit))?)
                }
                None => None,
            },
            route: None,
        })
    }

    /// Counts a request for its route, once that is known: from its head on where its
    /// path says it, else from the `model` in its body. It takes no place yet, so that
    /// one that sends slowly keeps no one from a server.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when all that could have a place, wait for one, or be on their
    /// way are there.
    pub fn enter(&self, route: &Route, seating: &mut Seating) -> Result<(), Refusal> {
        let limits = &route.limits;
        let Some(limit) = limits.max_concurrent_requests else {
            return Ok(());
        };
        if seating.route.is_some() {
            return Ok(());
        }
        let most = limit
            .saturating_add(limits.queue_requests_max)
            .saturating_add(ON_THEIR_WAY);
        let seat = self.routes.take(&route.name, most);
        seating.route = Some(seat.ok_or(Refusal::Full { limit })?);
        Ok(())
    }

    /// Number of workspaces, tokens and routes that have requests at work.
    #[cfg(test)]
    pub(in crate::gateway) fn seats(&self) -> [(&'static str, usize); 3] {
        [
            ("workspaces at work", self.workspaces.keys()),
            ("tokens at work", self.tokens.keys()),
            ("routes at work", self.routes.keys()),
        ]
    }
}
