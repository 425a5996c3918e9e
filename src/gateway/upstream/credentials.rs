//! Headers that an external server is told beside each request: its key, and further ones.
//!
//! Owns the values, read again when their files change; where that fails, the last good
//! one stays. Most servers want a bearer token and nothing more, so that this is kept
//! apart from what the others are told.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::config::{ApiKeySource, HeaderSource, SecretUse, Upstream};

/// Headers that one server is told.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The key, where it goes as bearer token and is all; one writer, under `read`.
    bearer: ArcSwapOption<HeaderValue>,
    /// All that is told, where that is more; one writer, under `read`.
    headers: ArcSwap<Vec<(HeaderName, HeaderValue)>>,
    /// Values that were read last. Held while they are read.
    read: Mutex<Vec<Item>>,
}

/// One header, and where its value is from.
#[derive(Clone, Debug)]
struct Item {
    name: HeaderName,
    form: Form,
    source: HeaderSource,
    /// Of the file, when it was read.
    stamp: Option<Stamp>,
    value: Option<HeaderValue>,
}

/// Form in which a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As bearer token.
    Bearer,
    /// The key, as it is.
    Key,
    /// A further header.
    Header,
}

/// Mark by which a change of a file is seen: time of change, and size.
type Stamp = (std::time::SystemTime, u64);

/// True if a server is told more than a bearer token.
pub(super) fn is_more(upstream: &Upstream) -> bool {
    upstream.api_key_header.is_some() || !upstream.headers.is_empty()
}

impl Credentials {
    /// The key as bearer token; `None` for a server that is told more.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        self.bearer.load().as_deref().cloned()
    }

    /// All that a server is told that is told more.
    pub(super) fn headers(&self) -> Arc<Vec<(HeaderName, HeaderValue)>> {
        self.headers.load_full()
    }

    /// Reads what an upstream is to be told, as far as it names another source or a file
    /// has changed. Blocks on the disk.
    pub fn renew(&self, upstream: &Upstream) {
        let item = |name: &HeaderName, form, source| Item {
            name: name.clone(),
            form,
            source,
            stamp: None,
            value: None,
        };
        let mut wanted = Vec::new();
        if let Some(key) = &upstream.api_key {
            let source = HeaderSource::Secret(key.clone());
            wanted.push(match &upstream.api_key_header {
                Some(name) => item(name, Form::Key, source),
                None => item(&AUTHORIZATION, Form::Bearer, source),
            });
        }
        let headers = upstream.headers.iter();
        wanted.extend(headers.map(|h| item(&h.name, Form::Header, h.value.clone())));
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *read, wanted);
        for item in read.iter_mut() {
            item.renew(before.iter().find(|old| old.name == item.name));
        }
        self.publish(&read, is_more(upstream));
    }

    /// Reads again what stands in files that have changed. Blocks on the disk.
    pub fn refresh(&self) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut has_changed = false;
        for item in read.iter_mut() {
            if item.source.stamp() != item.stamp {
                let old = item.clone();
                item.renew(Some(&old));
                has_changed = true;
            }
        }
        if has_changed {
            let is_more = !matches!(read.as_slice(), [only] if only.form == Form::Bearer);
            self.publish(&read, is_more);
        }
    }

    fn publish(&self, read: &[Item], is_more: bool) {
        let pair = |item: &Item| Some((item.name.clone(), item.value.clone()?));
        let all: Vec<_> = read.iter().filter_map(pair).collect();
        if is_more {
            self.bearer.store(None);
            self.headers.store(Arc::new(all));
        } else {
            let key = all.into_iter().next().map(|(_, value)| Arc::new(value));
            self.bearer.store(key);
            self.headers.store(Arc::default());
        }
    }
}

impl Item {
    /// Reads the value, if it is not the one that was read before; where that fails, the
    /// last good one stays.
    fn renew(&mut self, before: Option<&Self>) {
        self.stamp = self.source.stamp();
        let same_form = before.filter(|old| old.form == self.form);
        if let Some(old) = same_form
            && old.source == self.source
            && old.stamp == self.stamp
        {
            self.value.clone_from(&old.value);
            return;
        }
        match self.read() {
            Ok(value) => self.value = Some(value),
            Err(error) => {
                self.value = same_form.and_then(|old| old.value.clone());
                let then = match (&self.value, self.form) {
                    (Some(_), _) => "what was read before stays in use",
                    (None, Form::Header) => "requests go without this header until it is there",
                    (None, _) => "requests go without a key until it is there",
                };
                tracing::error!("{error}; {then}");
            }
        }
    }

