//! The files under `/proc` and of control groups, read into numbers.
//!
//! Pure: text in, numbers out. A line or field that is missing or no number makes
//! no more than its own value missing.

use std::collections::BTreeMap;

/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// Time of all processors since the start, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTimes {
    /// Time not idle, and not waiting for a disk.
    pub(super) busy: u64,
    pub(super) total: u64,
    pub(super) processors: u32,
}

/// Reads `/proc/stat`.
pub(super) fn cpu_times(text: &str) -> Option<CpuTimes> {
    let mut times = None;
    let mut processors = 0;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        match fields.next() {
            // user nice system idle iowait irq softirq steal; guest time is in user.
            Some("cpu") => {
                let ticks: Vec<u64> = fields.take(8).map_while(|f| f.parse().ok()).collect();
                let total = sum(ticks.iter().copied());
                let idle = sum(ticks.iter().copied().skip(3).take(2));
                times = (ticks.len() >= 4).then_some((total - idle, total));
            }
            Some(name) if name.starts_with("cpu") => processors += 1,
            _ => {}
        }
    }
    times.map(|(busy, total)| CpuTimes {
        busy,
        total,
        processors,
    })
}

/// Bytes of main memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MainMemory {
    pub(super) total: u64,
    /// Bytes that could be given to a process without swapping.
    pub(super) available: u64,
}

/// Reads `/proc/meminfo`.
pub(super) fn main_memory(text: &str) -> Option<MainMemory> {
    Some(MainMemory {
        total: kilobytes(text, "MemTotal:")?,
        available: kilobytes(text, "MemAvailable:")?,
    })
}

/// The value of a line as `Name:  123 kB`, in bytes.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number = value.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    number.checked_mul(1024)
}

/// Bytes in two directions since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Received, or read.
    pub(super) taken: u64,
    /// Sent, or written.
    pub(super) given: u64,
}

impl Transfer {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            taken: self.taken.saturating_add(other.taken),
            given: self.given.saturating_add(other.given),
        }
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            taken: self.taken.saturating_sub(before.taken),
            given: self.given.saturating_sub(before.given),
        }
    }
}

/// Reads `/proc/net/dev`: each interface but the loopback.
pub(super) fn interfaces(text: &str) -> BTreeMap<String, Transfer> {
    let line = |line: &str| {
        let (name, fields) = line.split_once(':')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let transfer = Transfer {
            taken: fields.first()?.parse().ok()?,
            given: fields.get(8)?.parse().ok()?,
        };
        let name = name.trim();
        (name != "lo").then(|| (name.to_owned(), transfer))
    };
    text.lines().filter_map(line).collect()
}

/// Reads `/proc/diskstats`: each whole disk, without partitions and without what
/// lies upon other disks or in memory.
pub(super) fn disks(text: &str) -> BTreeMap<String, Transfer> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let sectors = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let transfer = Transfer {
            taken: sectors(5)?.saturating_mul(SECTOR_BYTES),
            given: sectors(9)?.saturating_mul(SECTOR_BYTES),
        };
        Some(((*fields.get(2)?).to_owned(), transfer))
    };
    let all: BTreeMap<String, Transfer> = text.lines().filter_map(line).collect();
    let whole = |name: &String| {
        let is_layer = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"]
            .iter()
            .any(|layer| name.starts_with(layer));
        !is_layer && !all.keys().any(|disk| is_partition(name, disk))
    };
    all.iter()
        .filter(|(name, _)| whole(name))
        .map(|(name, transfer)| (name.clone(), *transfer))
        .collect()
}

/// True if `name` is a partition of `disk`: `sda1` of `sda`, `nvme0n1p1` of `nvme0n1`.
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk) else {
        return false;
    };
    let number = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        rest.strip_prefix('p').unwrap_or_default()
    } else {
        rest
    };
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// Reads `/proc/PID/io`: bytes that went to and came from disks.
pub(super) fn process_io(text: &str) -> Option<Transfer> {
    let value = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    Some(Transfer {
        taken: value("read_bytes:")?,
        given: value("write_bytes:")?,
    })
}

