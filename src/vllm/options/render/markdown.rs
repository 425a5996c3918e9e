//! The reference of all options.

use std::io::{self, Write};

use super::super::OPTIONS;
use super::super::row::{Group, Home, OptionRow, Versions};
use super::{becomes, values};
use crate::vllm::versions::Version;

/// Prints the reference.
///
/// # Errors
///
/// Errors of the writer.
pub fn markdown(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "# Options\n\nMade by `tidegate options --format markdown`. Options of a group \
         stand in `[instance.options]` or `[deployment.options]` unless a key is given; the \
         deployment's value wins.\n"
    )?;
    for group in Group::ALL {
        writeln!(out, "## {}\n", group.title())?;
        for row in OPTIONS.iter().filter(|row| row.group == group) {
            option(out, row)?;
        }
    }
    Ok(())
}

fn option(out: &mut dyn Write, row: &OptionRow) -> io::Result<()> {
    writeln!(
        out,
        "### `{}`\n\n**{}.** {}\n",
        row.name, row.label, row.help
    )?;
    match row.home {
        Home::Options(_) => writeln!(out, "- Example: `{}`", example(row))?,
        Home::Key(key) => writeln!(out, "- Key: `{key}`")?,
        Home::Command(command) => writeln!(out, "- Command: `{command}`")?,
    }
    write!(out, "- Values: {}", values(row))?;
    if !row.unit.is_empty() && !values(row).contains(row.unit) {
        write!(out, " ({})", row.unit)?;
    }
    if !row.default.is_empty() {
        write!(out, "; default: {}", row.default)?;
    }
    writeln!(out)?;
    let aliases: Vec<&str> = row.aliases().collect();
    if !aliases.is_empty() {
        writeln!(out, "- In the form: {}", aliases.join("; "))?;
    }
    for span in row.spans {
        writeln!(out, "- {}{}", versions(span), becomes(&span.form))?;
    }
    writeln!(out)
}

fn versions(span: &Versions) -> String {
    match (span.since == Version::MIN, span.until == Version::MAX) {
        (true, true) => String::new(),
        (true, false) => format!("Before vLLM {}: ", span.until),
        (false, true) => format!("From vLLM {}: ", span.since),
        (false, false) => format!("From vLLM {} to before {}: ", span.since, span.until),
    }
}

/// The example as a line of TOML.
fn example(row: &OptionRow) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(row.example);
    match value {
        Ok(value) => format!("{} = {}", row.name, toml_text(&value)),
        Err(_) => row.name.to_owned(),
    }
}

/// A JSON value as inline TOML; the examples hold no control characters.
fn toml_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(map) => {
            let entries: Vec<String> = map
                .iter()
                .map(|(key, inner)| format!("{key} = {}", toml_text(inner)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        serde_json::Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(toml_text).collect();
            format!("[{}]", entries.join(", "))
        }
        other => other.to_string(),
    }
}
