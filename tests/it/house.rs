//! Imports between the files of `src`, and the names of their types.
//!
//! Reads the sources as text: `use` trees, paths that begin with `crate`, `self`,
//! `super` or a child, and re-exports, through which a name is followed to the file
//! that has it. Tests inside `src` are left out.
#![expect(
    clippy::indexing_slicing,
    reason = "a source that is not as rustfmt leaves it should be heard of at once"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Segments = Vec<String>;

/// A file of `src`, without its tests and comments.
#[derive(Debug)]
pub(super) struct Source {
    /// From `src`.
    pub(super) path: PathBuf,
    module: Segments,
    /// Its code, a line each.
    pub(super) lines: Vec<String>,
    uses: Vec<Use>,
}

#[derive(Clone, Debug)]
struct Use {
    path: Segments,
    name: String,
}

/// All files of `src`.
#[derive(Debug)]
pub(super) struct House {
    /// By path.
    pub(super) files: Vec<Source>,
    modules: BTreeMap<Segments, usize>,
}

/// Skips an item: to the line that ends it, as far in as it began.
fn skip_item<'a>(lines: &mut impl Iterator<Item = &'a str>, indent: &str) {
    let ends = |line: &str| {
        let own = line.strip_prefix(indent);
        let own = own.filter(|own| !own.starts_with([' ', '#', '/']));
        own.is_some_and(|own| own.starts_with('}') || own.ends_with(['}', ';']))
    };
    for line in lines {
        if ends(line) {
            return;
        }
    }
}

/// The code of a file: no comments, no modules of tests.
fn code(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut all = text.lines();
    while let Some(line) = all.next() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("//") || trimmed.is_empty() {
            continue;
        }
        if trimmed == "#[cfg(test)]" {
            let indent = &line[..line.len() - trimmed.len()];
            skip_item(&mut all, indent);
            continue;
        }
        // A visibility is no import.
        let code = line.split(" // ").next().unwrap_or_default();
        let code = match code.split_once("pub(in ") {
            Some((before, rest)) => {
                let rest = rest.split_once(')').map_or("", |(_, rest)| rest);
                format!("{before}pub(crate){rest}")
            }
            None => code.to_owned(),
        };
        lines.push(code);
    }
    lines
}

fn module_of(path: &Path) -> Segments {
    let mut module: Segments = path
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// The leaves of a `use` tree.
fn leaves(tree: &str, before: &[String], found: &mut Vec<Use>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut before = before.to_vec();
        before.extend(parts(tree[..open].trim_end_matches("::")));
        let inner = tree[open + 1..].trim_end().strip_suffix('}').unwrap();
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(&inner[start..at], &before, found);
                    start = at + 1;
                }
                _ => {}
            }
        }
        leaves(&inner[start..], &before, found);
        return;
    }
    if tree.is_empty() {
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path = [before.to_vec(), parts(path)].concat();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = match alias.trim() {
        "" => path.last().unwrap().clone(),
        alias => alias.to_owned(),
    };
    found.push(Use { path, name });
}

