//! The form of a model by its config and the heads of its weights: read in moments,
//! without the weights themselves.
//!
//! A head says of each tensor its name, type, sizes and place. It comes from whoever made
//! the model, so each figure is held against the others; a sentence says what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::hub::is_below;
use crate::units::Bytes;

/// Longest head that is read, in bytes: safetensors allows 100 MB, and models have less
/// than one.
const HEAD_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of all heads of a model.
pub(super) const HEADS_BYTES_MAX: u64 = 128 << 20;
/// Largest config that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Largest index that is read, in bytes.
const INDEX_BYTES_MAX: u64 = 32 << 20;
/// Most files of weights.
const FILES_MAX: usize = 2_000;
/// Distance of an index from the heads that is told: one in so many.
const SLACK: u64 = 100;

/// File that each model of this form has.
const CONFIG: &str = "config.json";
/// File that lists the files of weights, where there are several.
const INDEX: &str = "model.safetensors.index.json";
/// Ending of the names of weights whose heads can be read.
const ENDING: &str = ".safetensors";
/// Beginning of the weights that some models have a second time, in their maker's own form.
const AGAIN: &str = "consolidated";

/// A tensor, as the head of its file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its type, as `BF16`.
    pub dtype: String,
    /// Its sizes.
    pub sizes: Vec<u64>,
    /// Its bytes.
    pub bytes: u64,
}

/// A model by its config and its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Content of its `config.json`.
    pub config: Value,
    /// Its tensors.
    pub tensors: Vec<Tensor>,
    /// Parts that do not agree and could be done without, in sentences.
    pub doubts: Vec<String>,
}

impl Checkpoint {
    /// Reads a model of a directory. Blocks.
    ///
    /// # Errors
    ///
    /// Fails with what is missing or makes no sense, in a sentence.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let config = json(&directory.join(CONFIG), CONFIG_BYTES_MAX)
            .map_err(|why| format!("{CONFIG}: {why}"))?;
        let index = directory.join(INDEX);
        let index = if index.exists() {
            let index: Result<Index, String> = json(&index, INDEX_BYTES_MAX);
            Some(index.map_err(|why| format!("{INDEX}: {why}: fetch it again"))?)
        } else {
            None
        };
        let files = match &index {
            Some(index) => index.files()?,
            None => files_in(directory)?,
        };
        let (mut tensors, mut read) = (Vec::new(), 0);
        for name in files {
            let path = directory.join(&name);
            let left = HEADS_BYTES_MAX.saturating_sub(read).min(HEAD_BYTES_MAX);
            let head = head(&path, left).map_err(|why| format!("{name}: {why}"))?;
            read = read.saturating_add(head.length);
            tensors.extend(head.tensors);
        }
        let mut checkpoint = Self {
            config,
            tensors,
            doubts: Vec::new(),
        };
        if let Some(index) = &index {
            checkpoint.doubt(index);
        }
        Ok(checkpoint)
    }

    /// A model of which others told config and tensors, and the size that its index states.
    pub(super) fn told(config: Value, tensors: Vec<Tensor>, stated: Option<u64>) -> Self {
        let mut checkpoint = Self {
            config,
            tensors,
            doubts: Vec::new(),
        };
        checkpoint.doubt_size(stated);
        checkpoint
    }

    /// Holds the size that an index states against the heads, which count.
    fn doubt_size(&mut self, stated: Option<u64>) {
        let bytes = self.tensors.iter().map(|tensor| tensor.bytes);
        let bytes = bytes.fold(0, u64::saturating_add);
        if let Some(stated) = stated
            && stated.abs_diff(bytes) > bytes / SLACK
        {
            self.doubts.push(format!(
                "{INDEX} says that the weights are {}, and the heads of the files say {}: those count",
                Bytes(stated),
                Bytes(bytes)
            ));
        }
    }

    /// Holds an index against the heads.
    fn doubt(&mut self, index: &Index) {
        self.doubt_size(index.metadata.total_size.as_ref().and_then(Value::as_u64));
        let known: BTreeSet<&str> = self.tensors.iter().map(|t| t.name.as_str()).collect();
        let mut missing = index
            .weight_map
            .keys()
            .filter(|name| !known.contains(name.as_str()));
        if let Some(name) = missing.next() {
            let others = missing.count();
            self.doubts.push(format!(
                "{INDEX} lists {:?} and {others} more tensors that no file has: fetch the model again",
                name.chars().take(100).collect::<String>()
            ));
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Index {
    #[serde(default)]
    metadata: Metadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    total_size: Option<Value>,
}

impl Index {
    /// The files that it names, each once; all below its directory.
    fn files(&self) -> Result<Vec<String>, String> {
        let files: BTreeSet<&String> = self.weight_map.values().collect();
        if files.is_empty() {
            return Err(format!("{INDEX} lists no file: fetch it again"));
        }
        if files.len() > FILES_MAX {
            return Err(format!("{INDEX} lists more than {FILES_MAX} files"));
        }
        let mut names = Vec::with_capacity(files.len());
        for name in files {
            if !is_below(name) || !name.ends_with(ENDING) {
                let name: String = name.chars().take(100).collect();
                return Err(format!(
                    "{INDEX} lists {name:?}, which is no file of weights below its directory: do not use this model"
                ));
            }
            names.push(name.clone());
        }
        Ok(names)
    }
}

/// The files of weights in a directory that has no index.
fn files_in(directory: &Path) -> Result<Vec<String>, String> {
    let unread = |error: io::Error| format!("it can't be read ({error})");
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(unread)?.take(FILES_MAX * 8) {
        let name = entry.map_err(unread)?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(ENDING)) {
            names.push(name.to_owned());
        }
    }
    if names.iter().any(|name| !name.starts_with(AGAIN)) {
        names.retain(|name| !name.starts_with(AGAIN));
    }
    names.sort();
    match names.len() {
        0 => {
            Err("it has no weights in the form of safetensors, whose sizes can be read".to_owned())
        }
        1..=FILES_MAX => Ok(names),
        _ => Err(format!("it has more than {FILES_MAX} files of weights")),
    }
}

/// Opens a file and nothing else: a pipe would be waited for, and a device never ends.
fn open(path: &Path) -> Result<(File, u64), String> {
    let unread = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "it is not there: fetch the model again".to_owned(),
        _ => format!("it can't be read ({error})"),
    };
    // What is opened is looked at, as workers can put something else there meanwhile.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(unread)?;
    let facts = file.metadata().map_err(unread)?;
    if !facts.is_file() {
        return Err("it is no file".to_owned());
    }
    Ok((file, facts.len()))
}

