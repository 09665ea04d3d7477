//! Opening a place where threads are kept.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use dwell_messages::Role;

use super::{ThreadError, Threads};
use crate::metadata_store::worker::StoreHandle;
use crate::metadata_store::{MemoryStore, MetadataStore};
use crate::runtime::Runtime;
use crate::telemetry::{Collector, CollectorOptions, FileSink, SpanSink};

/// Sets up a place where threads are kept.
pub struct ThreadsBuilder {
    dir: PathBuf,
    store: Option<Box<dyn MetadataStore>>,
    path: Option<PathBuf>,
    traces: Option<PathBuf>,
    sinks: Vec<Box<dyn SpanSink>>,
    here: bool,
}

impl fmt::Debug for ThreadsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadsBuilder")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl ThreadsBuilder {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            store: None,
            path: None,
            traces: None,
            sinks: Vec::new(),
            here: false,
        }
    }

    /// Keeps the metadata in this SQLite file (feature `store`). Default: in memory, so that only history is kept.
    #[must_use]
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Keeps the metadata in a store of the caller's.
    #[must_use]
    pub fn metadata_store(mut self, store: impl MetadataStore + 'static) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Writes traces into this directory.
    #[must_use]
    pub fn traces(mut self, dir: impl Into<PathBuf>) -> Self {
        self.traces = Some(dir.into());
        self
    }

    /// Another place for spans to go.
    #[must_use]
    pub fn sink(mut self, sink: impl SpanSink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Puts the threads' actors on the actix arbiter that `open` is called on, instead of on a thread of the library's
    /// own: a caller there crosses no thread on the way to them and back.
    #[must_use]
    pub fn here(mut self) -> Self {
        self.here = true;
        self
    }

    /// Opens it. Blocks on the disk.
    ///
    /// # Errors
    /// `ThreadError::Store` when the store cannot be opened; else what of this machine could not be had.
    pub fn open(self) -> Result<Threads, ThreadError> {
        let local = |what| {
            move |source: std::io::Error| ThreadError::Local {
                what,
                source: Arc::new(source),
            }
        };
        let mut sinks = self.sinks;
        if let Some(dir) = &self.traces {
            let sink = FileSink::open(dir, Role::Harness).map_err(|error| {
                local("the trace file could not be opened; check its directory")(std::io::Error::other(error))
            })?;
            sinks.push(Box::new(sink));
        }
        let collector = Collector::start(CollectorOptions {
            role: Role::Harness,
            keep_recent: false,
            sinks,
        })
        .map_err(local(
            "the collector's thread could not be started; raise the thread limit",
        ))?;
        let store = match (self.store, &self.path) {
            (Some(store), _) => store,
            (None, path) => open_store(path.as_deref())?,
        };
        let runtime = if self.here {
            Runtime::here(collector.clone()).ok_or_else(|| {
                local("`here` needs an actix arbiter on this thread: call `open` within `dwell::block_on`")(
                    std::io::ErrorKind::Unsupported.into(),
                )
            })?
        } else {
            Runtime::start(1, collector.clone()).map_err(|error| {
                local("the actors' thread could not be started; raise the thread limit")(
                    std::io::Error::other(error),
                )
            })?
        };
        let store = StoreHandle::start(store, collector.clone()).map_err(local(
            "the store's thread could not be started; raise the thread limit",
        ))?;
        Threads::on(self.dir, store, collector, runtime)
    }
}

fn open_store(path: Option<&std::path::Path>) -> Result<Box<dyn MetadataStore>, ThreadError> {
    match path {
        #[cfg(feature = "store")]
        Some(path) => crate::metadata_store::SqliteStore::open(path)
            .map(|store| Box::new(store) as Box<dyn MetadataStore>)
            .map_err(|error| ThreadError::Store(Arc::new(error))),
        #[cfg(not(feature = "store"))]
        Some(_) => Err(ThreadError::Local {
            what: "keeping threads in a file needs the feature `store`",
            source: Arc::new(std::io::ErrorKind::Unsupported.into()),
        }),
        None => Ok(Box::new(MemoryStore::new())),
    }
}