fn parts(path: &str) -> Segments {
    let parts = path
        .split("::")
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// True if a character continues a name.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths in a line that begin with `first::`.
fn paths_from<'a>(line: &'a str, first: &'a str) -> impl Iterator<Item = Segments> + 'a {
    line.match_indices(first).filter_map(move |(at, _)| {
        let before = line[..at].chars().next_back();
        let rest = &line[at..];
        let is_path = rest[first.len()..].starts_with("::")
            && !before.is_some_and(|c| is_word(c) || c == ':' || c == '"');
        let end = rest.find(|c| !is_word(c) && c != ':').unwrap_or(rest.len());
        let path = parts(&rest[..end]);
        // That of a group goes on behind its brace, and is read with it.
        let is_group = line.starts_with(['u', 'p']) && rest[end..].starts_with('{');
        (is_path && path.len() > 1 && !is_group).then_some(path)
    })
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_test {
            rust_files(&path, found);
        } else if !is_test && path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

impl House {
    /// Reads `src`.
    pub(super) fn read(src: &Path) -> Self {
        let mut paths = Vec::new();
        rust_files(src, &mut paths);
        let mut files = Vec::new();
        for path in paths {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(src).unwrap().to_owned();
            let lines = code(&text);
            let mut uses = Vec::new();
            let whole = lines.join("\n");
            for statement in whole.split(';') {
                let statement = statement.trim_start();
                let last = statement
                    .rfind("\nuse ")
                    .map_or(statement, |at| &statement[at + 1..]);
                let last = last.rfind("\npub").map_or(last, |at| &last[at + 1..]);
                let tree = last
                    .strip_prefix("pub(crate) ")
                    .or_else(|| last.strip_prefix("pub(super) "))
                    .or_else(|| last.strip_prefix("pub "))
                    .unwrap_or(last);
                if let Some(tree) = tree.trim_start().strip_prefix("use ") {
                    leaves(tree, &[], &mut uses);
                }
            }
            files.push(Source {
                module: module_of(&path),
                path,
                lines,
                uses,
            });
        }
        let mut house = Self {
            files,
            modules: BTreeMap::new(),
        };
        // Modules of tests that are files of their own have no declaration left.
        let declared = |house: &Self, file: &Source| {
            let Some((name, parent)) = file.module.split_last() else {
                return true;
            };
            house.files.iter().any(|other| {
                other.module == parent
                    && other
                        .lines
                        .iter()
                        .any(|line| line.trim_end().ends_with(&format!("mod {name};")))
            })
        };
        let kept: Vec<bool> = house
            .files
            .iter()
            .map(|file| declared(&house, file))
            .collect();
        let mut kept = kept.into_iter();
        house.files.retain(|_| kept.next().unwrap());
        for (at, file) in house.files.iter().enumerate() {
            if file.path != Path::new("main.rs") {
                house.modules.insert(file.module.clone(), at);
            }
        }
        house
    }

    /// The path from the root of what is written in a file; `None` for other crates.
    fn absolute(&self, file: &Source, path: &[String]) -> Option<Segments> {
        let mut base = file.module.clone();
        let (first, mut rest) = path.split_first()?;
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop();
                while rest.first().is_some_and(|next| next == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child => {
                base.push(child.to_owned());
                if !self.modules.contains_key(&base) {
                    return None;
                }
            }
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file that has what the path leads to.
    fn target(&self, path: &[String], depth: usize) -> usize {
        let mut at = self.modules[&Segments::new()];
        for (length, name) in path.iter().enumerate() {
            if let Some(&module) = self.modules.get(&path[..=length]) {
                at = module;
                continue;
            }
            let file = &self.files[at];
            let through = file.uses.iter().find(|found| found.name == *name);
            let through = through.and_then(|found| self.absolute(file, &found.path));
            if let Some(mut through) = through.filter(|_| depth < 8) {
                through.extend_from_slice(&path[length + 1..]);
                return self.target(&through, depth + 1);
            }
            break;
        }
        at
    }

    /// Files that each file imports.
    pub(super) fn imports(&self) -> Vec<BTreeSet<usize>> {
        let mut all = Vec::new();
        for (own, file) in self.files.iter().enumerate() {
            let mut paths: Vec<Segments> =
                file.uses.iter().map(|found| found.path.clone()).collect();
            let children = self.modules.keys().filter_map(|module| {
                let (name, parent) = module.split_last()?;
                (parent == file.module).then_some(name.as_str())
            });
            let firsts: Vec<&str> = children.chain(["crate", "super", "self"]).collect();
            for line in &file.lines {
                paths.extend(firsts.iter().flat_map(|first| paths_from(line, first)));
            }
            let absolute = paths.iter().filter_map(|path| self.absolute(file, path));
            let targets = absolute.map(|path| self.target(&path, 0));
            all.push(targets.filter(|target| *target != own).collect());
        }
        all
    }

    /// The circles of files that import each other, the largest first.
    pub(super) fn circles(&self) -> Vec<Vec<String>> {
        let imports = self.imports();
        let reached: Vec<BTreeSet<usize>> = (0..imports.len())
            .map(|from| {
                let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
                while let Some(next) = open.pop() {
                    open.extend(imports[next].iter().filter(|to| seen.insert(**to)));
                }
                seen
            })
            .collect();
        let mut circles: Vec<Vec<String>> = Vec::new();
        for from in 0..imports.len() {
            let both: Vec<usize> = (0..imports.len())
                .filter(|to| reached[from].contains(to) && reached[*to].contains(&from))
                .collect();
            if both.len() > 1 && both[0] == from {
                circles.push(
                    both.iter()
                        .map(|at| self.files[*at].path.display().to_string())
                        .collect(),
                );
            }
        }
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        circles
    }

    /// The names of types that are defined more than once, with their files: of those
    /// that are `pub`, or of all.
    pub(super) fn twice(&self, only_public: bool) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in &self.files {
            for line in &file.lines {
                let is_public = line.starts_with("pub ");
                let item = match line.strip_prefix("pub(") {
                    Some(rest) => rest.split_once(") ").map_or("", |(_, item)| item),
                    None => line.strip_prefix("pub ").unwrap_or(line),
                };
                let mut words = item.split(|c: char| !is_word(c));
                let is_type = matches!(words.next(), Some("struct" | "enum" | "trait" | "type"));
                if is_type && (is_public || !only_public) {
                    let name = words.next().unwrap_or_default().to_owned();
                    let path = file.path.display().to_string();
                    names.entry(name).or_default().push(path);
                }
            }
        }
        names.retain(|_, files| files.len() > 1);
        names
    }
}
