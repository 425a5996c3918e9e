//! `routes.d` into a [`Catalog`], and from one good state to the next.
//!
//! Each file takes effect whole or not at all. A file that can't be read, is
//! wrong in itself, or clashes with others keeps the state that it had in the
//! catalog before. The file that was there first stays: a clash is charged to the files that
//! changed, and among those to the ones that did not have what they claim. Where
//! that tells none from another, none of them takes effect: which file sorts first
//! never matters. What was in effect is remembered over a restart ([`Memory`]).

mod kept;
mod listing;
mod memory;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::Catalog;
use super::error::FileError;
use super::file::{self, Parts, Unread};
use super::link::{self, Claim, Clash, Links, Party};
use super::tree::FILE_BYTES_MAX;
use crate::names::QueueName;
pub(super) use listing::is_route_file;
use listing::list;
pub use listing::unread;
pub use memory::Memory;

/// Content of each file and the part of it in effect, kept for the next load.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<PathBuf, Arc<FileState>>);

#[derive(Debug)]
struct FileState {
    /// Of the present content; `None` when it could not be read.
    digest: Option<Vec<u8>>,
    /// Parts that the present content describes, by itself.
    present: Result<Arc<Parts>, Vec<FileError>>,
    /// Parts of it that are in effect.
    effect: Option<Arc<Parts>>,
}

/// Loads every route file that stands directly in `dir`.
///
/// `previous` is the catalog that is in effect now; `None` at the first start.
/// `queues` are those of the settings. What is wrong stands in
/// [`Catalog::errors`], and never takes away what was in effect before.
pub fn load_catalog(dir: &Path, queues: &[QueueName], previous: Option<&Catalog>) -> Catalog {
    load(dir, queues, previous, &Memory::default())
}

/// The same at a start: files that were in effect before it hold what they claim.
pub fn load_first(dir: &Path, queues: &[QueueName], memory: &Memory) -> Catalog {
    load(dir, queues, None, memory)
}

fn load(dir: &Path, queues: &[QueueName], previous: Option<&Catalog>, memory: &Memory) -> Catalog {
    let old = previous.map(|catalog| &catalog.files.0);
    let (files, mut errors) = match list(dir) {
        Ok(found) => found,
        Err(error) => {
            let mut catalog = previous.cloned().unwrap_or_default();
            catalog.errors = vec![error];
            return catalog;
        }
    };
    let mut work = Work::default();
    for path in files {
        let before = old.and_then(|files| files.get(&path));
        let Some((digest, present)) = read(&path, queues, before) else {
            continue;
        };
        let is_known = memory.has(&path, digest.as_deref());
        work.add(path, digest, present, before);
        work.known.push(is_known);
    }
    work.settle();
    errors.append(&mut work.errors);
    work.finish(previous, errors)
}

/// Catalog that would be served if a file had this content, or the errors in it:
/// for people who are about to write one. Nothing is read or written.
///
/// # Errors
///
/// Everything for which the file would be refused, at once.
pub fn with_file(
    previous: &Catalog,
    queues: &[QueueName],
    path: &Path,
    content: &[u8],
) -> Result<Catalog, Vec<FileError>> {
    let parts = file::parse(path, content, queues)?;
    let (catalog, errors) = with_parts(previous, path, Some(parts));
    let (own, others): (Vec<_>, Vec<_>) = errors.into_iter().partition(|e| e.file == path);
    if own.is_empty() {
        Ok(Catalog {
            errors: others,
            ..catalog
        })
    } else {
        Err(own)
    }
}

/// Catalog that would be in effect if a route file were not there. Errors of others that
/// follow stand in [`Catalog::errors`].
pub fn without_file(previous: &Catalog, path: &Path) -> Catalog {
    let (catalog, errors) = with_parts(previous, path, None);
    Catalog { errors, ..catalog }
}

/// Catalog that would be in effect with these parts of a file, or without it.
fn with_parts(previous: &Catalog, path: &Path, parts: Option<Parts>) -> (Catalog, Vec<FileError>) {
    let mut files: BTreeMap<&Path, Option<&Arc<FileState>>> = BTreeMap::from([(path, None)]);
    let known = previous.files.0.iter();
    files.extend(known.map(|(path, state)| (path.as_path(), Some(state))));
    let mut parts = parts.map(Arc::new);
    let mut work = Work::default();
    for (file, before) in files {
        let (digest, present) = match (before, parts.take_if(|_| file == path)) {
            (_, Some(parts)) => (None, Ok(parts)),
            (_, None) if file == path => continue,
            (Some(state), None) => (state.digest.clone(), state.present.clone()),
            (None, None) => continue,
        };
        work.add(file.to_owned(), digest, present, before);
    }
    work.settle();
    let errors = std::mem::take(&mut work.errors);
    (work.finish(Some(previous), Vec::new()), errors)
}

