//! Room for a model on the disk: a budget for what we fetch, and a floor of
//! free space that is never gone below.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::record::Claimed;
use crate::units::{Bytes, share_of, share_or_size};

/// A share of a disk, or a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DiskShare {
    /// Part of the disk, 0 to 1.
    Part(f64),
    /// Bytes.
    Bytes(u64),
}

impl FromStr for DiskShare {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write a share of the disk or a size, as \"10%\" or \"50GiB\"";
        share_or_size(text, Self::Part, Self::Bytes).ok_or(wrong)
    }
}

impl DiskShare {
    /// Bytes, of a disk of this size.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Part(part) => share_of(total, part),
        }
    }
}

/// `[models]`: what models may take of a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskLimits {
    /// Most that the models that we fetched may take together; `None`: no limit.
    pub budget: Option<DiskShare>,
    /// Least that is to stay free.
    pub free_min: DiskShare,
}

/// There is no place for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The disk would be too full.
    #[error(
        "{missing} more are needed and {free} are free below {path}{}, so {left} would be left, and [models] disk_free_min keeps {floor}: remove models (`tidegate models prune --dry-run` tells which are not used), set HF_HOME to a larger disk, or lower it",
        beside(*coming)
    )]
    Free {
        /// Path that the model was to go to.
        path: PathBuf,
        /// Bytes that are missing.
        missing: Bytes,
        /// Bytes that are free.
        free: Bytes,
        /// Bytes that other fetches still bring.
        coming: Bytes,
        /// Bytes that would be left; none where the model does not even fit.
        left: Bytes,
        /// Bytes that are to stay free.
        floor: Bytes,
    },
    /// The budget is used up.
    #[error(
        "{missing} more are needed beside the {taken} of models that were fetched, together {together}, and [models] disk_budget is {budget}: remove models (`tidegate models prune --dry-run` tells which are not used), or raise it"
    )]
    Budget {
        /// Bytes that are missing.
        missing: Bytes,
        /// Bytes that were fetched.
        taken: Bytes,
        /// Sum of both.
        together: Bytes,
        /// The limit.
        budget: Bytes,
    },
    /// Others filled the disk meanwhile.
    #[error(
        "the fetch was stopped, as only {free} are free below {path} and [models] disk_free_min keeps {floor}: make room; what has come is kept, and the next fetch goes on from there"
    )]
    Filling {
        /// Path that the model goes to.
        path: PathBuf,
        /// Bytes that are free.
        free: Bytes,
        /// Bytes that are to stay free.
        floor: Bytes,
    },
}

fn beside(coming: Bytes) -> String {
    match coming.0 {
        0 => String::new(),
        _ => format!(", of which other fetches still take {coming}"),
    }
}

/// A disk at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub total: u64,
    /// Bytes that this user may still write.
    pub free: u64,
}

impl Disk {
    /// Disk of a path which may not be there yet; `None` where it can't be asked.
    pub fn of(path: &Path) -> Option<Self> {
        let there = path.ancestors().find(|path| path.exists())?;
        let facts = rustix::fs::statvfs(there).ok()?;
        Some(Self {
            total: facts.f_blocks.saturating_mul(facts.f_frsize),
            free: facts.f_bavail.saturating_mul(facts.f_frsize),
        })
    }
}

impl DiskLimits {
    /// Checks that so many bytes more may be fetched to `path`, beside what is claimed.
    ///
    /// # Errors
    ///
    /// [`NoRoom`], with the sum.
    pub fn check(
        &self,
        path: &Path,
        disk: Disk,
        missing: u64,
        claimed: Claimed,
    ) -> Result<(), NoRoom> {
        if missing == 0 {
            return Ok(());
        }
        let together = claimed.together.saturating_add(missing);
        let budget = self.budget.map(|budget| budget.of(disk.total));
        if let Some(budget) = budget.filter(|budget| together > *budget) {
            return Err(NoRoom::Budget {
                missing: Bytes(missing),
                taken: Bytes(claimed.together),
                together: Bytes(together),
                budget: Bytes(budget),
            });
        }
        let floor = self.free_min.of(disk.total);
        let needed = missing.saturating_add(claimed.coming);
        if disk.free < needed.saturating_add(floor) {
            return Err(NoRoom::Free {
                path: path.to_owned(),
                missing: Bytes(missing),
                free: Bytes(disk.free),
                coming: Bytes(claimed.coming),
                left: Bytes(disk.free.saturating_sub(needed)),
                floor: Bytes(floor),
            });
        }
        Ok(())
    }

    /// Checks that a fetch may go on.
    ///
    /// # Errors
    ///
    /// [`NoRoom::Filling`] where others have filled the disk.
    pub fn check_on(&self, path: &Path, disk: Disk) -> Result<(), NoRoom> {
        let floor = self.free_min.of(disk.total);
        if disk.free >= floor {
            return Ok(());
        }
        Err(NoRoom::Filling {
            path: path.to_owned(),
            free: Bytes(disk.free),
            floor: Bytes(floor),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_model_that_would_fill_the_disk_is_refused_with_the_sum() {
        let disk = Disk {
            total: 100 * GIB,
            free: 20 * GIB,
        };
        let check = |budget: Option<&str>, free_min: &str, missing, claimed: (u64, u64)| {
            let limits = DiskLimits {
                budget: budget.map(|text| text.parse().unwrap()),
                free_min: free_min.parse().unwrap(),
            };
            let claimed = Claimed {
                together: claimed.0 * GIB,
                coming: claimed.1 * GIB,
            };
            let checked = limits.check(Path::new("/hf"), disk, missing * GIB, claimed);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(None, "5%", 15, (900, 0)), Ok(()));
        let error = check(None, "5%", 16, (0, 0)).unwrap_err();
        let sum = "16GiB more are needed and 20GiB are free below /hf, so 4GiB would be left, and [models] disk_free_min keeps 5GiB";
        assert!(error.starts_with(sum), "{error}");
        let error = check(None, "5%", 8, (40, 9)).unwrap_err();
        let sum = "8GiB more are needed and 20GiB are free below /hf, of which other fetches still take 9GiB, so 3GiB would be left";
        assert!(error.starts_with(sum), "{error}");
        let error = check(Some("50GiB"), "0B", 8, (45, 0)).unwrap_err();
        let sum = "8GiB more are needed beside the 45GiB of models that were fetched, together 53GiB, and [models] disk_budget is 50GiB";
        assert!(error.starts_with(sum), "{error}");
        assert_eq!(check(Some("53%"), "0B", 8, (45, 0)), Ok(()));
        // A whole model needs no room.
        assert_eq!(check(Some("0B"), "100%", 0, (45, 9)), Ok(()));
        for bad in ["101%", "-1%", "x", "5"] {
            assert!(bad.parse::<DiskShare>().is_err(), "{bad:?}");
        }
    }
}
