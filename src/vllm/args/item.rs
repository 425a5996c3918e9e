//! One argument on its way to the command line.

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The long name, positive: `--enforce-eager` also for `--no-enforce-eager`.
    pub(super) flag: String,
    /// Keys after the flag, as in `--compilation-config.mode`; without dots at its
    /// ends, empty for none.
    pub(super) path: String,
    /// Its values.
    pub(super) values: Vec<String>,
    /// The words of the command line.
    pub(super) words: Vec<String>,
    /// The option that it comes from.
    pub(super) key: String,
}

impl Item {
    /// A flag without value.
    pub(super) fn switch(key: &str, flag: &str) -> Self {
        Self::new(key, flag, Vec::new())
    }

    /// A flag that turns another off.
    pub(super) fn off(key: &str, flag: &str) -> Self {
        let mut item = Self::switch(key, flag);
        item.words = vec![format!("--no-{}", flag.trim_start_matches('-'))];
        item
    }

    /// A flag and its values.
    pub(super) fn new(key: &str, flag: &str, values: Vec<String>) -> Self {
        let words = match values.as_slice() {
            // A number below zero would be read as a flag if it stood alone.
            [value] if value.starts_with('-') => vec![format!("{flag}={value}")],
            values => {
                let mut words = vec![flag.to_owned()];
                words.extend_from_slice(values);
                words
            }
        };
        Self {
            flag: flag.to_owned(),
            path: String::new(),
            values,
            words,
            key: key.to_owned(),
        }
    }

    /// A flag and one value.
    pub(super) fn value(key: &str, flag: &str, value: impl Into<String>) -> Self {
        Self::new(key, flag, vec![value.into()])
    }
}
