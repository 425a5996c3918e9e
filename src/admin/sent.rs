//! Memory of answers that pages asked for: for each tag the hashes of its
//! rows, never the rows, so that the next answer tells only what is new.
//!
//! A duration goes up by itself and is no news: the page counts it on.
//! Bounded in answers and rows; a forgotten answer is told whole again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use serde_json::{Value as Json, json};

use super::session::random;

/// Keys of numbers that go up by a second each second, which the page counts on itself.
const COUNTED_ON: [&str; 3] = ["idle_seconds", "now", "uptime_seconds"];
/// Most by which such a number may be off and is no news, in seconds.
const OFF_MAX: i64 = 2;
/// Answers that are remembered; the oldest is forgotten.
const ANSWERS_MAX: usize = 200;
/// Rows of them together.
const ROWS_MAX: usize = 100_000;
/// Answers that were sent, as hashes.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The oldest first. Locked for a look-up.
    answers: Mutex<VecDeque<Arc<Answer>>>,
}

/// An answer that was sent.
#[derive(Debug)]
struct Answer {
    tag: String,
    /// Hash of the caller and of the request.
    of: u64,
    is_list: bool,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    /// Hash of all but the durations.
    hash: u64,
    /// Starts of the durations, in seconds, in the order in which they stand in the row.
    since: Vec<i64>,
}

impl Row {
    fn of(value: &Json, now: i64) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut since = Vec::new();
        walk(value, now, &mut hasher, &mut since);
        let hash = hasher.finish();
        Self { hash, since }
    }

    fn is_as(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.since.len() == other.since.len()
            && self
                .since
                .iter()
                .zip(&other.since)
                .all(|(a, b)| (a - b).abs() <= OFF_MAX)
    }
}

fn walk(value: &Json, now: i64, hasher: &mut DefaultHasher, since: &mut Vec<i64>) {
    match value {
        Json::Object(entries) => {
            for (key, value) in entries {
                key.hash(hasher);
                match value.as_i64() {
                    Some(seconds) if key == "now" => since.push(seconds - now),
                    Some(seconds) if COUNTED_ON.contains(&key.as_str()) => {
                        since.push(now - seconds);
                    }
                    _ => walk(value, now, hasher, since),
                }
            }
        }
        Json::Array(list) => {
            list.len().hash(hasher);
            for each in list {
                walk(each, now, hasher, since);
            }
        }
        _ => value.hash(hasher),
    }
}

impl Sent {
    fn find(&self, tag: &str, of: u64) -> Option<Arc<Answer>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = answers.iter().find(|a| a.tag == tag && a.of == of);
        found.cloned()
    }

    fn keep(&self, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push_back(Arc::new(answer));
        let held = |answers: &VecDeque<Arc<Answer>>| -> usize {
            answers.iter().map(|answer| answer.rows.len()).sum()
        };
        while answers.len() > ANSWERS_MAX || held(&answers) > ROWS_MAX {
            drop(answers.pop_front());
        }
    }

    /// News in an answer since that of a tag, and its own tag.
    pub(super) fn news(
        &self,
        body: &Bytes,
        since: Option<&str>,
        of: u64,
        now: i64,
    ) -> Option<News> {
        let value: Json = serde_json::from_slice(body).ok()?;
        let list = value.as_array();
        let rows: Vec<Row> = match list {
            Some(list) => list.iter().map(|row| Row::of(row, now)).collect(),
            None => vec![Row::of(&value, now)],
        };
        let base = since.and_then(|tag| self.find(tag, of));
        let base = base.filter(|base| base.is_list == list.is_some());
        let told = base.as_ref().map_or(Told::All, |base| {
            let changed = |(place, row): &(usize, &Row)| {
                let known = base.rows.get(*place);
                known.is_none_or(|known| !known.is_as(row))
            };
            let changed: Vec<usize> = rows
                .iter()
                .enumerate()
                .filter(changed)
                .map(|(place, _)| place)
                .collect();
            if changed.is_empty() && rows.len() == base.rows.len() {
                return Told::Nothing;
            }
            let Some(list) = list.filter(|list| changed.len() * 2 <= list.len()) else {
                return Told::All;
            };
            let rows: Json = changed
                .into_iter()
                .map(|place| json!([place, list.get(place)]))
                .collect();
            Told::Rows(json!({ "rows": rows, "of": list.len() }).to_string())
        });
        if let (Told::Nothing, Some(base)) = (&told, base) {
            let tag = base.tag.clone();
            return Some(News { tag, told });
        }
        let tag: String = random().ok()?.chars().take(22).collect();
        self.keep(Answer {
            tag: tag.clone(),
            of,
            is_list: list.is_some(),
            rows,
        });
        Some(News { tag, told })
    }
}

