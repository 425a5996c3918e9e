//! Warnings of the store, in sentences: for the log, `tidegate ps` and
//! the dashboard.

use super::{Store, StoreError};

/// Time for which a loss that makes tokens refused is told, in seconds: 30 days.
const LOSS_TOLD: u64 = 30 * 86_400;

impl Store {
    /// Everything that is not as it should be. `accepts_lost`: whether tokens are
    /// accepted whose revocations may be lost.
    pub fn warnings(&self, accepts_lost: bool) -> Vec<String> {
        let loss = self.loss_told(accepts_lost);
        let all = [self.fault(), loss, self.clock_told()];
        all.into_iter().flatten().collect()
    }

    /// Goes back to what the wall clock says, and keeps that. Returns by how many seconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it can't be kept; it holds until a restart then.
    pub fn set_back_clock(&self) -> Result<u64, StoreError> {
        let before = self.clock().now();
        self.clock().set_back();
        let by = before.saturating_sub(self.clock().now());
        self.write(|_| Ok(()))?;
        self.remark();
        Ok(by.as_secs())
    }

    fn loss_told(&self, accepts_lost: bool) -> Option<String> {
        // A store that can't be read says so itself.
        let lost = self.lost_at().unwrap_or_default();
        if lost == 0 {
            return None;
        }
        let at = moment(lost);
        if accepts_lost {
            return Some(format!(
                "The store was lost or put back from an older copy before {at}, and tokens.lost_store = \"accept\": tokens that were revoked before then may be valid again. Revoke them again, or set it to \"refuse\"."
            ));
        }
        (self.clock().seconds() < lost.saturating_add(LOSS_TOLD)).then(|| {
            format!(
                "The store was lost or put back from an older copy before {at}: every token issued before is refused. Give out new ones, restore the store with `tidegate state import`, or set tokens.lost_store = \"accept\" in tidegate.toml. What was revoked of other issuers' holders must be revoked again."
            )
        })
    }

    fn clock_told(&self) -> Option<String> {
        let behind = self.clock().behind()?.as_secs();
        let newest = moment(self.clock().seconds());
        Some(format!(
            "The clock of this machine is {behind} s behind the newest time that was known here ({newest}), and tokens are held against that: set the clock right. If the newest time was wrong, run `tidegate state set-back-clock`."
        ))
    }
}

/// Seconds since 1970 as a date and time.
fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |moment| moment.to_string())
}
