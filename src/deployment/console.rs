//! The last lines of a worker's output, in memory.
//!
//! The file on disk is the whole log; this ring serves `tidegate logs`, the
//! dashboard and the reason of a failure. Bounded in lines and in bytes a line.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Lines that are kept.
pub const LINES_MAX: usize = 2_000;
/// Bytes of a line that are kept.
pub const LINE_BYTES_MAX: usize = 4_096;

/// A ring of lines that can be followed.
#[derive(Debug)]
pub struct Console {
    /// Held for a push or a copy, never over an await.
    lines: Mutex<VecDeque<Arc<str>>>,
    /// Number of lines ever pushed; one writer at a time, under `lines`.
    count: watch::Sender<u64>,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            lines: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Console {
    /// Adds a line; a longer one than [`LINE_BYTES_MAX`] is cut.
    pub fn push(&self, line: &str) {
        let mut end = line.len().min(LINE_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = line.get(..end).unwrap_or_default();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Arc::from(line));
        self.count.send_modify(|count| *count += 1);
    }

    /// Lines from number `from` on, and the number to ask from next time.
    pub fn since(&self, from: u64) -> (Vec<Arc<str>>, u64) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let count = *self.count.borrow();
        let oldest = count - lines.len() as u64;
        let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        (lines.iter().skip(skip).cloned().collect(), count)
    }

    /// The last `n` lines, and the number to ask [`Self::since`] for the next.
    pub fn tail(&self, n: usize) -> (Vec<Arc<str>>, u64) {
        let count = *self.count.borrow();
        self.since(count.saturating_sub(n as u64))
    }

    /// Follows the number of lines.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_numbers_them() {
        let console = Console::default();
        for n in 0..LINES_MAX + 10 {
            console.push(&format!("line {n}"));
        }
        let (lines, next) = console.tail(2);
        assert_eq!(lines[0].as_ref(), format!("line {}", LINES_MAX + 8));
        assert_eq!(next, LINES_MAX as u64 + 10);
        assert_eq!(console.since(0).0.len(), LINES_MAX);
        console.push("new");
        assert_eq!(console.since(next).0.len(), 1);
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let console = Console::default();
        console.push(&"ä".repeat(LINE_BYTES_MAX));
        assert_eq!(console.tail(1).0[0].len(), LINE_BYTES_MAX);
    }
}
