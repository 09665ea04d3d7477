//! Records made again from history: for a database that was damaged and moved away.

use std::sync::Arc;

use super::{LOG_SUFFIX, ThreadError, Threads, on_a_thread, warn_of_cut};
use crate::event_log::{Item, LogError, LogFile};
use crate::metadata_store::{StoreError, ThreadId, ThreadPatch};
use crate::metadata_writer::Observer;

impl Threads {
    /// Gives every event log that has no record the one that its history implies. How many there were. Titles and what
    /// else was only ever in a record do not come back. A thread that another process has open is passed over.
    ///
    /// # Errors
    /// When the directory cannot be listed, or the store fails. A log that cannot be read is told in the log, and skipped.
    pub async fn rebuild(&self) -> Result<u64, ThreadError> {
        let mut made = 0;
        for id in self.logged()? {
            match self.rebuild_one(id).await {
                Ok(is_new) => made += u64::from(is_new),
                Err(ThreadError::Log(error)) => {
                    tracing::warn!(%error, thread = %id, "a thread's record was not made again");
                }
                Err(ThreadError::Store(error)) if matches!(*error, StoreError::ThreadBusy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    fn logged(&self) -> Result<Vec<ThreadId>, ThreadError> {
        let entries = match std::fs::read_dir(&self.0.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(ThreadError::Log(Arc::new(LogError::Open {
                    path: self.0.dir.clone(),
                    source,
                })));
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let ids = names.filter_map(|name| name.strip_suffix(LOG_SUFFIX)?.strip_suffix('.')?.parse().ok());
        Ok(ids.collect())
    }

    async fn rebuild_one(&self, id: ThreadId) -> Result<bool, ThreadError> {
        if self.get(id).await?.is_some() {
            return Ok(false);
        }
        let claimed = self.claim(id).await?;
        let path = self.log_path(id);
        // With the claim, as when it is resumed.
        let read = on_a_thread(id, move || {
            let mut observer = Observer::default();
            let mut patch = ThreadPatch::default();
            let mut first = None;
            let mut see = |item: &Item| {
                first.get_or_insert(item.at_unix_us);
                patch.merge(observer.observe(std::slice::from_ref(item)));
            };
            let opened = LogFile::open(path, id, 0, 0, &mut see).map(|opened| {
                warn_of_cut(id, &opened);
                patch.created_unix_us = first;
                patch.items = Some(opened.log.items());
                patch.log_bytes = Some(opened.log.durable_bytes());
                patch
            });
            (claimed, opened)
        });
        let (claimed, patch) = read.await?;
        let patch = patch.map_err(|error| ThreadError::Log(Arc::new(error)))?;
        let holder = claimed.holder.clone();
        let update = self
            .0
            .store
            .ask(move |store| store.update_thread(id, &holder, &patch));
        update.await.map(|()| true)
    }
}
