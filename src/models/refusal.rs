//! Reasons for which the hub did not give a model, in sentences that say what to do.

use std::io;
use std::path::PathBuf;

/// Reason for which the hub did not give a model.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The interpreter does not run.
    #[error("{python} can't be run, so nothing can be fetched: name another in [models] python")]
    Run {
        /// The interpreter.
        python: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The interpreter ended without a word of ours.
    #[error("{python} broke off the fetch of {model}: {complaint}")]
    Broke {
        /// The interpreter.
        python: PathBuf,
        /// The model.
        model: String,
        /// The last line of its standard error.
        complaint: String,
    },
    /// The interpreter says something that makes no sense.
    #[error("{python} told no plan that makes sense of {model}: {what}")]
    Answer {
        /// The interpreter.
        python: PathBuf,
        /// The model.
        model: String,
        /// The fault of the answer.
        what: String,
    },
    /// The hub, the network or the disk refuse.
    #[error("{}", .0.sentence())]
    Refused(Box<HubRefusal>),
}

/// Consequence of a failed fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfetchable {
    /// Nobody can bring it as things stand: a person has to do something.
    Never,
    /// A later fetch may go well.
    Now,
    /// No fetch is allowed: the files that are here have to do.
    Offline,
    /// The fault is of this way to bring it: its engine is to try its own.
    ByUs,
}

impl HubError {
    /// Consequence of the error.
    pub fn verdict(&self) -> Unfetchable {
        let refused = match self {
            Self::Refused(refused) => refused,
            Self::Answer { .. } => return Unfetchable::Never,
            Self::Run { .. } | Self::Broke { .. } => return Unfetchable::ByUs,
        };
        match refused.kind.as_str() {
            "missing" | "gated" | "disabled" | "revision" | "refused" | "path" => {
                Unfetchable::Never
            }
            "offline" => Unfetchable::Offline,
            "busy" | "server" | "no-answer" | "unreachable" | "certificate" | "size"
            | "checksum" | "short" | "entry" | "disk" | "permission" => Unfetchable::Now,
            _ => Unfetchable::ByUs,
        }
    }
}

/// Fault that the program found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRefusal {
    pub(super) model: String,
    pub(super) revision: String,
    pub(super) python: PathBuf,
    /// A word of the program's for what is wrong.
    pub(super) kind: String,
    pub(super) detail: String,
    /// The file that it is about; empty for the model.
    pub(super) file: String,
}

impl HubRefusal {
    /// Sentence that says what is wrong, and what to do.
    fn sentence(&self) -> String {
        let Self {
            model,
            revision,
            detail,
            file,
            ..
        } = self;
        match self.kind.as_str() {
            "missing" => format!(
                "the hub has no model {model}, or does not show it to this login: look at its spelling; for a private one set HF_TOKEN"
            ),
            "gated" => format!(
                "{model} is gated: accept its terms on its page of the hub, and set HF_TOKEN to a token of that account"
            ),
            "disabled" => format!("the hub has disabled {model}: choose another model"),
            "revision" => format!(
                "{model} has no revision {revision:?}: write a branch, a tag or a commit that it has"
            ),
            "refused" => format!(
                "the hub refuses this login for {model}: set HF_TOKEN to a token that may read it"
            ),
            "busy" => "the hub says that there were too many requests (429), again and again: try later, or set HF_TOKEN for a higher limit; what has come is kept".to_owned(),
            "server" => format!("the hub fails again and again ({detail}): try later; what has come is kept"),
            "no-answer" => format!(
                "what answered is not the hub ({detail}): look at HF_ENDPOINT, and at proxies that want a login"
            ),
            "offline" => format!(
                "HF_HUB_OFFLINE is set, and {model} is not whole in the cache: unset it, or bring the cache of a machine that has it"
            ),
            "unreachable" => format!(
                "the hub can't be reached ({detail}): look at the network, HTTPS_PROXY and HF_ENDPOINT; what has come is kept"
            ),
            "certificate" => format!(
                "the certificate of the hub can't be verified ({detail}): set SSL_CERT_FILE to the authorities of your proxy"
            ),
            "size" => format!(
                "{file} of {model} is not as large as the hub says ({detail}), and was thrown away: pull again, and if it stays so name another revision"
            ),
            "checksum" => format!(
                "{file} of {model} came damaged ({detail}), and was thrown away: pull again"
            ),
            "short" => format!(
                "{file} of {model} broke off again and again ({detail}): pull again, which goes on from there"
            ),
            "path" => format!(
                "{model} has a file called {detail}, which would lead out of its directory: nothing of it was fetched; choose another model"
            ),
            "no-weights" => format!(
                "{model} has no weights that an engine loads by its name (*.safetensors, *.bin, *.pt); it has {detail}: choose another model, or write the path of a file"
            ),
            "cached" => format!(
                "{detail} in the cache is broken, and nothing that we made: remove it, and pull again"
            ),
            "entry" => format!("the hub lists {file} of {model} and does not have it: pull again"),
            "disk" => "the disk is full: make room (`tidegate models prune --dry-run` tells what is not used), and pull again; what has come is kept".to_owned(),
            "permission" => format!(
                "the cache can't be written to ({detail}): give its directory to this user, or set HF_HOME to another"
            ),
            "no-hub" => format!(
                "{} has no huggingface_hub that can be used ({detail}): install it there, or name another Python in [models] python",
                self.python.display()
            ),
            "name" => format!("the hub has no names like {model}: look at its spelling"),
            _ => format!("{model} could not be fetched: {detail}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_must_mend_is_told_from_what_passes() {
        let verdict = |kind: &str| {
            let refused = HubRefusal {
                model: "acme/tiny".to_owned(),
                revision: "main".to_owned(),
                python: "/venv/bin/python".into(),
                kind: kind.to_owned(),
                detail: String::new(),
                file: String::new(),
            };
            HubError::Refused(Box::new(refused)).verdict()
        };
        for kind in ["missing", "gated", "revision", "path"] {
            assert_eq!(verdict(kind), Unfetchable::Never, "{kind}");
        }
        for kind in ["busy", "server", "unreachable", "disk", "checksum"] {
            assert_eq!(verdict(kind), Unfetchable::Now, "{kind}");
        }
        for kind in ["no-hub", "no-weights", "of another version"] {
            assert_eq!(verdict(kind), Unfetchable::ByUs, "{kind}");
        }
        assert_eq!(verdict("offline"), Unfetchable::Offline);
        let (python, model) = ("/venv/bin/python".into(), "acme/tiny".to_owned());
        let what = "it would write to /etc".to_owned();
        let strange = HubError::Answer {
            python,
            model,
            what,
        };
        assert_eq!(strange.verdict(), Unfetchable::Never);
    }
}
