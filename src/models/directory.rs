//! Models in a directory of this machine: looked at, and left as they are.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::fetch::{Fetching, Provider, Unfetched, Watch};
use super::hub::is_below;
use super::source::Fetched;
use crate::units::Bytes;

/// Most entries of a model that are looked at.
const ENTRIES_MAX: usize = 20_000;
/// Most levels of its directories that are looked into.
const DEPTH_MAX: usize = 8;
/// Longest head of a file of weights, in bytes: that of safetensors itself.
const HEAD_BYTES_MAX: u64 = 100_000_000;
/// Largest list of files that is read, in bytes.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Ends of the names of weights.
const WEIGHTS: [&str; 5] = [".safetensors", ".bin", ".pt", ".pth", ".gguf"];
/// The file that tells what a model is, in the forms that engines know.
const CONFIGS: [&str; 3] = ["config.json", "params.json", "adapter_config.json"];

/// A directory with a model in it.
#[derive(Clone, Debug)]
pub struct DirectoryModel(pub PathBuf);

impl Provider for DirectoryModel {
    fn fetch<'a>(&'a self, watch: &'a dyn Watch) -> Fetching<'a> {
        let path = self.0.clone();
        Box::pin(async move {
            watch.says("a directory is looked at and left as it is");
            let looked = tokio::task::spawn_blocking(move || (look(&path), path)).await;
            let (looked, path) = looked.map_err(|_| Unfetched::Directory {
                path: self.0.clone(),
                why: "it could not be looked at".to_owned(),
            })?;
            match looked {
                Ok(bytes) => Ok(Fetched {
                    path,
                    commit: None,
                    bytes,
                }),
                Err(why) => Err(Unfetched::Directory { path, why }),
            }
        })
    }
}

/// The bytes of a whole model in a directory. Blocking.
///
/// # Errors
///
/// A sentence that says what is missing or broken, and what to do.
pub fn look(directory: &Path) -> Result<u64, String> {
    let mut files = Vec::new();
    gather(directory, "", 0, &mut files)?;
    let has = |name: &str| files.iter().any(|(known, _)| known == name);
    if !CONFIGS.iter().any(|config| has(config)) {
        return Err("there is no config.json: name the directory that has it".to_owned());
    }
    // Of several forms of the same weights an engine takes the first.
    let form = WEIGHTS
        .iter()
        .find(|end| files.iter().any(|(name, _)| name.ends_with(**end)));
    let of_form = form.map_or_else(
        || ".index.json".to_owned(),
        |end| format!("{end}.index.json"),
    );
    for (name, _) in files.iter().filter(|(name, _)| name.ends_with(&of_form)) {
        for listed in index(&directory.join(name)).map_err(|why| format!("{name}: {why}"))? {
            let below = match name.rsplit_once('/') {
                Some((above, _)) => format!("{above}/{listed}"),
                None => listed.clone(),
            };
            if !is_below(&listed) || !has(&below) {
                return Err(format!(
                    "{name} lists {below}, which is not there: fetch it again"
                ));
            }
        }
    }
    let weights = |name: &str| WEIGHTS.iter().any(|end| name.ends_with(end));
    if !files.iter().any(|(name, _)| weights(name)) {
        return Err("there are no weights: fetch it again".to_owned());
    }
    for (name, size) in &files {
        if name.ends_with(".safetensors") {
            let stated =
                stated_size(&directory.join(name)).map_err(|why| format!("{name}: {why}"))?;
            if stated != *size {
                let (has, stated) = (Bytes(*size), Bytes(stated));
                return Err(format!(
                    "{name} has {size} bytes ({has}) and by its head should have {stated}: fetch it again"
                ));
            }
        }
    }
    Ok(files.iter().map(|(_, size)| size).sum())
}

