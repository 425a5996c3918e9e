//! Transitions: on which GPUs, when their buses are free, and for whose bound.

use super::{Model, Scheduler, Seconds, Uptime, World, key, time};

impl<S: Scheduler> World<'_, S> {
    /// Time when a transition that begins as soon as its GPUs' buses are free is done.
    pub(super) fn transfer(
        &mut self,
        number: usize,
        cost: impl FnOnce(&Model) -> Seconds,
    ) -> Uptime {
        let Some(model) = self.trace.fleet.get(number) else {
            return self.now;
        };
        let places = self.places(number);
        let buses = places.iter().filter_map(|place| self.bus.get(*place));
        let begins = buses.max().copied().unwrap_or_default().max(self.now);
        let cost = cost(model);
        let ends = begins + time(cost);
        for place in &places {
            self.bus_time += cost;
            if let Some(bus) = self.bus.get_mut(*place) {
                *bus = ends;
            }
        }
        ends
    }

    /// The GPUs that a deployment has, or is bound to.
    pub(super) fn places(&self, number: usize) -> Vec<usize> {
        let held = self.scheduler.places(key(number));
        let home = || self.trace.fleet.get(number).map(|model| model.home.clone());
        held.or_else(home).unwrap_or_default()
    }

    /// Takes down for the bound which deployment comes, until when, and since when its first
    /// request waits.
    pub(super) fn granted(&mut self, number: usize, done: Uptime) {
        let first = self
            .actors
            .get(number)
            .and_then(|actor| actor.queue.front());
        let first = first.and_then(|index| self.trace.arrivals.get(*index));
        if let Some(first) = first {
            let span = (self.now.as_secs_f64(), done.as_secs_f64());
            let (whose, places) = ((key(number), self.workspace(number)), self.places(number));
            self.bound.granted(whose, &places, first.at, span);
        }
    }
}
