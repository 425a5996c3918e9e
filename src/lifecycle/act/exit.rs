//! Cause of a worker's end.

use super::launcher::Exit;
use crate::deployment::Handle;
use crate::lifecycle::decide::why::Why;
use crate::vllm::log::verdict;

/// Lines of the log that a reason quotes.
const QUOTED_LINES: usize = 3;

/// Account of a worker's end, with what its log says about why and what can be done; and
/// true if another try would end the same way.
pub(super) fn why(handle: &Handle, exit: &Exit, lines_from: u64) -> (Why, bool) {
    let (lines, _) = handle.console.since(lines_from);
    let texts = lines.iter().map(AsRef::as_ref);
    let verdict = verdict::of(&exit.how, exit.out_of_memory, texts);
    let mut details: Vec<String> = verdict.words.iter().map(ToString::to_string).collect();
    let last = lines.iter().rev().map(AsRef::as_ref);
    let last = last.filter(|line: &&str| !line.trim().is_empty() && Some(*line) != verdict.line);
    let (begin, last) = match verdict.line {
        Some(line) => (line, last.take(QUOTED_LINES - 1).collect::<Vec<_>>()),
        None => (
            "its log names no error, and ends with",
            last.take(QUOTED_LINES).collect(),
        ),
    };
    if verdict.line.is_some() || !last.is_empty() {
        let last = last.into_iter().rev();
        let quoted: Vec<&str> = std::iter::once(begin).chain(last).collect();
        details.push(quoted.join("\n"));
    }
    let why = Why::Ended {
        how: exit.how.clone(),
        details: (!details.is_empty()).then(|| details.join(": ")),
    };
    (why, verdict.permanent)
}
