//! The file of what plots mark, so that it outlives a restart. Names stay apart from words:
//! who reads them then decides who may know them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{Happening, MARKED_MAX, MarkKind, Rings};
use crate::deployment::{Part, Telling};
use crate::names::DeploymentId;
use crate::store::whole::write_whole;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Since when all are known.
    since: u64,
    marks: Vec<KeptMark>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptMark {
    at: u64,
    kind: MarkKind,
    deployment: String,
    text: Vec<KeptPart>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptPart {
    Words(String),
    Deployment(String),
}

fn path(state: &Path) -> PathBuf {
    state.join("marks.json")
}

/// Reads the file; `None` where there is none, or a torn one.
pub(super) fn read(state: &Path) -> Option<Rings> {
    let kept: Kept = serde_json::from_slice(&fs::read(path(state)).ok()?).ok()?;
    let surplus = kept.marks.len().saturating_sub(MARKED_MAX);
    let newest = kept.marks.into_iter().skip(surplus);
    Some(Rings {
        marked: newest.filter_map(happening).collect(),
        marked_since: kept.since,
        ..Rings::default()
    })
}

/// Writes the file whole.
pub(super) fn write(state: &Path, marked: &VecDeque<Happening>, since: u64) -> io::Result<()> {
    let marks = marked.iter().filter_map(|happening| {
        Some(KeptMark {
            at: happening.at,
            kind: happening.mark?,
            deployment: happening.deployment.to_string(),
            text: happening.text.parts().map(kept_part).collect(),
        })
    });
    let marks = marks.collect();
    let bytes = serde_json::to_vec(&Kept { since, marks }).map_err(io::Error::other)?;
    write_whole(&path(state), &bytes)
}

fn happening(mark: KeptMark) -> Option<Happening> {
    let parts = mark.text.into_iter().map(|part| match part {
        KeptPart::Words(words) => Some(Part::from(words)),
        KeptPart::Deployment(id) => DeploymentId::parse(&id).ok().map(Part::Deployment),
    });
    Some(Happening {
        at: mark.at,
        deployment: DeploymentId::parse(&mark.deployment).ok()?,
        text: parts.collect::<Option<Telling>>()?,
        mark: Some(mark.kind),
    })
}

fn kept_part(part: &Part) -> KeptPart {
    match part {
        Part::Words(words) => KeptPart::Words(words.to_string()),
        Part::Deployment(id) => KeptPart::Deployment(id.to_string()),
    }
}
