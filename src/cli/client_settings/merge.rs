//! Settings of ours in a file that may be there already.
//!
//! Everything that stands there stays, in its order and with its comments; only keys of ours
//! are replaced, and the result is read again before it is written. A file that can't be
//! merged without a doubt is left alone, with a sentence that says why.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::Value as Json;
use similar::TextDiff;
use tempfile::NamedTempFile;
use toml_edit::{DocumentMut, Item, TableLike};

use super::super::common::Failure;
use super::kinds::{File, Form};

/// Largest file that is looked into, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Lines around a difference.
const CONTEXT_LINES: usize = 2;
/// Advice where we can't write.
const BY_HAND: &str = "put in by hand what is printed without --write";

/// A file as it will be.
#[derive(Debug)]
pub(super) struct Change {
    path: PathBuf,
    text: Option<String>,
    /// Difference of its lines.
    pub(super) diff: String,
}

/// Change of the file by our settings.
///
/// # Errors
///
/// The file can't be read, or can't be merged with.
pub(super) fn change(path: &Path, ours: &File) -> Result<Change, Failure> {
    let (path, before) = read(path)?;
    let shown = path.display();
    let after = merged(&before, ours.form, &ours.text)
        .map_err(|why| format!("{shown} was left alone: {why}"))?;
    let diff = if after == before {
        format!("{shown} has these settings already")
    } else {
        TextDiff::from_lines(&before, &after)
            .unified_diff()
            .context_radius(CONTEXT_LINES)
            .header(&shown.to_string(), &shown.to_string())
            .to_string()
    };
    Ok(Change {
        diff,
        text: (after != before).then_some(after),
        path,
    })
}

/// The file that a path leads to, and what stands in it: nothing, where it is not there.
fn read(path: &Path) -> Result<(PathBuf, String), Failure> {
    let shown = path.display();
    let failed = |error| format!("{shown} can't be read, and was left alone: {error}");
    if let Err(error) = fs::symlink_metadata(path) {
        return match error.kind() {
            ErrorKind::NotFound => Ok((path.to_owned(), String::new())),
            _ => Err(failed(error).into()),
        };
    }
    // A link to a file of someone's own collection stays one; one that leads nowhere
    // is an error here.
    let path = fs::canonicalize(path).map_err(failed)?;
    let data = fs::metadata(&path).map_err(failed)?;
    if !data.is_file() || data.len() > FILE_BYTES_MAX {
        return Err(format!("{shown} is no file of settings, and was left alone").into());
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    Ok((path, text))
}

impl Change {
    /// Writes it, whole or not at all.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub(super) fn write(&self) -> Result<(), Failure> {
        let Some(text) = &self.text else {
            return Ok(());
        };
        let failed = |error| format!("{} can't be written: {error}", self.path.display());
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        // By a name of its own: nothing else in the folder of someone else is touched.
        let mut beside = NamedTempFile::new_in(folder).map_err(failed)?;
        beside.write_all(text.as_bytes()).map_err(failed)?;
        if let Ok(known) = fs::metadata(&self.path) {
            fs::set_permissions(beside.path(), known.permissions()).map_err(failed)?;
        }
        beside.as_file().sync_all().map_err(failed)?;
        beside
            .persist(&self.path)
            .map_err(|error| failed(error.error))?;
        Ok(())
    }
}

fn merged(before: &str, form: Form, ours: &str) -> Result<String, String> {
    if before.trim().is_empty() || before == ours {
        return Ok(ours.to_owned());
    }
    match form {
        Form::Json => json(before, ours),
        Form::Toml => toml(before, ours),
        // No library edits YAML and keeps what stands there as it is.
        Form::Yaml => Err(format!(
            "it has settings already, and YAML is not merged: {BY_HAND}"
        )),
    }
}

/// JSON as editors read it: with comments, and commas at the end.
const JSON: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

fn json(before: &str, ours: &str) -> Result<String, String> {
    let wrong = |error| format!("it is not JSON ({error}): put it right first");
    let root = CstRootNode::parse(before, &JSON).map_err(wrong)?;
    let object = root
        .object_value()
        .ok_or("it holds no object: put it right first")?;
    let ours: Json = serde_json::from_str(ours).map_err(|error| error.to_string())?;
    let mut wanted = root.to_serde_value().unwrap_or_default();
    lay_json(&mut wanted, &ours);
    if let Json::Object(ours) = &ours {
        lay(&object, ours);
    }
    let text = root.to_string();
    let read = CstRootNode::parse(&text, &JSON).ok();
    let is_it = read.and_then(|root| root.to_serde_value()).as_ref() == Some(&wanted);
    is_it.then_some(text).ok_or_else(in_doubt)
}

