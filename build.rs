//! Packs the dashboard's files into the binary.
//!
//! Everything in `src/admin/dashboard/assets`, and plotly.js out of the `plotly`
//! crate, is compressed once, here; the module `admin::dashboard::assets` serves
//! the result as it is. Own files share one hash of all their contents, which
//! stands in their addresses, so that they may be cached for ever and still find
//! each other by relative names. Lines of scripts that are comments are sent empty, so
//! that errors still name the line of the source; nothing else is minified, and no network
//! is needed.

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

const ASSETS: &str = "src/admin/dashboard/assets";

fn main() -> Result<(), Box<dyn Error>> {
    tell_cargo("build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    walk(Path::new(ASSETS), &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    let mut entries = String::new();
    for (index, path) in files.iter().enumerate() {
        let content = fs::read(path)?;
        let name = path.strip_prefix(ASSETS)?;
        let name = name.to_str().ok_or("the name of an asset is no UTF-8")?;
        (name, &content).hash(&mut hasher);
        let packed = format!("asset-{index}.gz");
        let sent = match path.extension() {
            Some(end) if end == "js" => without_comments(&String::from_utf8(content)?).into_bytes(),
            _ => content,
        };
        fs::write(out.join(&packed), gzip(&sent)?)?;
        writeln!(entries, "    ({name:?}, include_bytes!({packed:?})),")?;
    }
    let plotly = plotly_script()?;
    fs::write(out.join("plotly.gz"), gzip(plotly.as_bytes())?)?;
    let mut own = DefaultHasher::new();
    plotly.hash(&mut own);
    let text = format!(
        "/// Own files by name, packed with gzip.\n\
         static FILES: &[(&str, &[u8])] = &[\n{entries}];\n\
         /// Hash of all own files.\n\
         const FILES_HASH: &str = \"{:016x}\";\n\
         /// plotly.js, packed with gzip.\n\
         static PLOTLY: &[u8] = include_bytes!(\"plotly.gz\");\n\
         /// Hash of plotly.js.\n\
         const PLOTLY_HASH: &str = \"{:016x}\";\n",
        hasher.finish(),
        own.finish(),
    );
    fs::write(out.join("assets.rs"), text)?;
    Ok(())
}

fn tell_cargo(path: impl AsRef<Path>) {
    println!("cargo::rerun-if-changed={}", path.as_ref().display());
}

/// Files below a directory. Cargo runs this again when one changes, comes or goes.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    tell_cargo(directory);
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            tell_cargo(&path);
            files.push(path);
        }
    }
    Ok(())
}

/// A script with each line empty that is a comment as a whole: `//`, or from `/**` to `*/`.
fn without_comments(script: &str) -> String {
    let mut inside = false;
    let mut sent = String::with_capacity(script.len());
    for line in script.lines() {
        let trimmed = line.trim();
        let begins =
            trimmed.starts_with("/**") && (trimmed.ends_with("*/") || !trimmed.contains("*/"));
        let is_comment = inside || begins || trimmed.starts_with("//");
        inside = (inside || begins) && !trimmed.ends_with("*/");
        if !is_comment {
            sent.push_str(line);
        }
        sent.push('\n');
    }
    sent
}

fn gzip(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}

/// plotly.js alone: the first of the two scripts that the crate carries, as the
/// second only typesets formulas.
fn plotly_script() -> Result<String, Box<dyn Error>> {
    let sources = plotly::Plot::offline_js_sources();
    let script = sources.split_once("<script type=\"text/javascript\">");
    let script = script.and_then(|(_, rest)| rest.split_once("</script>\n"));
    let (script, _) = script.ok_or("the plotly crate wraps its script in another way now")?;
    if !script.starts_with("/**\n* plotly.js") {
        return Err("the plotly crate's first script is not plotly.js any more".into());
    }
    Ok(script.to_owned())
}
