//! Choice of the rows of a full table that go: those that were of use longest ago.

/// Bounds of the rows that go from a table with more rows than it may hold.
pub(super) struct Forget {
    /// Rows of an earlier moment go.
    oldest_kept: u64,
    /// Number of rows of this very moment that go as well.
    ties: usize,
}

impl Forget {
    /// Bounds by the moment of each row, and the number allowed. A tenth more goes than
    /// must, so that this is not done every time.
    pub(super) fn over(mut moments: Vec<u64>, kept_max: usize) -> Self {
        let spare = kept_max - kept_max / 10;
        moments.sort_unstable();
        let surplus = moments.len().saturating_sub(spare);
        let oldest_kept = moments.get(surplus).copied().unwrap_or(u64::MAX);
        let ties = surplus - moments.partition_point(|moment| *moment < oldest_kept);
        Self { oldest_kept, ties }
    }

    /// True if a row of this moment stays. To be asked once of each.
    pub(super) fn keeps(&mut self, moment: u64) -> bool {
        let is_tie = moment == self.oldest_kept && self.ties > 0;
        self.ties -= usize::from(is_tie);
        moment >= self.oldest_kept && !is_tie
    }
}
