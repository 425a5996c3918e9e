//! Times at which a server is asked beside the requests, and for what.
//!
//! Owns the times alone; the asking is [`crate::gateway::lookout`]'s.

use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::config::HealthCheck;

/// Questions that one server is asked.
#[derive(Debug)]
pub struct Lookout {
    /// Check of its health, if it is asked for that.
    pub(in crate::gateway) check: Option<HealthCheck>,
    /// Path that stands before all others.
    pub(in crate::gateway) base_path: String,
    /// True if its figures count.
    pub(in crate::gateway) figures: bool,
    /// Milliseconds of the clock when each is due; one writer, the lookout's task.
    pub(in crate::gateway) check_due: AtomicU64,
    pub(in crate::gateway) figures_due: AtomicU64,
    pub(in crate::gateway) asking_health: AtomicBool,
    pub(in crate::gateway) asking_figures: AtomicBool,
}

impl Lookout {
    /// For an external server.
    pub fn new(check: Option<HealthCheck>, base_path: String, figures: bool) -> Self {
        Self {
            check,
            base_path,
            figures,
            check_due: AtomicU64::new(0),
            figures_due: AtomicU64::new(0),
            asking_health: AtomicBool::new(false),
            asking_figures: AtomicBool::new(false),
        }
    }

    /// For a worker of ours: its lifecycle watches over it.
    pub fn of_worker() -> Self {
        Self::new(None, String::new(), true)
    }

    /// True when this server needs neither health checks nor figures.
    pub(in crate::gateway) fn is_idle(&self) -> bool {
        self.check.is_none() && !self.figures
    }
}
