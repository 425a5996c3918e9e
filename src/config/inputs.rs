//! `media` and `chat_template` of a route: what its requests may bring along.

use super::Author;
use super::problems::Problems;
use super::reader::{Found, Reader};
use crate::openai::media::Inputs;
use crate::outbound::dial::media::Media;
use crate::outbound::dial::public::Host;

/// Most hosts that media may come from.
const HOSTS_MAX: usize = 256;

/// Reads both keys.
pub(super) fn read(table: &mut Reader<'_>) -> Found<Inputs> {
    let mut line = table.line;
    let mut inputs = Inputs::default();
    if let Some(found) = media(table) {
        (inputs.media, line) = (found.value, found.line);
    }
    if let Some(found) = table.flag("chat_template").filter(|found| found.value) {
        (inputs.chat_template, line) = (true, found.line);
    }
    Found {
        value: inputs,
        line,
    }
}

fn media(table: &mut Reader<'_>) -> Option<Found<Media>> {
    let Some(count) = table.list_len("media") else {
        let words = [
            ("public", Media::Public),
            ("any", Media::Any),
            ("data", Media::Data),
            ("none", Media::None),
        ];
        return table.choice("media", &words);
    };
    let hosts = table.parsed_list::<Host>("media")?;
    if !(1..=HOSTS_MAX).contains(&count) {
        let message = format!(
            "write 1 to {HOSTS_MAX} hosts, as [\"images.example.org\"], or \"data\" for media within requests only, or \"none\""
        );
        table.wrong(hosts.line, "media", message);
    }
    Some(Found {
        value: Media::Hosts(hosts.value),
        line: hosts.line,
    })
}

/// An operator may narrow what requests bring along, and not widen it: engines fetch from
/// where only this machine reaches.
pub(super) fn check_author(inputs: &Found<Inputs>, author: &Author, problems: &Problems) {
    if matches!(author, Author::Operator(_)) && inputs.value.widens() {
        let (key, message) = if inputs.value.chat_template {
            (
                "route.chat_template",
                "this is for admins: an operator wrote this file",
            )
        } else {
            (
                "route.media",
                "this is for admins, as an operator wrote this file: write \"public\", \"data\", \"none\", or hosts of the public internet",
            )
        };
        problems.add(inputs.line, key, message);
    }
}