/// Reads the microseconds of processor time from a `cpu.stat`.
pub(super) fn group_cpu(text: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?;
    value.trim().parse().ok()
}

/// Reads an `io.stat`: all devices together.
pub(super) fn group_io(text: &str) -> Transfer {
    let field = |name: &str| {
        let values = text
            .split_ascii_whitespace()
            .filter_map(|field| field.strip_prefix(name)?.parse().ok());
        sum(values)
    };
    Transfer {
        taken: field("rbytes="),
        given: field("wbytes="),
    }
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn processor_time_is_busy_or_idle() {
        let text = "cpu  100 10 50 1000 40 5 5 0 0 0\ncpu0 50 5 25 500 20 2 2 0 0 0\n\
                    cpu1 50 5 25 500 20 3 3 0 0 0\nintr 12\nprocs_running 1\n";
        let expected = CpuTimes {
            busy: 170,
            total: 1_210,
            processors: 2,
        };
        assert_eq!(cpu_times(text), Some(expected));
        assert_eq!(cpu_times("cpu  1 2"), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let text = "MemTotal:       16000 kB\nMemFree:  100 kB\nMemAvailable:    4000 kB\n";
        let expected = MainMemory {
            total: 16_000 << 10,
            available: 4_000 << 10,
        };
        assert_eq!(main_memory(text), Some(expected));
        assert_eq!(main_memory("MemTotal: x kB"), None);
    }

    #[test]
    fn every_interface_counts_but_the_loopback() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs\n\
                    \x20   lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n\
                    \x20 eth0: 100 2 0 0 0 0 0 0 200 3 0 0 0 0 0 0\n\
                    wlan0:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        let found = interfaces(text);
        let expected = [("eth0", 100, 200), ("wlan0", 5, 7)]
            .map(|(name, taken, given)| (name.to_owned(), Transfer { taken, given }));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn only_whole_disks_count() {
        let names = [
            "sda",
            "sda1",
            "sda12",
            "sdaa",
            "nvme0n1",
            "nvme0n1p2",
            "nvme0n12",
            "loop0",
            "dm-0",
            "md127",
            "xvdf1",
            "mmcblk0",
            "mmcblk0p1",
        ];
        let text: String = names
            .map(|name| format!(" 8 0 {name} 1 0 10 0 1 0 20 0 0 0 0\n"))
            .concat();
        let found = disks(&text);
        let whole: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(
            whole,
            ["mmcblk0", "nvme0n1", "nvme0n12", "sda", "sdaa", "xvdf1"]
        );
        let expected = Transfer {
            taken: 5_120,
            given: 10_240,
        };
        assert_eq!(found["sda"], expected);
    }

    #[test]
    fn io_of_processes_and_groups() {
        let text = "rchar: 5\nwchar: 6\nread_bytes: 4096\nwrite_bytes: 8192\n";
        let expected = Transfer {
            taken: 4_096,
            given: 8_192,
        };
        assert_eq!(process_io(text), Some(expected));
        let text = "8:0 rbytes=4000 wbytes=8000 rios=1\n259:0 rbytes=96 wbytes=192\n";
        assert_eq!(group_io(text), expected);
        assert_eq!(group_cpu("usage_usec 77\nuser_usec 3\n"), Some(77));
    }

    proptest! {
        #[test]
        fn garbage_is_no_panic(
            words in prop::collection::vec(
                prop_oneof![
                    "[ -~\n]{0,12}",
                    any::<u64>().prop_map(|n| n.to_string()),
                    Just("cpu ".to_owned()), Just("\n".to_owned()), Just(")".to_owned()),
                    Just("MemTotal:".to_owned()), Just("read_bytes:".to_owned()),
                    Just("rbytes=".to_owned()), Just("eth0:".to_owned()), Just("sda".to_owned()),
                ],
                0..40,
            )
        ) {
            let text = words.join(" ");
            if let Some(times) = cpu_times(&text) {
                prop_assert!(times.busy <= times.total);
            }
            drop((main_memory(&text), interfaces(&text), disks(&text), group_io(&text)));
            prop_assert!(group_cpu(&text).is_none());
            prop_assert!(process_io(&text).is_none() || text.contains("_bytes:"));
        }
    }
}
