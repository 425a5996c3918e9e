//! Inputs that requests may bring along, as vLLM is told of them.
//!
//! The gateway holds requests to this before a worker sees them. What it can't see is vLLM's
//! part: where a redirect leads, and what a name resolves to by then.

use super::Build;
use super::item::Item;
use crate::outbound::dial::media::Media;
use crate::vllm::versions::{Found, Version};

/// A host that no one has (RFC 2606): vLLM takes an empty list for no list.
const NOWHERE: &str = "nowhere.invalid";

/// The last vLLM that was looked at; it resolves no names before it fetches.
const LOOKED_AT: Version = Version::new(0, 32, 0);

impl Build<'_> {
    /// The arguments for it.
    pub(super) fn inputs(&mut self) {
        let hosts = match self.launch.media {
            Media::Public | Media::Any => Vec::new(),
            Media::Data | Media::None => vec![NOWHERE.to_owned()],
            Media::Hosts(hosts) => hosts.iter().map(ToString::to_string).collect(),
        };
        if !hosts.is_empty() {
            self.input("media", "--allowed-media-domains", hosts);
        }
        if self.launch.chat_template {
            self.input("chat_template", "--trust-request-chat-template", Vec::new());
        }
    }

    fn input(&mut self, key: &'static str, flag: &'static str, values: Vec<String>) {
        if self.launch.knowledge.find(flag) == Found::Absent {
            let version = self.version();
            self.note(format!(
                "{version} has no {flag}: only the gateway holds requests to {key}"
            ));
            return;
        }
        self.items.push(Item::new(key, flag, values));
    }
}

/// Variables of a worker, beside those of its command line, that say what it may fetch. A
/// vLLM that is older than one of them ignores it.
pub fn fetching(media: &Media, version: Version) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    // A redirect leads past all that was looked at.
    if *media != Media::Any {
        all.push(("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0"));
    }
    if version > LOOKED_AT {
        // Hosts that are named may be private.
        let is_free = matches!(media, Media::Any | Media::Hosts(_));
        let blocks = if is_free { "0" } else { "1" };
        all.push(("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", blocks));
    }
    all
}
