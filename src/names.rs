//! Ids, parsed once at the edge and trusted from there on.
//!
//! Each is a cheap clone (`Arc<str>`). What a name may contain is decided here
//! and nowhere else, so nothing inside checks it again.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest plain name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest model name, in bytes.
pub const MODEL_BYTES_MAX: usize = 256;

/// Longest file name that is made of an id, in bytes; its users add an ending.
pub const STEM_BYTES_MAX: usize = 128;
/// Bytes that a file name keeps of an id that is not used as it is.
const BEGIN_BYTES_MAX: usize = 64;

/// Reason for which a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {rule}")]
pub struct InvalidName {
    /// Kind of the name that it should have been.
    pub kind: &'static str,
    /// The text, cut to a readable length.
    pub text: String,
    /// Rule for such a name.
    pub rule: &'static str,
}

const PLAIN_RULE: &str =
    "use 1 to 63 letters, digits, '.', '_' and '-', the first a letter or a digit";
const MODEL_RULE: &str = "use 1 to 256 printable characters without spaces, '\"' or '\\'";

fn is_plain(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= NAME_BYTES_MAX
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_model(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MODEL_BYTES_MAX
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $valid:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses a name.
            ///
            /// # Errors
            ///
            /// [`InvalidName`] with the rule that the text breaks.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                if $valid(text) {
                    return Ok(Self(Arc::from(text)));
                }
                let text = text.chars().take(80).collect();
                Err(InvalidName { kind: $kind, text, rule: $rule })
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A tenant; every token belongs to one.
    Workspace, "workspace", is_plain, PLAIN_RULE
);
name!(
    /// The unit of access control inside a workspace.
    Project, "project", is_plain, PLAIN_RULE
);
name!(
    /// A public entrance that an admin configured.
    RouteName, "route name", is_plain, PLAIN_RULE
);
name!(
    /// An instance: the subject of one launch form, one file or one import.
    InstanceName, "instance name", is_plain, PLAIN_RULE
);
name!(
    /// A place where an instance's workers are placed.
    QueueName, "queue name", is_plain, PLAIN_RULE
);
name!(
    /// Name that clients write in `model`: `qwen3-8b`, `Qwen/Qwen3-8B`.
    ModelName, "model name", is_model, MODEL_RULE
);

/// Owner of a route or an instance.
///
/// A thing that names no workspace is shared: every workspace that has a project of that
/// name meets there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Belonging<'a> {
    /// The one tenant that it is for.
    pub workspace: Option<&'a Workspace>,
    /// The project in it; without one it is for admins, or for all of the tenant.
    pub project: Option<&'a Project>,
}

/// A model of an instance: `team-llms/qwen3-8b`. Label of metrics and logs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeploymentId(Arc<str>);

impl DeploymentId {
    /// The id of the deployment of `instance` that clients call `endpoint`.
    pub fn new(instance: &InstanceName, endpoint: &ModelName) -> Self {
        Self(Arc::from(format!("{instance}/{endpoint}")))
    }

    /// Reads back an id that [`Self::new`] made, from a store or an argument.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when either half is missing or not a name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let (instance, endpoint) = text.split_once('/').ok_or_else(|| InvalidName {
            kind: "deployment id",
            text: text.chars().take(80).collect(),
            rule: "write INSTANCE/MODEL",
        })?;
        Ok(Self::new(
            &InstanceName::new(instance)?,
            &ModelName::new(endpoint)?,
        ))
    }

    /// The id of one of its workers that live side by side, counted from 1: the
    /// first has the id of the deployment, the second `team-llms/qwen3-8b#2`.
    #[must_use]
    pub fn replica(&self, number: u32) -> Self {
        match number {
            0 | 1 => self.clone(),
            _ => Self(Arc::from(format!("{self}#{number}"))),
        }
    }

    /// True if `id` is this one, or that of one of its replicas.
    pub fn has_replica(&self, id: &Self) -> bool {
        let Some(rest) = id.0.strip_prefix(&*self.0) else {
            return false;
        };
        let number = rest.strip_prefix('#');
        rest.is_empty() || number.is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 1))
    }

    /// The name of its instance.
    pub fn instance(&self) -> &str {
        let instance = self.0.split_once('/');
        // An id is never without one.
        instance.map_or("", |(instance, _)| instance)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as shared text, for labels that are kept.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// A file name for what belongs to this deployment, and to no other: `team--qwen3`.
    /// Whatever the id is made of, it has at most [`STEM_BYTES_MAX`] plain bytes: of an id
    /// that is longer, or would be like another's, its begin and a digest.
    pub fn file_stem(&self) -> String {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'#');
        let bytes = || self.0.bytes();
        let length = self.0.len() + bytes().filter(|b| *b == b'/').count();
        let is_itself = length <= STEM_BYTES_MAX
            && bytes().all(|b| is_plain(b) || b == b'/')
            && !self.0.contains("--")
            && !self.0.contains("-/")
            && !self.0.contains("/-")
            && !self.0.contains("//");
        if is_itself {
            return self.0.replace('/', "--");
        }
        let begin = bytes().map(|b| if is_plain(b) { char::from(b) } else { '_' });
        let mut stem: String = begin.take(BEGIN_BYTES_MAX).collect();
        // No name above has this in it.
        stem.push('~');
        let digest = digest(&SHA256, self.0.as_bytes());
        for byte in digest.as_ref().iter().take(8) {
            // Writing to a string can't fail.
            write!(stem, "{byte:02x}").ok();
        }
        stem
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for DeploymentId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for DeploymentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Counts the workers of one deployment; a report of an older one is stale.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_edge() {
        for good in ["a", "team-llms", "0.5b_x"] {
            assert_eq!(RouteName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(RouteName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["Qwen/Qwen3-8B", "gpt-4o:latest", "/models/llama", "模型"] {
            assert!(ModelName::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a b", "a\nb", "a\"b", &"x".repeat(257)] {
            assert!(ModelName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_deployment_id_reads_back() {
        let id = DeploymentId::new(
            &InstanceName::new("team").unwrap(),
            &ModelName::new("Qwen/Qwen3-8B").unwrap(),
        );
        assert_eq!(DeploymentId::parse(id.as_str()).unwrap(), id);
        assert_eq!(id.file_stem(), "team--Qwen--Qwen3-8B");
        assert!(DeploymentId::parse("nothing").is_err());
    }

    #[test]
    fn a_file_name_is_bounded_plain_and_of_one_id_only() {
        let long = "x".repeat(MODEL_BYTES_MAX);
        let names: [&str; 16] = [
            "a",
            "a/b",
            "a--b",
            "a-/b",
            "a/-b",
            "a//b",
            "-a",
            "a-",
            "../x",
            "模型",
            "a:b",
            "a_b",
            "a~b",
            &long,
            &format!("{}y", &long[1..]),
            &"模".repeat(85),
        ];
        let mut stems = std::collections::HashSet::new();
        for instance in ["i", "i-", "i--a", &"i".repeat(NAME_BYTES_MAX)] {
            let instance = InstanceName::new(instance).unwrap();
            for name in names {
                let id = DeploymentId::new(&instance, &ModelName::new(name).unwrap());
                for id in [id.replica(1), id.replica(2)] {
                    let stem = id.file_stem();
                    assert!(stem.len() <= STEM_BYTES_MAX, "{stem}");
                    assert!(stem.is_ascii() && !stem.contains('/'), "{stem}");
                    assert!(stems.insert(stem.clone()), "{id}: {stem} is another's");
                }
            }
        }
    }
}
