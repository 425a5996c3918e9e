//! The seam to a place that models come from, and why one does not come.
//!
//! A [`Provider`] tells a plan, which its [`Watch`] judges before a byte comes.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use super::record::RecordError;
use super::refusal::{HubError, Unfetchable};
use super::room::NoRoom;
use super::source::{FetchPlan, Fetched, NoSource};

/// Reason for which a model is not here.
#[derive(Debug, thiserror::Error)]
pub enum Unfetched {
    /// Its name is none.
    #[error(transparent)]
    Source(#[from] NoSource),
    /// The hub does not give it.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// There is no place for it.
    #[error(transparent)]
    Room(#[from] NoRoom),
    /// The directory is not one of a model.
    #[error("{path} holds no whole model: {why}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The fault that it has.
        why: String,
    },
    /// Nothing comes any more.
    #[error("nothing of {0} came for 10 minutes: look at the network; what has come is kept")]
    Stalled(String),
    /// Another fetch of it is at work, or it is being removed.
    #[error("another fetch of {0} is at work: wait until it has ended")]
    Busy(String),
    /// The cache can't be written.
    #[error(
        "the hub's cache {path} can't be written: look at its owner, or set HF_HOME to another directory"
    )]
    Cache {
        /// The model's directory in it.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// The record that we keep of it can't be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Unfetched {
    /// Consequence of the failure.
    pub fn verdict(&self) -> Unfetchable {
        match self {
            Self::Source(_)
            | Self::Directory { .. }
            | Self::Record(RecordError::Senseless { .. })
            | Self::Room(NoRoom::Budget { .. } | NoRoom::Free { .. }) => Unfetchable::Never,
            Self::Hub(error) => error.verdict(),
            Self::Room(NoRoom::Filling { .. })
            | Self::Stalled(_)
            | Self::Busy(_)
            | Self::Record(RecordError::File { .. })
            | Self::Cache { .. } => Unfetchable::Now,
        }
    }
}

/// Judges and hears a fetch. A call that fails ends it.
pub trait Watch: Send + Sync {
    /// Judges the plan; fails with the reason not to fetch.
    fn planned<'a>(&'a self, plan: &'a FetchPlan) -> Judged<'a>;

    /// Hears that so many bytes of all files are there.
    ///
    /// # Errors
    ///
    /// The reason not to go on.
    fn came(&self, done: u64) -> Result<(), Unfetched>;

    /// Hears of something else, as why the fetch waits.
    fn says(&self, words: &str);
}

/// A judgement under way.
pub type Judged<'a> = Pin<Box<dyn Future<Output = Result<(), Unfetched>> + Send + 'a>>;

/// A fetch under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, Unfetched>> + Send + 'a>>;

/// Brings a model here. Dropping the future ends the fetch; the next goes on from there.
pub trait Provider: Send + Sync {
    /// Fetches it whole, or says why not.
    fn fetch<'a>(&'a self, watch: &'a dyn Watch) -> Fetching<'a>;
}
