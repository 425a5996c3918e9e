//! Limits of a token, a workspace or a deployment: at once, or in a time.

pub mod budget;
pub mod estimate;
pub mod quota;
pub mod rate;
pub mod slots;
