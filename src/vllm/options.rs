//! The options table: every option of the launch form, stated once.
//!
//! From [`OPTIONS`] come the form, the keys of instance files, their schema, the
//! reference, and (through [`super::args`]) vLLM's command line. Rows are plain
//! data: what an option is called, what it means, which values it takes, and what
//! becomes of it in each span of vLLM versions. [`OptionSet`] holds values that
//! were checked against the table.
//!
//! It does not know the argument list of a vLLM version ([`super::versions`]),
//! nor rules between options ([`super::rules`]).

pub mod render;
mod row;
mod set;
mod table;
mod value;

#[cfg(test)]
mod tests;

pub use row::{Form, Group, Home, OptionRow, OptionScope, SetBy, Translation, ValueKind, Versions};
pub use set::{OptionError, OptionSet, shown_key};
pub use table::OPTIONS;
pub use value::{SecretSource, SecretText, Value};
pub(super) use value::{adapter_parts, one_line, scaled, shown};

/// The row with this name.
pub fn find(name: &str) -> Option<&'static OptionRow> {
    OPTIONS.iter().find(|row| row.name == name)
}

/// The row whose label, or a label of the form, is this; letter case and
/// surrounding white space do not matter.
pub fn find_label(label: &str) -> Option<&'static OptionRow> {
    let label = label.trim();
    OPTIONS.iter().find(|row| {
        row.label.eq_ignore_ascii_case(label)
            || row.form.iter().any(|(_, l)| l.eq_ignore_ascii_case(label))
    })
}
