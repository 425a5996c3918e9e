//! Links to plots, as they are kept: signed, bounded in number, and ended by their time.
//!
//! The check that a link's maker may still see what it shows is made at each use, in
//! [`super::embed`].

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::error::ApiError;
use super::session::{self, Grant};
use super::view::EmbedView;
use crate::names::Workspace;
use crate::store::records::RecordKind;
use crate::store::{Store, StoreError};

/// Most links.
const LINKS_MAX: usize = 1_000;
/// Plots that are drawn at once; others wait.
const DRAWING_MAX: usize = 2;

/// One link, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Embed {
    pub(super) scope: String,
    pub(super) metrics: Vec<String>,
    pub(super) span: u64,
    pub(super) title: String,
    pub(super) created_by: String,
    /// Rights of the maker; none of a link of before this was kept.
    #[serde(default)]
    pub(super) maker: Option<Grant>,
    pub(super) created: u64,
    pub(super) expires: u64,
    /// Key of the signature.
    pub(super) key: String,
}

impl Embed {
    /// Signature that shows that a link of this id is ours.
    pub(super) fn signature(&self, id: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_bytes());
        let signed = format!(
            "{id} {} {} {}",
            self.expires,
            self.scope,
            self.metrics.join(",")
        );
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
    }

    /// The tenant of the maker.
    pub(super) fn workspace(&self) -> Option<&Workspace> {
        let token = self.maker.as_ref()?.token.as_ref()?;
        Some(&token.workspace)
    }

    /// The link and what it shows, under the address of the dashboard.
    pub(super) fn view(&self, id: &str, base: &str) -> EmbedView {
        let url = format!("{base}/embed/{id}.{}", self.signature(id));
        let title: String = self
            .title
            .chars()
            .filter(|c| !"[]<>\"&'`\\".contains(*c))
            .collect();
        EmbedView {
            id: id.to_owned(),
            scope: self.scope.clone(),
            metrics: self.metrics.clone(),
            span_seconds: self.span,
            title: self.title.clone(),
            created_by: self.created_by.clone(),
            created_by_workspace: self.workspace().map(ToString::to_string),
            created: self.created,
            expires: self.expires,
            svg_url: format!("{url}/plot.svg"),
            html: format!(
                "<iframe src=\"{url}\" width=\"720\" height=\"300\" title=\"{title}\" loading=\"lazy\"></iframe>"
            ),
            markdown: format!("![{title}]({url}/plot.svg)"),
            page_url: url,
        }
    }
}

/// Links by id. Written under the store's own lock, by calls that make or end one.
#[derive(Debug)]
pub(super) struct Embeds {
    store: Store,
    /// Swapped whole; changed by one writer at a time, under `changing`.
    pub(super) all: ArcSwap<Vec<(String, Arc<Embed>)>>,
    changing: Mutex<()>,
    /// Held by calls that read and draw: links are open to the world, and must not
    /// take all processors.
    pub(super) drawing: Arc<Semaphore>,
}

impl Embeds {
    /// The links of the store.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it can't be read.
    pub(super) fn open(store: Store) -> Result<Self, StoreError> {
        let kept = store.records::<Embed>(RecordKind::Embed)?;
        let all = kept.into_iter().map(|(id, embed)| (id, Arc::new(embed)));
        Ok(Self {
            all: ArcSwap::from_pointee(all.collect()),
            store,
            changing: Mutex::default(),
            drawing: Arc::new(Semaphore::new(DRAWING_MAX)),
        })
    }

    /// The link of an id and signature, until it ends, whoever made it.
    pub(super) fn signed(&self, link: &str) -> Option<Arc<Embed>> {
        let (id, signature) = link.split_once('.')?;
        let all = self.all.load();
        let (_, embed) = all.iter().find(|(known, _)| known == id)?;
        let works = embed.expires > self.store.clock().seconds()
            && session::same(&embed.signature(id), signature);
        works.then(|| Arc::clone(embed))
    }

    /// Keeps a link. Blocks on the disk.
    pub(super) fn add(&self, id: String, embed: Embed) -> Result<(), ApiError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.store.clock().seconds();
        let before = self.all.load_full();
        let (kept, ended): (Vec<_>, Vec<_>) = before
            .iter()
            .cloned()
            .partition(|(_, embed)| embed.expires > now);
        if kept.len() >= LINKS_MAX {
            return Err(ApiError::conflict(format!(
                "there are {LINKS_MAX} links already: revoke some that are not used"
            )));
        }
        let ended: Vec<String> = ended.into_iter().map(|(id, _)| id).collect();
        if !ended.is_empty() {
            self.store.remove_records(RecordKind::Embed, &ended)?;
        }
        self.store.put_record(RecordKind::Embed, &id, &embed)?;
        let mut all = kept;
        all.push((id, Arc::new(embed)));
        self.all.store(Arc::new(all));
        Ok(())
    }

    /// Ends a link. Blocks on the disk.
    pub(super) fn remove(&self, id: &str) -> Result<(), StoreError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::clone(&self.all.load());
        all.retain(|(known, _)| known != id);
        self.all.store(Arc::new(all));
        self.store
            .remove_records(RecordKind::Embed, &[id.to_owned()])?;
        Ok(())
    }
}
