//! Files that only this user may read: the state directory and the keys, whoever made them.
//!
//! A file that others can use is closed to them, and that is said; where it can't be,
//! as on a read-only mount, what to do is said instead. The certificate's key may belong
//! to a group, as some distributions have it. Deliberately leaves directories of workers
//! alone: they stand behind the state directory's own mode.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::auth::keeper::SecretSource;
use crate::config::Settings;
use crate::store::mark;

/// Bits of group and others.
const SHARED: u32 = 0o077;
/// Bits of others.
const WORLD: u32 = 0o007;

/// Closes state and keys to other users. Returns what was found, in sentences.
pub(super) fn mend(settings: &Settings) -> Vec<String> {
    let (state, key) = (&settings.gateway.state, &settings.tokens.signing_key);
    let mut notes = Vec::new();
    notes.extend(close(state, SHARED));
    // One that can't be read is told of where it is written to.
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            notes.extend(close(&entry.path(), SHARED));
        }
    }
    notes.extend(close(key, SHARED));
    notes.extend(close(&mark::beside(key), SHARED));
    if let Some(SecretSource::File(path)) = settings.tokens.hs256.as_ref().map(|h| &h.source) {
        notes.extend(close(path, SHARED));
    }
    notes.extend(close(&settings.tls.private_key, WORLD));
    notes
}

/// Takes bits from a mode, where any of them is set. What is not there is fine.
fn close(path: &Path, taken: u32) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    if mode & taken == 0 {
        return None;
    }
    let (closed, shown) = (mode & !taken, path.display());
    let mended = fs::set_permissions(path, Permissions::from_mode(closed));
    Some(match mended {
        Ok(()) => format!(
            "{shown} could be used by other users (mode {mode:04o}), and is closed to them now ({closed:04o})"
        ),
        Err(error) => format!(
            "{shown} can be used by other users (mode {mode:04o}), and that could not be changed ({error}): run `chmod {closed:o} {shown}`"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_use_is_closed_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.gateway.state = dir.path().join("state");
        settings.tokens.signing_key = dir.path().join("tokens.key");
        settings.tls.private_key = dir.path().join("server.key");
        let files = [
            (settings.gateway.state.join("store.redb"), 0o644, 0o600),
            (settings.gateway.state.join("secrets.json"), 0o666, 0o600),
            (settings.tokens.signing_key.clone(), 0o640, 0o600),
            (mark::beside(&settings.tokens.signing_key), 0o604, 0o600),
            (settings.tls.private_key.clone(), 0o644, 0o640),
        ];
        fs::create_dir(&settings.gateway.state).unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        set(&settings.gateway.state, 0o755);
        for (path, mode, _) in &files {
            fs::write(path, "x").unwrap();
            set(path, *mode);
        }
        let notes = mend(&settings);
        assert_eq!(notes.len(), files.len() + 1, "{notes:?}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&settings.gateway.state), 0o700);
        for (path, _, closed) in &files {
            assert_eq!(mode(path), *closed, "{}", path.display());
        }
        assert_eq!(mend(&settings), Vec::<String>::new());
    }
}
