//! A file system that counts what it is asked, and stops answering when told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::files::{FileAnswer, FileSystem};
use dwell_actors::turn_diff::{Change, Content, Delta, RenderedDiff, TurnDiff, TurnEnvironment, Update};
use dwell_messages::files::{DirectoryEntry, FileKind, Metadata};
use dwell_messages::{ErrorCode, WireError};
use tokio::sync::watch;

/// Markers, and nothing else.
pub(crate) struct Counting {
    identity: String,
    there: Mutex<BTreeMap<Vec<u8>, FileKind>>,
    /// What is said of everything else.
    absent: ErrorCode,
    asked: AtomicU64,
    open: watch::Sender<bool>,
}

impl Counting {
    pub(crate) fn with(markers: &[(&str, FileKind)]) -> Arc<Self> {
        Self::named("dev", markers, ErrorCode::NotFound)
    }

    pub(crate) fn named(identity: &str, markers: &[(&str, FileKind)], absent: ErrorCode) -> Arc<Self> {
        let markers = markers
            .iter()
            .map(|(path, kind)| (path.as_bytes().to_vec(), *kind));
        Arc::new(Self {
            identity: identity.into(),
            there: Mutex::new(markers.collect()),
            absent,
            asked: AtomicU64::new(0),
            open: watch::Sender::new(true),
        })
    }

    /// Probes that were made.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn put(&self, path: &str, kind: FileKind) {
        self.there.lock().unwrap().insert(path.into(), kind);
    }

    /// Holds every answer back from now on, or lets them go.
    pub(crate) fn answers(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl FileSystem for Counting {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
            let kind = self.there.lock().unwrap().get(path).copied();
            let kind = kind.ok_or_else(|| WireError::new(self.absent, "none"))?;
            Ok(Metadata {
                kind,
                size: 0,
                mode: 0o755,
                modified_unix_ns: 0,
                device: 1,
                inode: 1,
            })
        })
    }

    fn read<'a>(&'a self, _: &'a [u8], _: u64) -> FileAnswer<'a, Bytes> {
        unreachable!("contents come with the deltas")
    }

    fn list<'a>(&'a self, _: &'a [u8], _: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        unreachable!("nothing is listed")
    }
}

/// A turn in one environment `dev`.
pub(crate) fn turn(cwd: &str, files: &Arc<Counting>) -> TurnDiff {
    TurnDiff::new([environment("dev", cwd, files)])
}

pub(crate) fn environment(id: &str, cwd: &str, files: &Arc<Counting>) -> TurnEnvironment {
    TurnEnvironment::new(id, cwd, Arc::clone(files) as Arc<dyn FileSystem>)
}

pub(crate) fn text(content: &str) -> Content {
    Content::text(content.to_owned())
}

/// One line becomes another.
pub(crate) fn edit(path: &str) -> Change {
    Change::update(path, text("old\n"), text("new\n"))
}

pub(crate) fn delta(changes: impl IntoIterator<Item = Change>) -> Delta {
    Delta::exact("dev", changes)
}

pub(crate) fn shown(update: Update) -> RenderedDiff {
    match update {
        Update::Shown(shown) => shown,
        other => panic!("a diff, not {other:?}"),
    }
}

/// The text of a diff that is shown.
pub(crate) fn read(update: Update) -> String {
    String::from_utf8(shown(update).to_bytes()).unwrap()
}

/// The first line of each file's part.
pub(crate) fn headers(update: Update) -> Vec<String> {
    let text = read(update);
    let headers = text.lines().filter(|line| line.starts_with("diff --git "));
    headers.map(str::to_owned).collect()
}

/// Waits, but not for ever.
pub(crate) async fn bounded<F: IntoFuture>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what.into_future())
        .await
        .expect("nothing waits for ever")
}