impl Catalog {
    /// True if this text of a file was read, and is in effect.
    pub fn serves(&self, path: &Path, content: &[u8]) -> bool {
        let state = self.files.0.get(path);
        let hash = digest(&SHA256, content);
        state.is_some_and(|state| {
            state.digest.as_deref() == Some(hash.as_ref())
                && state.present.is_ok()
                && !self.errors.iter().any(|error| error.file == path)
        })
    }

    /// True if a file is gone that was there at the last look. Blocks on the disk.
    pub fn misses_a_file(&self) -> bool {
        let mut known = self.files.0.keys();
        known.any(|path| fs::symlink_metadata(path).is_err())
    }

    /// True if a file is among those that were read.
    pub fn has_file(&self, path: &Path) -> bool {
        self.files.0.contains_key(path)
    }
}

fn whole_file(path: &Path, message: String) -> FileError {
    FileError {
        file: path.to_owned(),
        line: None,
        key: String::new(),
        message,
    }
}

type Present = (Option<Vec<u8>>, Result<Arc<Parts>, Vec<FileError>>);

/// Reads what a file says now; `None` when it is gone.
fn read(path: &Path, queues: &[QueueName], before: Option<&Arc<FileState>>) -> Option<Present> {
    let content = match file::read(path, FILE_BYTES_MAX) {
        Ok(content) => content,
        Err(Unread::Missing) if fs::symlink_metadata(path).is_err() => return None,
        Err(unread) => return Some((None, Err(vec![whole_file(path, unread.to_string())]))),
    };
    let digest = digest(&SHA256, &content).as_ref().to_vec();
    let present = match before {
        Some(state) if state.digest.as_ref() == Some(&digest) => state.present.clone(),
        _ => file::parse(path, &content, queues).map(Arc::new),
    };
    Some((Some(digest), present))
}

/// A load on its way: the files side by side, by index.
#[derive(Default)]
struct Work {
    paths: Vec<PathBuf>,
    digests: Vec<Option<Vec<u8>>>,
    present: Vec<Result<Arc<Parts>, Vec<FileError>>>,
    /// In effect before.
    old: Vec<Option<Arc<Parts>>>,
    /// To be in effect.
    now: Vec<Option<Arc<Parts>>>,
    /// True for each file whose present content was in effect before a restart.
    known: Vec<bool>,
    errors: Vec<FileError>,
}

impl Work {
    fn add(
        &mut self,
        path: PathBuf,
        digest: Option<Vec<u8>>,
        present: Result<Arc<Parts>, Vec<FileError>>,
        before: Option<&Arc<FileState>>,
    ) {
        let old = before.and_then(|state| state.effect.clone());
        let now = match &present {
            // The same as before stays the same, so that nothing seems changed.
            Ok(parts) if old.as_ref() == Some(parts) => old.clone(),
            Ok(parts) => Some(Arc::clone(parts)),
            Err(errors) => {
                self.errors.extend(errors.iter().cloned());
                old.clone()
            }
        };
        self.paths.push(path);
        self.digests.push(digest);
        self.present.push(present);
        self.old.push(old);
        self.now.push(now);
    }

