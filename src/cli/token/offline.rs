//! The store and key of a directory where no gateway runs.
//!
//! Work done here holds only if a gateway uses this directory: one that has no key,
//! or whose store is gone, is the wrong one, and nothing is made in it.

use std::path::{Path, PathBuf};

use super::super::client::ClientError;
use super::super::common::Failure;
use super::super::out;
use crate::app;
use crate::config::Settings;
use crate::store::{self, Store, mark};

/// Reason for which nothing can be done here.
#[derive(Debug, thiserror::Error)]
enum NothingHere {
    #[error(
        "nothing was done: no gateway answers on {socket}, and there is no signing key {key} here. \
         Run this where the gateway was started, or name its configuration with --config; for a new \
         one, start it first with `tidegate serve`"
    )]
    Key { socket: PathBuf, key: PathBuf },
    #[error(
        "nothing was done: no gateway answers on {socket}, and the store {store} is gone, though there \
         was one. If a gateway runs with it still, restart that one; else restore the store with \
         `tidegate state import`, or start `tidegate serve`, which refuses tokens of before"
    )]
    Store { socket: PathBuf, store: PathBuf },
    #[error(
        "nothing was done: a gateway runs here that is giving way to another one, and would not hear \
         of it; try again when that serves"
    )]
    GivingWay,
}

/// True if no gateway runs, so that the files may be opened here.
pub(crate) fn is_offline<T>(result: &Result<T, Failure>) -> bool {
    matches!(result, Err(error) if matches!(error.downcast_ref(), Some(ClientError::NotRunning(_))))
}

/// Opens the store of these settings, and tells what is wrong with it.
pub(crate) fn open(settings: &Settings) -> Result<Store, Failure> {
    let key = has_key(settings)?;
    if app::is_running(&settings.gateway.state) {
        return Err(NothingHere::GivingWay.into());
    }
    let file = settings.gateway.state.join(store::FILE);
    if !file.exists() && mark::is_known(key)? {
        let (socket, store) = (settings.admin.socket.clone(), file);
        return Err(NothingHere::Store { socket, store }.into());
    }
    let opened = Store::open_beside(&settings.gateway.state, key)?;
    for note in &opened.notes {
        out::note(note);
    }
    // Usage that the last gateway left beside it counts too.
    opened.store.add_left()?;
    Ok(opened.store)
}

/// The signing key of these settings, which is there.
pub(super) fn has_key(settings: &Settings) -> Result<&Path, Failure> {
    let key = &settings.tokens.signing_key;
    if key.exists() {
        return Ok(key);
    }
    let (socket, key) = (settings.admin.socket.clone(), key.clone());
    Err(NothingHere::Key { socket, key }.into())
}