fn json<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> Result<T, String> {
    let (file, bytes) = open(path)?;
    if bytes > bytes_max {
        return Err(format!(
            "it has {}, and no more than {} are read",
            Bytes(bytes),
            Bytes(bytes_max)
        ));
    }
    let mut text = Vec::new();
    let read = file.take(bytes_max).read_to_end(&mut text);
    read.map_err(|error| format!("it can't be read ({error})"))?;
    serde_json::from_slice(&text).map_err(|error| format!("it is not what it should be ({error})"))
}

struct FileHead {
    length: u64,
    tensors: Vec<Tensor>,
}

/// Reads the head of a file of weights.
fn head(path: &Path, bytes_max: u64) -> Result<FileHead, String> {
    let cut = |error: io::Error| format!("it ends within its head ({error}): fetch it again");
    let (mut file, bytes) = open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > bytes_max {
        return Err(format!(
            "its head would be {}, which is more than any model has",
            Bytes(length)
        ));
    }
    // No more than the limit, so the sum has room.
    let data = bytes.checked_sub(8 + length);
    let data = data.ok_or("its head is longer than the file: fetch it again")?;
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).map_err(cut)?;
    Ok(FileHead {
        length,
        tensors: tensors(&text, data)?,
    })
}

/// The tensors of a head whose file has so many bytes behind it.
pub(super) fn tensors(head: &[u8], data: u64) -> Result<Vec<Tensor>, String> {
    let wrong = |error| format!("it is not in the form of safetensors ({error}): fetch it again");
    let head: Map<String, Value> = serde_json::from_slice(head).map_err(wrong)?;
    let named = head.into_iter().filter(|(name, _)| name != "__metadata__");
    let mut tensors = Vec::new();
    for (name, entry) in named {
        let shown: String = name.chars().take(100).collect();
        let tensor = tensor(name, entry, data);
        tensors.push(tensor.map_err(|why| format!("of {shown:?} {why}: fetch it again"))?);
    }
    let all = tensors.iter().map(|tensor| tensor.bytes);
    let all = all.fold(0, u64::saturating_add);
    if all != data {
        return Err(format!(
            "its tensors are {} by its head, and it holds {}: fetch it again",
            Bytes(all),
            Bytes(data)
        ));
    }
    Ok(tensors)
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

fn tensor(name: String, entry: Value, data: u64) -> Result<Tensor, String> {
    let entry: Entry = serde_json::from_value(entry)
        .map_err(|_| "its head does not say type, sizes and place".to_owned())?;
    let (begin, end) = entry.data_offsets;
    let bytes = end.checked_sub(begin).filter(|_| end <= data);
    let bytes = bytes.ok_or("its head names a place that the file does not have")?;
    let elements = entry
        .shape
        .iter()
        .try_fold(1_u64, |all, size| all.checked_mul(*size));
    let elements = elements.ok_or("its head names sizes that nothing has")?;
    if let Some(element) = element(&entry.dtype)
        && elements.checked_mul(element) != Some(bytes)
    {
        return Err(format!(
            "its head names {bytes} bytes for {elements} elements of {element} bytes"
        ));
    }
    Ok(Tensor {
        name,
        dtype: entry.dtype,
        sizes: entry.shape,
        bytes,
    })
}

/// Bytes of an element; `None` for types of less than a byte, and for those to come.
fn element(dtype: &str) -> Option<u64> {
    match dtype {
        "F64" | "I64" | "U64" | "C64" => Some(8),
        "F32" | "I32" | "U32" => Some(4),
        "F16" | "BF16" | "I16" | "U16" => Some(2),
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "I8" | "U8" | "BOOL" => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
