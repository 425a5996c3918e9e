//! Memory of the files that were in effect, kept over a restart.
//!
//! Of two files that clash the one stays that was there first. A start would not know
//! which that was, and a restart could turn it round.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Catalog;
use crate::config::file;

/// Most bytes that are read.
const BYTES_MAX: u64 = 4 << 20;

/// The digest of each file that was in effect as it stood, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory(BTreeMap<String, String>);

impl Memory {
    /// Its file, below the state directory.
    pub const FILE: &'static str = "routes.json";

    /// Reads what a process before this one has written; nothing, where that can't be
    /// read. Blocks on the disk.
    pub fn read(path: &Path) -> Self {
        let content = file::read(path, BYTES_MAX).unwrap_or_default();
        serde_json::from_slice(&content).unwrap_or_default()
    }

    /// True if a file with this content was in effect.
    pub(super) fn has(&self, path: &Path, digest: Option<&[u8]>) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let known = name.and_then(|name| self.0.get(name));
        known.is_some_and(|known| digest.is_some_and(|digest| *known == hex(digest)))
    }

    /// Text to be written, and read at the next start.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Catalog {
    /// Memory of the files that are in effect as they stand.
    pub fn memory(&self) -> Memory {
        let in_effect = self.files.0.iter().filter_map(|(path, state)| {
            let (present, effect) = (state.present.as_ref().ok()?, state.effect.as_ref()?);
            let name = path.file_name()?.to_str()?.to_owned();
            let digest = hex(state.digest.as_ref()?);
            (present == effect).then_some((name, digest))
        });
        Memory(in_effect.collect())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string can't fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}
