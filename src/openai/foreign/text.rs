//! Bodies of errors that are no JSON, or not whole.

use memchr::memmem;

use super::MESSAGE_BYTES_MAX;

/// Longest text of a page of HTML, in bytes: it is written for people who look at it.
const PAGE_BYTES_MAX: usize = 1024;

/// Longest title that is looked for twice, in words.
const TITLE_WORDS_MAX: usize = 16;

/// A text, cut at a character where it is too long, and without control characters that
/// terminals obey.
pub(super) fn bounded(text: &str) -> String {
    within(text, MESSAGE_BYTES_MAX)
}

fn within(text: &str, max: usize) -> String {
    const MORE: &str = "…";
    let is_kept = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut kept = String::new();
    for c in text.chars().filter(is_kept) {
        if kept.len() + c.len_utf8() + MORE.len() > max {
            kept.push_str(MORE);
            break;
        }
        kept.push(c);
    }
    kept
}

/// The data of a body that is one event of a stream.
pub(super) fn of_event(body: &[u8]) -> Option<&[u8]> {
    let is_event = body.starts_with(b"data:") || body.starts_with(b"event:");
    let mut lines = body.split(|byte| *byte == b'\n').filter(|_| is_event);
    lines.find_map(|line| Some(line.strip_prefix(b"data:")?.trim_ascii()))
}

/// The message in JSON that was cut off: by the bound of what is read, or by its server.
pub(super) fn cut_off(body: &[u8]) -> Option<String> {
    if !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return None;
    }
    let behind = |key: &[u8]| {
        let at = memmem::find(body, key)?;
        let rest = body.get(at + key.len()..)?.trim_ascii_start();
        let rest = rest.strip_prefix(b":")?.trim_ascii_start();
        rest.strip_prefix(b"\"")
    };
    let keys = [&b"\"message\""[..], b"\"error\"", b"\"detail\"", b"\"msg\""];
    let rest = keys.iter().find_map(|key| behind(key))?;
    let mut escaped = false;
    let end = rest.iter().position(|byte| {
        let is_end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        is_end
    });
    let length = end.unwrap_or(rest.len()).min(MESSAGE_BYTES_MAX);
    // The cut may have gone through a character or an escape, of at most twelve bytes.
    let text = (0..=12.min(length)).find_map(|less| {
        let part = rest.get(..length - less)?;
        let quoted = [b"\"", part, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).ok()
    })?;
    let is_cut = end.is_none_or(|end| end > length);
    let text = bounded(text.trim());
    (!text.is_empty()).then(|| if is_cut { format!("{text}…") } else { text })
}

/// Text that is no JSON: as it stands, or what a page of HTML shows.
pub(super) fn plain(body: &[u8]) -> Option<String> {
    // Bytes that are no text at all say nothing to anyone.
    if body.contains(&0) {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let text = if text.starts_with('<') {
        within(&shown(text), PAGE_BYTES_MAX)
    } else {
        bounded(text)
    };
    (!text.is_empty()).then_some(text)
}

/// Text that a page shows: without tags, styles, scripts, and without the address of
/// the machine that Apache and others sign it with.
fn shown(page: &str) -> String {
    const HIDDEN: [&str; 5] = ["style", "script", "address", "noscript", "svg"];
    // Of the same length, byte for byte.
    let lower = page.to_ascii_lowercase();
    let mut shown = String::new();
    let mut rest = page;
    while let Some((text, behind)) = rest.split_once('<') {
        shown.push_str(text);
        shown.push(' ');
        if let Some(comment) = behind.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, behind)| behind);
            continue;
        }
        let (tag, behind) = behind.split_once('>').unwrap_or_default();
        let name = tag.split(|c: char| !c.is_ascii_alphanumeric()).next();
        let name = name.unwrap_or_default().to_ascii_lowercase();
        rest = behind;
        if HIDDEN.contains(&name.as_str()) {
            let ahead = lower.get(page.len() - rest.len()..).unwrap_or_default();
            let at = ahead.find(&format!("</{name}")).unwrap_or(rest.len());
            rest = rest.get(at..).unwrap_or_default();
        }
    }
    shown.push_str(rest);
    let mut shown = shown.replace("&nbsp;", " ");
    for (entity, c) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ] {
        shown = shown.replace(entity, c);
    }
    let mut words: Vec<&str> = shown.split_whitespace().collect();
    // The title and the heading are often the same.
    for length in (1..=TITLE_WORDS_MAX.min(words.len() / 2)).rev() {
        if words.get(..length) == words.get(length..2 * length) {
            words.drain(..length);
            break;
        }
    }
    words.join(" ")
}
