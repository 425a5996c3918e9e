//! Check that all that requests hold was given back: for tests.

use super::Gateway;

impl Gateway {
    /// Resources that are still held or counted though no request is at work, in words.
    pub(crate) fn held_while_idle(&self) -> Vec<String> {
        self.sweep();
        let mut held = Vec::new();
        let mut count = |what: &str, count: u64| {
            if count > 0 {
                held.push(format!("{what}: {count}"));
            }
        };
        count("connections", self.connections() as u64);
        count("bytes of memory", self.memory.used());
        count("shares of memory", u64::from(!self.memory.is_given_back()));
        count("busy connections", u64::from(!self.places.is_given_back()));
        for (what, seats) in self.concurrency.seats() {
            count(what, seats as u64);
        }
        let table = self.table.load();
        for (what, taken) in table.taken() {
            count(&what, taken);
        }
        held
    }
}
