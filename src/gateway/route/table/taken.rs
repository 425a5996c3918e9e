//! Places and budgets that requests hold: for tests.

use super::{Backend, Table};

impl Table {
    /// Each kind of place, and how many are taken.
    pub(in crate::gateway) fn taken(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        let mut add = |what: String, taken: u64| all.push((what, taken));
        for (name, entrance) in &self.entrances {
            add(format!("budgets of {name}"), entrance.rates.len() as u64);
            for destination in entrance.models.all() {
                let slots = destination.slots.used();
                add(format!("places of {}", destination.name), slots.into());
            }
        }
        for target in self.targets() {
            let label = &target.label;
            if let Backend::Deployment { handle, slots, .. } = &target.backend {
                add(format!("places of {label}"), slots.used().into());
                add(format!("inside {label}"), handle.gate.in_flight().into());
                add(format!("waiting for {label}"), handle.waiting().into());
                add(format!("queued for {label}"), handle.queued().into());
            }
            for server in target.servers() {
                let label = &server.label;
                let slots = server.slots().map_or(0, |slots| slots.used());
                add(format!("places of {label}"), slots.into());
                add(format!("requests of {label}"), server.in_flight().into());
                add(
                    format!("connections of {label}"),
                    server.pool.active().into(),
                );
            }
        }
        all
    }
}