/// Lays our keys over an object: objects are merged, all else is replaced.
fn lay(object: &CstObject, ours: &serde_json::Map<String, Json>) {
    for (key, value) in ours {
        let Some(known) = object.get(key) else {
            object.append(key, input(value));
            continue;
        };
        match (known.object_value(), value) {
            (Some(known), Json::Object(new)) => lay(&known, new),
            _ if known.to_serde_value().as_ref() == Some(value) => {}
            _ => known.set_value(input(value)),
        }
    }
}

/// The same on values, to compare with.
fn lay_json(known: &mut Json, ours: &Json) {
    let (Json::Object(known), Json::Object(new)) = (&mut *known, ours) else {
        return known.clone_from(ours);
    };
    for (key, value) in new {
        lay_json(known.entry(key).or_insert(Json::Null), value);
    }
}

fn input(value: &Json) -> CstInputValue {
    match value {
        Json::Null => CstInputValue::Null,
        Json::Bool(value) => CstInputValue::Bool(*value),
        Json::Number(value) => CstInputValue::Number(value.to_string()),
        Json::String(value) => CstInputValue::String(value.clone()),
        Json::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Json::Object(entries) => {
            let entries = entries.iter();
            CstInputValue::Object(
                entries
                    .map(|(key, value)| (key.clone(), input(value)))
                    .collect(),
            )
        }
    }
}

fn toml(before: &str, ours: &str) -> Result<String, String> {
    let read = |text: &str| text.parse::<toml::Table>();
    let mut wanted = read(before)
        .map_err(|error| format!("it is not TOML ({}): put it right first", error.message()))?;
    lay_values(&mut wanted, read(ours).map_err(|error| error.to_string())?);
    let document = |text: &str| {
        text.parse::<DocumentMut>()
            .map_err(|error| error.to_string())
    };
    let (mut theirs, ours) = (document(before)?, document(ours)?);
    lay_items(theirs.as_table_mut(), ours.as_table());
    let text = theirs.to_string();
    let is_it = read(&text).is_ok_and(|found| found == wanted);
    is_it.then_some(text).ok_or_else(in_doubt)
}

fn lay_items(theirs: &mut dyn TableLike, ours: &dyn TableLike) {
    for (key, new) in ours.iter() {
        let Some(known) = theirs.get_mut(key) else {
            theirs.insert(key, anywhere(new.clone()));
            continue;
        };
        if let (Some(known), Some(new)) = (known.as_table_like_mut(), new.as_table_like()) {
            lay_items(known, new);
            continue;
        }
        let mut new = new.clone();
        // The comment behind it stays.
        if let (Item::Value(known), Item::Value(new)) = (&*known, &mut new) {
            new.decor_mut().clone_from(known.decor());
        }
        *known = new;
    }
}

/// The item without the place that it had in our text: it comes last.
fn anywhere(mut item: Item) -> Item {
    if let Item::Table(table) = &mut item {
        table.set_position(None);
        for (_, inner) in table.iter_mut() {
            let own = std::mem::take(inner);
            *inner = anywhere(own);
        }
    }
    item
}

/// The same on values, to compare with.
fn lay_values(known: &mut toml::Table, ours: toml::Table) {
    for (key, value) in ours {
        match (known.get_mut(&key), value) {
            (Some(toml::Value::Table(known)), toml::Value::Table(new)) => lay_values(known, new),
            (_, value) => drop(known.insert(key, value)),
        }
    }
}