    /// Reads the value; else says why there is none.
    fn read(&self) -> Result<HeaderValue, String> {
        let source = match &self.source {
            HeaderSource::Plain(value) => return Ok(value.clone()),
            HeaderSource::Secret(source) => source,
        };
        let used = match self.form {
            Form::Bearer | Form::Key => SecretUse::Key,
            Form::Header => SecretUse::Header,
        };
        let secret = source.read(used).map_err(|error| error.to_string())?;
        if self.form == Form::Bearer {
            return Ok(bearer(secret.expose()));
        }
        // What was read has printable characters only.
        let value = HeaderValue::from_str(secret.expose());
        let mut value = value.map_err(|_| format!("{}: its value can't be sent", self.name))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl HeaderSource {
    /// Mark by which a change of its file is seen; `None` where it has none.
    fn stamp(&self) -> Option<Stamp> {
        let Self::Secret(ApiKeySource::File(path)) = self else {
            return None;
        };
        let seen = std::fs::metadata(path).ok()?;
        Some((seen.modified().ok()?, seen.len()))
    }
}

/// A key as bearer token.
pub(super) fn bearer(key: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_catalog;

    /// The upstream of a route file with these lines.
    fn upstream(dir: &Path, lines: &str) -> Arc<Upstream> {
        let text = format!("[route]\nname = \"r\"\n[[upstream]]\nurl = \"http://a\"\n{lines}\n");
        std::fs::write(dir.join("r.toml"), text).unwrap();
        let catalog = load_catalog(dir, &crate::config::Settings::default().queues, None);
        assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);
        Arc::clone(&catalog.routes[0].upstreams[0])
    }

    fn told(told: &Credentials) -> Vec<String> {
        let pair = |(name, value): &(HeaderName, HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        told.headers().iter().map(pair).collect()
    }

    #[test]
    fn a_key_is_read_again_when_its_file_changes_and_kept_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = Credentials::default();
        key.renew(&upstream(dir.path(), "api_key_file = \"key\""));
        assert_eq!(key.bearer(), None);
        std::fs::write(&path, "one\n").unwrap();
        key.refresh();
        assert_eq!(key.bearer().unwrap(), "Bearer one");
        std::fs::write(&path, "other\n").unwrap();
        key.refresh();
        assert_eq!(key.bearer().unwrap(), "Bearer other");
        for bad in ["", "two words\n"] {
            std::fs::write(&path, bad).unwrap();
            key.refresh();
            assert_eq!(key.bearer().unwrap(), "Bearer other");
        }
        std::fs::remove_file(&path).unwrap();
        key.refresh();
        assert_eq!(key.bearer().unwrap(), "Bearer other");
        key.renew(&upstream(dir.path(), ""));
        assert_eq!(key.bearer(), None);
    }

    #[test]
    fn further_headers_are_told_with_the_key_in_a_header_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        file("key", "sk-1");
        file("team", "Basic abc\n");
        let lines = "api_key_file = \"key\"\napi_key_header = \"x-api-key\"\nheaders = { anthropic-version = \"2023-06-01\" }\nheaders_file = { x-team-key = \"team\" }";
        let all = Credentials::default();
        all.renew(&upstream(dir.path(), lines));
        let plain = "anthropic-version: 2023-06-01";
        assert_eq!(
            told(&all),
            ["x-api-key: sk-1", plain, "x-team-key: Basic abc"]
        );
        assert_eq!(all.bearer(), None);
        assert!(!format!("{all:?}").contains("sk-1"), "{all:?}");
        file("team", "Basic defg");
        all.refresh();
        assert_eq!(
            told(&all),
            ["x-api-key: sk-1", plain, "x-team-key: Basic defg"]
        );
        // Without one of its files it is told the rest.
        std::fs::remove_file(dir.path().join("team")).unwrap();
        let fresh = Credentials::default();
        fresh.renew(&upstream(dir.path(), lines));
        assert_eq!(told(&fresh), ["x-api-key: sk-1", plain]);
        // Back to a bearer token, which is all then.
        all.renew(&upstream(dir.path(), "api_key_file = \"key\""));
        assert_eq!((told(&all), all.bearer()), (vec![], Some(bearer("sk-1"))));
    }
}