    fn links(&self) -> Links<'_> {
        let parts: Vec<Option<&Parts>> = self.now.iter().map(Option::as_deref).collect();
        link::link(&parts)
    }

    /// Claims that each file had in effect.
    fn held(&self) -> Vec<BTreeSet<Claim>> {
        let files = self.old.iter().zip(&self.now).enumerate();
        let held = files.map(|(file, (old, now))| {
            let is_known = self.known.get(file).is_some_and(|is_known| *is_known);
            let before = old.as_deref().or(now.as_deref().filter(|_| is_known));
            before.map(link::claims).unwrap_or_default()
        });
        held.collect()
    }

    /// Takes files back until the rest goes together.
    fn settle(&mut self) {
        let held: Vec<BTreeSet<Claim>> = self.held();
        // Each round takes at least one file one step back, from its new state
        // to its old one or from that to none.
        for _ in 0..=2 * self.paths.len() {
            let clashes = together(self.links().clashes);
            let mut back = BTreeMap::new();
            let mut dangling = Vec::new();
            for clash in clashes {
                // What a file that goes back clashed with is looked at again.
                if clash
                    .parties
                    .iter()
                    .any(|party| back.contains_key(&party.file))
                {
                    continue;
                }
                let losers = self.judge(&clash, &held);
                if losers.is_empty() {
                    dangling.push(clash);
                }
                back.extend(losers);
            }
            if back.is_empty() {
                let told: Vec<FileError> = dangling
                    .iter()
                    .flat_map(|clash| clash.parties.iter().map(|party| self.error(clash, party)))
                    .collect();
                self.errors.extend(told);
                return;
            }
            for (file, error) in back {
                self.errors.push(error);
                self.step_back(file);
            }
        }
    }

    fn is_fresh(&self, file: usize) -> bool {
        match (self.now.get(file), self.old.get(file)) {
            (Some(Some(now)), Some(Some(old))) => !Arc::ptr_eq(now, old),
            (Some(now), _) => now.is_some(),
            (None, _) => false,
        }
    }

    fn step_back(&mut self, file: usize) {
        let fresh = self.is_fresh(file);
        let old = self.old.get(file).cloned().flatten();
        if let Some(now) = self.now.get_mut(file) {
            *now = old.filter(|_| fresh);
        }
    }

    /// The files that give way, each with what it is told. Empty when none does: an
    /// instance whose route was deleted stays, without an entrance.
    fn judge(&self, clash: &Clash, held: &[BTreeSet<Claim>]) -> Vec<(usize, FileError)> {
        let holds = |file: usize| {
            held.get(file)
                .is_some_and(|held| held.contains(&clash.claim))
        };
        if let (Claim::Leads(route), [party]) = (&clash.claim, clash.parties.as_slice()) {
            if !holds(party.file) {
                return vec![(party.file, self.error(clash, party))];
            }
            return self.taken_away(route, party, held).into_iter().collect();
        }
        let fresh = || {
            clash
                .parties
                .iter()
                .filter(|party| self.is_fresh(party.file))
        };
        let mut losers: Vec<&Party> = fresh().filter(|party| !holds(party.file)).collect();
        if losers.is_empty() {
            losers = fresh().collect();
        }
        // An instance depends on a route, and not the other way round.
        let is_route = |party: &&Party| party.key.starts_with("route.");
        if !losers.iter().all(is_route) {
            losers.retain(|party| !is_route(party));
        }
        if losers.is_empty() {
            losers.extend(clash.parties.last());
        }
        let told = losers.into_iter();
        told.map(|party| (party.file, self.error(clash, party)))
            .collect()
    }

    /// The file whose change took a route away that was there, and to which a party
    /// leads.
    fn taken_away(
        &self,
        route: &str,
        party: &Party,
        held: &[BTreeSet<Claim>],
    ) -> Option<(usize, FileError)> {
        let claim = Claim::Route(route.to_owned());
        let mut files = held.iter().enumerate();
        let (file, _) = files.find(|(file, held)| held.contains(&claim) && self.is_fresh(*file))?;
        let place = link::place(party, &self.paths);
        let message = format!(
            "this change takes away the route {route:?}, to which {place} leads: change that first"
        );
        let path = self.paths.get(file)?;
        Some((file, whole_file(path, message)))
    }

    fn error(&self, clash: &Clash, party: &Party) -> FileError {
        let other = clash.parties.iter().find(|other| *other != party);
        let other = other
            .map(|other| link::place(other, &self.paths))
            .unwrap_or_default();
        FileError {
            file: self.paths.get(party.file).cloned().unwrap_or_default(),
            line: Some(party.line),
            key: party.key.to_owned(),
            message: clash.message.replace("{other}", &other),
        }
    }
}

/// One clash for each claim, with all that make it, so that the order of looks does
/// not matter. In the order of the claims.
fn together(clashes: Vec<Clash>) -> Vec<Clash> {
    let mut all: BTreeMap<Claim, Clash> = BTreeMap::new();
    let mut alone = Vec::new();
    for clash in clashes {
        if let Claim::Leads(_) = clash.claim {
            alone.push(clash);
        } else if let Some(known) = all.get_mut(&clash.claim) {
            let further = clash.parties.into_iter();
            let new = further.filter(|party| !known.parties.contains(party));
            let new: Vec<Party> = new.collect();
            known.parties.extend(new);
        } else {
            all.insert(clash.claim.clone(), clash);
        }
    }
    all.into_values().chain(alone).collect()
}

#[cfg(test)]
mod tests;