fn in_doubt() -> String {
    format!("what it has of ours is written in another way: {BY_HAND}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODEX: &str = "model_provider = \"tidegate\"\nmodel = \"m\"\n\n[model_providers.tidegate]\nname = \"Tidegate\"\n";

    fn toml_of(before: &str) -> String {
        let once = merged(before, Form::Toml, CODEX).unwrap();
        assert_eq!(merged(&once, Form::Toml, CODEX).unwrap(), once);
        once
    }

    #[test]
    fn toml_keeps_what_it_has_with_comments_and_a_second_time_changes_nothing() {
        assert_eq!(toml_of(""), CODEX);
        assert_eq!(toml_of(CODEX), CODEX);
        let other =
            "# mine\nmodel = \"gpt\" # old\napproval = \"never\"\n\n[tools]\nweb = true # yes\n";
        assert_eq!(
            toml_of(other),
            "# mine\nmodel = \"m\" # old\napproval = \"never\"\nmodel_provider = \"tidegate\"\n\n[tools]\nweb = true # yes\n\n[model_providers.tidegate]\nname = \"Tidegate\"\n"
        );
        let between = "[model_providers.tidegate]\nname = \"Old\"\nx = 1\n\n[x]\nmodel = \"n\"\n";
        assert_eq!(
            toml_of(between),
            "model_provider = \"tidegate\"\nmodel = \"m\"\n[model_providers.tidegate]\nname = \"Tidegate\"\nx = 1\n\n[x]\nmodel = \"n\"\n"
        );
        // In whatever way it is written.
        for before in [
            "model_providers = { tidegate = { name = \"x\" }, mine = { a = 1 } }\n",
            "model_providers.tidegate.name = \"x\"\nmodel = \"\"\"\nx\"\"\"\n",
            "[model_providers.mine]\nname = \"[model_providers.tidegate]\"\n",
            "'model' = 'x'\r\n",
        ] {
            toml_of(before);
        }
    }

    #[test]
    fn json_keeps_what_it_has_with_comments_and_a_second_time_changes_nothing() {
        let before = "// mine\n{\n  \"z\": [1, null], // two\n  \"provider\": {\n    \"own\": { \"b\": 1, \"a\": 2.5 },\n  },\n  \"model\": \"old\",\n}\n";
        let ours = "{\"model\": \"m\", \"provider\": {\"tidegate\": {\"x\": true}}}";
        let once = merged(before, Form::Json, ours).unwrap();
        assert_eq!(
            once,
            "// mine\n{\n  \"z\": [1, null], // two\n  \"provider\": {\n    \"own\": { \"b\": 1, \"a\": 2.5 },\n    \"tidegate\": {\n      \"x\": true,\n    },\n  },\n  \"model\": \"m\",\n}\n"
        );
        assert_eq!(merged(&once, Form::Json, ours).unwrap(), once);
    }

    #[test]
    fn what_can_not_be_merged_without_a_doubt_is_left_alone() {
        for (form, before, ours) in [
            (Form::Toml, "model = ", CODEX),
            (Form::Toml, "a = 1\na = 2\n", CODEX),
            (Form::Json, "{\"a\": }", "{\"a\": 1}"),
            (Form::Json, "[]", "{\"a\": 1}"),
            (Form::Json, "{\"a\": 2, \"a\": 3}", "{\"a\": 1}"),
            (Form::Json, "{\"b\": 'x'}", "{\"a\": 1}"),
            (Form::Yaml, "name: mine\n", "name: Tidegate\n"),
            (Form::Yaml, "# only a note\n", "name: Tidegate\n"),
        ] {
            let why = merged(before, form, ours).unwrap_err();
            assert!(
                why.contains("by hand") || why.contains("right first"),
                "{before}: {why}"
            );
        }
        assert_eq!(merged("a: 1\n", Form::Yaml, "a: 1\n").unwrap(), "a: 1\n");
        assert_eq!(merged("\n", Form::Yaml, "a: 1\n").unwrap(), "a: 1\n");
    }

    fn file(text: &str) -> File {
        File {
            path: "x",
            form: Form::Toml,
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_change_is_shown_with_what_is_around_it_and_written_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "a = 1\n").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let ours = file("b = 2\n");
        let first = change(&link, &ours).unwrap();
        assert!(first.diff.ends_with(" a = 1\n+b = 2\n"), "{}", first.diff);
        first.write().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "a = 1\nb = 2\n");
        assert!(change(&link, &ours).unwrap().diff.contains("already"));
        let deep = dir.path().join("a/b/c");
        change(&deep, &ours).unwrap().write().unwrap();
        assert_eq!(fs::read_to_string(deep).unwrap(), "b = 2\n");
    }

    #[test]
    fn what_can_not_be_looked_at_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(at("gone"), at("dangling")).unwrap();
        fs::write(at("plain"), "a = 1\n").unwrap();
        fs::write(at("bytes"), b"a = \xff").unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["dangling", "plain/below", "bytes", "folder"] {
            let refused = change(&at(name), &file("b = 2\n"));
            assert!(
                refused.unwrap_err().to_string().contains("left alone"),
                "{name}"
            );
        }
        assert!(at("dangling").is_symlink() && !at("gone").exists());
    }
}
