//! Which rows of a full table go: those that were of use longest ago.

/// What a table keeps that holds more rows than it may.
pub(super) struct Forget {
    /// Rows of an earlier moment go.
    oldest_kept: u64,
    /// Of this very moment, so many go as well.
    ties: usize,
}

impl Forget {
    /// From the moment of each row, and how many are allowed. A tenth more goes than
    /// must, so that this is not done every time.
    pub(super) fn over(mut moments: Vec<u64>, kept_max: usize) -> Self {
        let spare = kept_max - kept_max / 10;
        moments.sort_unstable();
        let surplus = moments.len().saturating_sub(spare);
        let oldest_kept = moments.get(surplus).copied().unwrap_or(u64::MAX);
        let ties = surplus - moments.partition_point(|moment| *moment < oldest_kept);
        Self { oldest_kept, ties }
    }

    /// Whether a row of this moment stays. To be asked once of each.
    pub(super) fn keeps(&mut self, moment: u64) -> bool {
        let is_tie = moment == self.oldest_kept && self.ties > 0;
        self.ties -= usize::from(is_tie);
        moment >= self.oldest_kept && !is_tie
    }
}
