//! How long starts and wakes took, so that the next one can be foretold.
//!
//! One small JSON file. Losing it costs an estimate and nothing else, so a file
//! that can't be read counts as empty.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::DeploymentId;
use crate::units::Span;

/// Measured times of one deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From launch to ready, last time.
    pub start: Option<Span>,
    /// From asleep to ready, last time.
    pub wake: Option<Span>,
}

/// What is foretold of each deployment.
#[derive(Debug, Default)]
pub struct Timings {
    path: Option<PathBuf>,
    known: BTreeMap<String, Timing>,
}

impl Timings {
    /// Reads the file, if there is one.
    pub fn open(path: PathBuf) -> Self {
        let read = fs::read(&path).ok();
        let known = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self {
            path: Some(path),
            known: known.unwrap_or_default(),
        }
    }

    /// What was measured of this deployment.
    pub fn get(&self, id: &DeploymentId) -> Timing {
        self.known.get(id.as_str()).copied().unwrap_or_default()
    }

    /// Remembers a start.
    pub fn started(&mut self, id: &DeploymentId, took: Duration) {
        self.known.entry(id.as_str().to_owned()).or_default().start = Some(whole_millis(took));
        self.save();
    }

    /// Remembers a wake.
    pub fn woke(&mut self, id: &DeploymentId, took: Duration) {
        self.known.entry(id.as_str().to_owned()).or_default().wake = Some(whole_millis(took));
        self.save();
    }

    fn save(&self) {
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec_pretty(&self.known)
            .map_err(std::io::Error::other)
            .and_then(|bytes| super::whole::write_whole(path, &bytes));
        if let Err(error) = written {
            tracing::debug!(%error, "the times of starts were not kept");
        }
    }
}

/// As it is written, so that it reads back equal.
fn whole_millis(took: Duration) -> Span {
    Span(Duration::from_millis(
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_and_a_torn_file_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timings.json");
        let id = DeploymentId::parse("team/tiny").unwrap();
        let mut timings = Timings::open(path.clone());
        assert_eq!(timings.get(&id), Timing::default());
        timings.started(&id, Duration::from_millis(3_250));
        timings.woke(&id, Duration::from_millis(200));
        let again = Timings::open(path.clone()).get(&id);
        assert_eq!(again.start, Some(Span(Duration::from_millis(3_250))));
        assert_eq!(again.wake, Some(Span(Duration::from_millis(200))));
        fs::write(&path, b"{\"team/t").unwrap();
        assert_eq!(Timings::open(path).get(&id), Timing::default());
    }
}
