//! Gives memory back that was freed.
//!
//! The allocator of glibc keeps what was freed below whatever is still in use, so that a
//! process stays as large as its greatest storm was, and threads that free and allocate in
//! turns make it larger than that. Here it is asked for it: soon where the process has
//! grown by much more than what is held for clients; and once that has fallen, or the
//! process has grown, well beyond what it was when it was asked last. In a thread of its
//! own, as that walks the heap.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::time::sleep;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks between two at the little that there may be to give back.
const LOOKS: u32 = 20;
/// Bytes by which the held ones have to have fallen, or the process grown.
const BYTES: u64 = 8 << 20;
/// The same at every look.
const MUCH: u64 = 32 << 20;
/// Bytes of a connection beside those that are held for its requests, about.
const CONNECTION_BYTES: u64 = 32 << 10;

/// Figures of the last time that the allocator was asked.
#[derive(Debug, Default)]
struct Seen {
    resident: u64,
    /// Bytes that were held then.
    began: u64,
    /// The most that was held since.
    held: u64,
}

impl Seen {
    /// True if there may be much to give back.
    fn is_worth_it(&mut self, resident: u64, held: u64) -> bool {
        self.held = self.held.max(held);
        resident > self.resident + BYTES || self.held - held > BYTES
    }

    /// True if there must be much to give back: the process grew by that much more than
    /// the bytes that are held.
    fn is_overdue(&self, resident: u64, held: u64) -> bool {
        resident + self.began > held + self.resident + MUCH
    }
}

/// Looks now and then until `ending`.
pub(super) async fn keep(gateway: Arc<Gateway>, ending: CancellationToken) {
    let mut seen = Seen::default();
    for number in 1_u32.. {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = ending.cancelled() => return,
        }
        let connections = gateway.connections() as u64;
        let held = gateway.memory().used() + connections * CONNECTION_BYTES;
        let look = tokio::task::spawn_blocking(move || {
            let size = resident();
            let is_worth_it = seen.is_worth_it(size, held) && number.is_multiple_of(LOOKS);
            if is_worth_it || seen.is_overdue(size, held) {
                give_back();
                seen = Seen {
                    resident: resident(),
                    began: held,
                    held,
                };
            }
            seen
        });
        seen = match look.await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(error = %error, "freed memory is no longer given back");
                return;
            }
        };
    }
}

/// Bytes of this process in main memory; none where the system does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    let kilobytes: u64 = number.and_then(|n| n.parse().ok()).unwrap_or_default();
    kilobytes * 1024
}

/// Asks the allocator for what it does not need.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc's call has no safe form")]
fn give_back() {
    // SAFETY: it takes a number, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give it back by themselves, or can't.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_walked_after_a_storm_and_not_in_quiet() {
        let mut seen = Seen {
            resident: 20 << 20,
            began: 0,
            held: 0,
        };
        assert!(!seen.is_worth_it(25 << 20, 4 << 20));
        assert!(seen.is_worth_it(29 << 20, 4 << 20), "it has grown");
        // As large as in the storm, in which it was asked last.
        let mut seen = Seen {
            resident: 900 << 20,
            began: 800 << 20,
            held: 800 << 20,
        };
        assert!(!seen.is_worth_it(900 << 20, 800 << 20));
        assert!(seen.is_worth_it(900 << 20, 0), "the storm is over");
    }

    #[test]
    fn it_is_walked_soon_where_much_is_freed_and_not_where_much_is_held() {
        let seen = Seen {
            resident: 100 << 20,
            began: 50 << 20,
            held: 50 << 20,
        };
        for (resident, held, is_overdue) in [
            (100, 50, false),
            (130, 50, false),
            (133, 50, true),
            // It grows with what is held.
            (300, 250, false),
            (300, 217, true),
            // Fewer bytes are held, and the process is as large as it was.
            (100, 20, false),
            (100, 17, true),
            (60, 10, false),
        ] {
            let found = seen.is_overdue(resident << 20, held << 20);
            assert_eq!(found, is_overdue, "{resident} {held}");
        }
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_lies_below_something_in_use_is_given_back() {
        // Each below the size from which on the system is asked for each.
        let mut pieces: Vec<Option<Vec<u8>>> =
            (0..2_000).map(|_| Some(vec![7; 64 << 10])).collect();
        let most = resident();
        pieces.iter_mut().step_by(2).for_each(|piece| *piece = None);
        pieces
            .iter_mut()
            .skip(1)
            .step_by(2)
            .take(999)
            .for_each(|piece| *piece = None);
        give_back();
        let fell = most.saturating_sub(resident());
        assert!(fell > 64 << 20, "{fell} of {most}");
        assert!(pieces.iter().flatten().count() == 1);
    }
}
