//! Facts that the kernel tells of a process in `/proc/PID/stat`.

use std::fs;
use std::path::Path;

/// The part of `/proc/PID/stat` that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `Z` for one that has ended and was not reaped.
    pub state: char,
    /// The process that started it, or that took it over.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// Processor time of its own, in ticks.
    pub ticks: u64,
    /// Start, in ticks since boot: a process id that is used again has another.
    pub start_time: u64,
}

impl Stat {
    /// Facts of a process; `None` when there is none.
    pub fn of(pid: u32) -> Option<Self> {
        Self::below(Path::new("/proc"), pid)
    }

    /// The same where `/proc` stands elsewhere.
    pub fn below(proc: &Path, pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may hold anything, also parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            ticks: number(11)?.saturating_add(number(12)?),
            start_time: number(19)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_fields() {
        let text =
            "26535 (VLLM) S 1 (x)) S 26248 26200 26201 0 -1 0 1 2 3 4 5 6 7 8 20 0 9 0 777 1 2";
        let expected = Stat {
            state: 'S',
            parent: 26_248,
            session: 26_201,
            ticks: 11,
            start_time: 777,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("1 (x) S 1"), None);
    }
}
