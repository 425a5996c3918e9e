//! The catalog in effect: one writes it, many read it, and some wait for the next.

use std::sync::Arc;

use tokio::sync::watch;

use super::Catalog;

/// The catalog in effect, for readers. A clone is another view of the same.
#[derive(Clone, Debug)]
pub struct Current(watch::Receiver<Arc<Catalog>>);

/// The one right to put another catalog into effect.
#[derive(Debug)]
pub struct CurrentWriter(watch::Sender<Arc<Catalog>>);

impl Current {
    /// Begins with this one.
    pub fn new(first: Catalog) -> (CurrentWriter, Self) {
        let (writer, readers) = watch::channel(Arc::new(first));
        (CurrentWriter(writer), Self(readers))
    }

    /// The one of now.
    pub fn load(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for one of which `done` holds, beginning with that of now. Never returns
    /// once there is no writer any more.
    pub async fn wait_for(&self, mut done: impl FnMut(&Arc<Catalog>) -> bool) {
        let mut readers = self.0.clone();
        if readers.wait_for(|catalog| done(catalog)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl CurrentWriter {
    /// Puts a catalog into effect for readers.
    pub fn set(&self, catalog: Arc<Catalog>) {
        self.0.send_replace(catalog);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_sees_the_newest_and_is_woken_by_the_one_it_waits_for() {
        let (writer, current) = Current::new(Catalog::default());
        let begun = current.load();
        let next = Arc::new(Catalog::default());
        let mut seen = 0;
        let is_next = |catalog: &Arc<Catalog>| {
            seen += 1;
            !Arc::ptr_eq(catalog, &begun)
        };
        tokio::join!(current.wait_for(is_next), async {
            writer.set(Arc::clone(&next));
        });
        assert_eq!(seen, 2, "that of now, and the next");
        assert!(Arc::ptr_eq(&current.load(), &next));
    }
}
