//! Versions between which options came and went.

use crate::vllm::versions::Version;

pub(super) const V0_7_2: Version = Version::new(0, 7, 2);
pub(super) const V0_9_2: Version = Version::new(0, 9, 2);
pub(super) const V0_11: Version = Version::new(0, 11, 0);
pub(super) const V0_15: Version = Version::new(0, 15, 0);
/// vLLM 0.18.0 removed `--swap-space` (its pull request 36216).
pub(super) const V0_18: Version = Version::new(0, 18, 0);
pub(super) const V0_32: Version = Version::new(0, 32, 0);