/// News in an answer, and its tag.
pub(super) struct News {
    /// The answer's own.
    pub(super) tag: String,
    /// The news.
    pub(super) told: Told,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// All is as it was.
    Nothing,
    /// Rows by their places, as JSON.
    Rows(String),
    /// All of it.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[(&str, u64, u64)]) -> Bytes {
        let rows = list.iter().map(|(name, idle, inside)| {
            json!({ "name": name, "idle_seconds": idle, "deployments": [{ "in_flight": inside, "idle_seconds": idle }] })
        });
        rows.collect::<Json>().to_string().into()
    }

    fn news(sent: &Sent, body: &Bytes, since: Option<&str>, now: i64) -> (String, Told) {
        let news = sent.news(body, since, 1, now).unwrap();
        (news.tag, news.told)
    }

    #[test]
    fn what_only_counts_on_is_no_news() {
        let sent = Sent::default();
        let (tag, told) = news(&sent, &rows(&[("a", 5, 0), ("b", 9, 0)]), None, 100);
        assert_eq!(told, Told::All);
        let later = rows(&[("a", 65, 0), ("b", 69, 0)]);
        assert_eq!(
            news(&sent, &later, Some(&tag), 160),
            (tag.clone(), Told::Nothing)
        );
        // Used in between, and not one request more is inside now.
        let used = rows(&[("a", 3, 0), ("b", 129, 0)]);
        let (next, told) = news(&sent, &used, Some(&tag), 220);
        let Told::Rows(text) = told else {
            panic!("{told:?}")
        };
        let value: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(value["of"], 2);
        assert_eq!(
            (&value["rows"][0][0], &value["rows"][0][1]["name"]),
            (&json!(0), &json!("a"))
        );
        assert_eq!(value["rows"].as_array().unwrap().len(), 1);
        assert_eq!(news(&sent, &used, Some(&next), 220).1, Told::Nothing);
    }

    #[test]
    fn rows_that_come_and_go_are_told() {
        let sent = Sent::default();
        let three = rows(&[("a", 0, 0), ("b", 0, 0), ("c", 0, 0)]);
        let (tag, _) = news(&sent, &three, None, 0);
        let two = rows(&[("a", 0, 0), ("b", 0, 0)]);
        let (_, told) = news(&sent, &two, Some(&tag), 0);
        assert_eq!(told, Told::Rows(r#"{"of":2,"rows":[]}"#.to_owned()));
        let other = rows(&[("b", 0, 0), ("c", 0, 0)]);
        assert_eq!(news(&sent, &other, Some(&tag), 0).1, Told::All);
        let four = rows(&[("a", 0, 0), ("b", 0, 0), ("c", 0, 0), ("d", 0, 1)]);
        let (_, told) = news(&sent, &four, Some(&tag), 0);
        assert!(matches!(told, Told::Rows(text) if text.contains("[3,{")));
        assert_eq!(
            news(&sent, &rows(&[]), Some(&tag), 0).1,
            Told::Rows(r#"{"of":0,"rows":[]}"#.to_owned())
        );
    }

    #[test]
    fn a_tag_of_someone_else_or_of_another_call_is_worth_nothing() {
        let sent = Sent::default();
        let body = rows(&[("a", 0, 0)]);
        let (tag, _) = news(&sent, &body, None, 0);
        assert_eq!(sent.news(&body, Some(&tag), 2, 0).unwrap().told, Told::All);
        assert_eq!(news(&sent, &body, Some("other"), 0).1, Told::All);
        let one = Bytes::from_static(b"{\"now\":7,\"version\":\"1\"}");
        assert_eq!(news(&sent, &one, Some(&tag), 7).1, Told::All);
        assert!(
            sent.news(&Bytes::from_static(b"no json"), None, 1, 0)
                .is_none()
        );
    }

    #[test]
    fn only_so_much_is_remembered() {
        let sent = Sent::default();
        let body = rows(&[("a", 0, 0)]);
        let (first, _) = news(&sent, &body, None, 0);
        for _ in 0..ANSWERS_MAX {
            news(&sent, &body, None, 0);
        }
        assert_eq!(sent.answers.lock().unwrap().len(), ANSWERS_MAX);
        assert_eq!(news(&sent, &body, Some(&first), 0).1, Told::All);
    }
}
