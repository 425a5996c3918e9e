//! TOML into the tree.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{DEPTH_MAX, Entry, Lines, Node, SyntaxError, Value};

/// Syntax errors that are told of one file; later ones often follow from the
/// first.
const ERRORS_MAX: usize = 5;

/// Reads a TOML document.
///
/// # Errors
///
/// The syntax errors, one per line, the first few of them.
pub(super) fn parse(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let lines = Lines::new(text);
    let (document, wrong) = DeTable::parse_recoverable(text);
    let mut errors: Vec<SyntaxError> = Vec::new();
    for error in wrong {
        let line = error.span().map_or(1, |span| lines.at(span.start));
        if errors.len() < ERRORS_MAX && errors.iter().all(|known| known.line != line) {
            errors.push(SyntaxError {
                line,
                message: format!("this is not TOML: {}", error.message()),
            });
        }
    }
    let mut walk = Walk { lines, errors };
    let entries = walk.table(document.get_ref(), 1);
    if walk.errors.is_empty() {
        let value = Value::Table(entries);
        return Ok(Node { line: 1, value });
    }
    walk.errors.sort_by_key(|error| error.line);
    Err(walk.errors)
}

struct Walk {
    lines: Lines,
    errors: Vec<SyntaxError>,
}

impl Walk {
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                line: self.lines.at(key.span().start),
                node: self.node(value, depth),
            })
            .collect();
        entries.sort_by_key(|entry| entry.line);
        entries
    }

    fn list(&mut self, list: &DeArray<'_>, depth: usize) -> Vec<Node> {
        list.iter().map(|value| self.node(value, depth)).collect()
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let line = self.lines.at(value.span().start);
        let deep = depth >= DEPTH_MAX;
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Int(number),
                    Err(_) => self.refuse(line, "this number is too large: write a smaller one"),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => self.refuse(line, "this is not a number: write one, as 0.5"),
            },
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(_) | DeValue::Table(_) if deep => self.refuse(
                line,
                "tables and lists are nested too deep here: write at most 32 levels",
            ),
            DeValue::Array(list) => Value::List(self.list(list, depth + 1)),
            DeValue::Table(table) => Value::Table(self.table(table, depth + 1)),
        };
        Node { line, value }
    }

    fn refuse(&mut self, line: usize, message: &str) -> Value {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(SyntaxError {
                line,
                message: message.to_owned(),
            });
        }
        Value::Null
    }
}
