//! Learns what a worker tells of its model, once it serves.
//!
//! It asks the worker and reads its log; the model itself is asked nothing. What lists
//! of models say follows from it, and nothing else does.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::calls::{Callee, Calls};
use crate::config;
use crate::deployment::Handle;
use crate::vllm::about::{About, architecture_in};

/// Learns of the model of one worker.
#[derive(Debug)]
pub(super) struct Learner {
    /// Deployment of the worker.
    pub(super) handle: Arc<Handle>,
    /// Spec that the worker was started for.
    pub(super) spec: Arc<config::Deployment>,
    /// Number of the worker's first line in the console.
    pub(super) lines_from: u64,
}

impl Learner {
    /// Learns what can be learnt, unless the worker is let go meanwhile.
    pub(super) async fn learn(
        &self,
        calls: &Arc<dyn Calls>,
        callee: Callee,
        gone: &CancellationToken,
    ) {
        let asked = tokio::select! {
            () = gone.cancelled() => None,
            told = calls.about(callee) => told,
        };
        let (lines, _) = self.handle.console.since(self.lines_from);
        // The first is the model's own; another may be that of its draft.
        let named = lines.iter().find_map(|line| architecture_in(line));
        let named = named.map(About::of_architecture);
        for told in asked.iter().chain(&named) {
            self.handle.told(&self.spec, told);
        }
    }
}
