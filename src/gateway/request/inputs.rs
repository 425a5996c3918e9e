//! Check that a request for a worker of ours brings along only what its route allows.
//!
//! The body is looked at by [`crate::openai::media`]; here the names in it are looked up.
//! That refuses names that lead to this machine or network, but not a name that changes its
//! address between our look-up and the worker's: vLLM up to 0.32 looks up by
//! itself and takes what it gets. An operator rules that out by `media = "data"`, or a
//! list of hosts.

use std::time::Duration;

use crate::auth::Principal;
use crate::config::{Inputs, Media};
use crate::gateway::Gateway;
use crate::gateway::refusal::Refusal;
use crate::openai::media::{NamedHost, Walk};
use crate::outbound::dial::public::{self, Host};
use crate::outbound::dial::{Failure, once};
use crate::pieces::Pieces;
use crate::time::Instant;

/// Requests of one token whose hosts are looked up at once.
const LOOK_UPS_MAX: u32 = 4;
/// Time that all look-ups of one request may take.
const LOOK_UP_MAX: Duration = Duration::from_secs(5);

/// Checks what a body brings along.
///
/// # Errors
///
/// A [`Refusal`] for what is not allowed, and where its token looks up too much at once.
pub(in crate::gateway) async fn check(
    gateway: &Gateway,
    principal: &Principal,
    inputs: &Inputs,
    body: &Pieces,
) -> Result<(), Refusal> {
    if inputs.media == Media::Any && inputs.chat_template {
        return Ok(());
    }
    let mut walk = Walk::new(inputs);
    for piece in body.iter() {
        walk.feed(piece).map_err(Refusal::Body)?;
    }
    let named = walk.end();
    if named.is_empty() {
        return Ok(());
    }
    let seat = gateway.look_ups.take(&principal.token_id, LOOK_UPS_MAX);
    let _seat = seat.ok_or(Refusal::Overloaded { by_share: true })?;
    let began = Instant::now();
    for named in named {
        let left = LOOK_UP_MAX.saturating_sub(began.elapsed());
        look_up(&named, left).await?;
    }
    Ok(())
}

/// Refuses a host that leads to this machine or to a private network.
async fn look_up(named: &NamedHost, limit: Duration) -> Result<(), Refusal> {
    let refused = |why: &str| Refusal::Body(named.refused(why));
    let addresses = match &named.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => match once::ask(name, limit).await {
            Ok(addresses) => addresses,
            Err(Failure::NameTimeout) => return Err(refused("was not resolved in time")),
            Err(_) => return Err(refused("can't be resolved by the gateway")),
        },
    };
    for address in addresses {
        if let Err(why) = public::address(address) {
            return Err(match named.host {
                Host::Address(_) => refused(why),
                Host::Name(_) => refused(&format!("resolves to an address that {why}")),
            });
        }
        if public::is_own(address) {
            return Err(refused("is this machine itself"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        for (host, words) in [
            // As if its spelling had said nothing.
            (Host::Name("localhost".to_owned()), "resolves to an address"),
            (Host::Name("no such name".to_owned()), "can't be resolved"),
            (
                Host::Address([10, 0, 0, 1].into()),
                "is of a private network",
            ),
        ] {
            let named = NamedHost {
                place: "images[0]".to_owned(),
                host,
            };
            let refused = look_up(&named, Duration::from_secs(30)).await.unwrap_err();
            let Refusal::Body(error) = refused else {
                panic!("{refused:?}");
            };
            let text = error.to_string();
            assert!(
                text.starts_with("`images[0]`: ") && text.contains(words),
                "{text}"
            );
        }
        let public = NamedHost {
            place: String::new(),
            host: Host::Address([8, 8, 8, 8].into()),
        };
        assert!(look_up(&public, Duration::ZERO).await.is_ok());
    }
}