/// Every file below a directory, by its path from there.
fn gather(
    directory: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<(String, u64)>,
) -> Result<(), String> {
    let unread = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "it is not there: look at its path".to_owned(),
        io::ErrorKind::NotADirectory => "it is no directory: name the one that it is in".to_owned(),
        _ => format!("it can't be read ({error}): look at its owner and mode"),
    };
    for entry in fs::read_dir(directory).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err("a name in it is no text: rename it".to_owned());
        };
        if files.len() >= ENTRIES_MAX {
            return Err(
                "it has too many files for one model: name a directory with one".to_owned(),
            );
        }
        // Follows links, as engines do.
        let facts = fs::metadata(entry.path()).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "{prefix}{name} is a link to what is not there: remove it, and fetch the model again"
            ),
            _ => format!("{prefix}{name} can't be read ({error})"),
        })?;
        if facts.is_file() {
            files.push((format!("{prefix}{name}"), facts.len()));
        } else if facts.is_dir() && depth < DEPTH_MAX && !name.starts_with('.') {
            gather(&entry.path(), &format!("{prefix}{name}/"), depth + 1, files)?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::HashMap<String, String>,
}

/// The files that an index of weights names.
fn index(path: &Path) -> Result<BTreeSet<String>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("it is no index of weights ({error})");
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| wrong(&error))?;
    file.take(INDEX_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| wrong(&error))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    Ok(index.weight_map.into_values().collect())
}

/// The bytes that a file of safetensors has by its own head.
fn stated_size(path: &Path) -> Result<u64, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("it is not in the form of safetensors ({error}): fetch it again")
    };
    let mut file = File::open(path).map_err(|error| wrong(&error))?;
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|error| wrong(&error))?;
    let length = u64::from_le_bytes(length);
    if length > HEAD_BYTES_MAX {
        return Err(wrong(&"its head is too long"));
    }
    let mut head = Vec::new();
    file.take(length)
        .read_to_end(&mut head)
        .map_err(|error| wrong(&error))?;
    let head: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&head).map_err(|error| wrong(&error))?;
    let ends = head
        .values()
        .filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    let end = ends.max().unwrap_or(0);
    Ok(end.saturating_add(length).saturating_add(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safetensors(bytes: usize) -> Vec<u8> {
        let head =
            format!(r#"{{"w":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
        let mut file = u64::try_from(head.len()).unwrap().to_le_bytes().to_vec();
        file.extend_from_slice(head.as_bytes());
        file.resize(file.len() + bytes, 0);
        file
    }

    #[test]
    fn a_directory_is_whole_or_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
        let wrong = || look(dir.path()).unwrap_err();
        let missing = look(&dir.path().join("none")).unwrap_err();
        assert!(missing.contains("not there"), "{missing}");
        assert!(wrong().contains("no config.json"), "{}", wrong());
        write("config.json", b"{}");
        assert!(wrong().contains("no weights"), "{}", wrong());
        let index = r#"{"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}"#;
        write("model.safetensors.index.json", index.as_bytes());
        let weights = safetensors(1000);
        write("a.safetensors", &weights);
        assert!(wrong().contains("lists b.safetensors"), "{}", wrong());
        write("b.safetensors", &weights[..weights.len() - 10]);
        assert!(wrong().contains("by its head"), "{}", wrong());
        write("b.safetensors", b"<html>");
        assert!(wrong().contains("not in the form"), "{}", wrong());
        write("b.safetensors", &weights);
        let bytes = u64::try_from(2 * weights.len() + index.len() + 2).unwrap();
        assert_eq!(look(dir.path()), Ok(bytes));
        std::os::unix::fs::symlink("gone", dir.path().join("c.safetensors")).unwrap();
        assert!(
            wrong().contains("a link to what is not there"),
            "{}",
            wrong()
        );
    }

    #[test]
    fn an_index_that_leads_out_of_its_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), b"{}").unwrap();
        for name in ["../x", "/etc/passwd", "a/../../x"] {
            let index = serde_json::json!({"weight_map": {"a": name}}).to_string();
            fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
            let wrong = look(dir.path()).unwrap_err();
            assert!(wrong.contains("not there"), "{name}: {wrong}");
        }
    }
}
