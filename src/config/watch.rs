//! (being built)
/// x
#[derive(Debug)]
pub struct Watcher;
