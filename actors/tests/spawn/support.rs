//! What these tests share.

use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::spawn::{
    Environment, Exit, OutputPipe, READ_CHUNK_MAX_BYTES, Reap, SpawnErrorKind, SpawnOutcome, SpawnRequest,
    Spawned, Spawner, StdinMode,
};
use tokio::sync::oneshot;

/// Longer than anything here takes, shorter than a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

static CENSUS: RwLock<()> = RwLock::new(());

/// Held by a test that starts processes and does not count.
pub(crate) fn not_counting() -> RwLockReadGuard<'static, ()> {
    CENSUS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that counts what this process holds: nobody else runs meanwhile.
pub(crate) fn counting() -> RwLockWriteGuard<'static, ()> {
    CENSUS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test on one thread of its own, as an arbiter would, within bounds.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(PATIENCE, test)
                .await
                .expect("the test ends in time")
        })
}

pub(crate) fn request(argv: &[&str]) -> SpawnRequest {
    SpawnRequest {
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        env: Environment::exact([(b"PATH".to_vec(), PATH.as_bytes().to_vec())]),
        ..SpawnRequest::default()
    }
}

pub(crate) fn shell(script: &str) -> SpawnRequest {
    request(&["sh", "-c", script])
}

pub(crate) fn in_directory(request: SpawnRequest, cwd: &Path) -> SpawnRequest {
    use std::os::unix::ffi::OsStrExt;
    SpawnRequest {
        cwd: Some(cwd.as_os_str().as_bytes().to_vec()),
        ..request
    }
}

pub(crate) fn with_stdin(request: SpawnRequest) -> SpawnRequest {
    SpawnRequest {
        stdin: StdinMode::Piped,
        ..request
    }
}

pub(crate) fn submit_later(spawner: &Spawner, request: SpawnRequest) -> oneshot::Receiver<SpawnOutcome> {
    let (reply, outcome) = oneshot::channel();
    let reply = Box::new(move |outcome| drop(reply.send(outcome)));
    spawner.try_submit(request, reply).unwrap();
    outcome
}

pub(crate) async fn submit(spawner: &Spawner, request: SpawnRequest) -> SpawnOutcome {
    submit_later(spawner, request).await.unwrap()
}

pub(crate) async fn start(spawner: &Spawner, request: SpawnRequest) -> Spawned {
    submit(spawner, request).await.result.unwrap()
}

pub(crate) async fn failure(spawner: &Spawner, request: SpawnRequest) -> SpawnErrorKind {
    submit(spawner, request).await.result.unwrap_err().kind
}

/// What a command left behind.
pub(crate) struct Finished {
    pub(crate) exit: Exit,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Everything of a process: its output, its end, and its grave.
pub(crate) async fn finish(spawned: Spawned) -> Finished {
    let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
    let mut err = OutputPipe::from_fd(spawned.stderr.unwrap()).unwrap();
    let mut watcher = spawned.process.watch().unwrap();
    let (stdout, stderr, exit) = tokio::join!(read_all(&mut out), read_all(&mut err), watcher.wait());
    let Reap::Done(reaped) = spawned.process.reap().unwrap() else {
        panic!("still running")
    };
    let exit = exit.unwrap();
    // What it used grows by some microseconds until it is reaped.
    assert_eq!(exit.status, reaped.status, "looking and reaping see the same end");
    Finished { exit, stdout, stderr }
}

pub(crate) async fn read_all(pipe: &mut OutputPipe) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = read_some(pipe).await {
        all.extend_from_slice(&chunk);
    }
    all
}

pub(crate) async fn read_some(pipe: &mut OutputPipe) -> Option<Bytes> {
    let chunk = pipe.read_chunk(READ_CHUNK_MAX_BYTES).await.unwrap();
    assert!(
        chunk
            .as_ref()
            .is_none_or(|chunk| !chunk.is_empty() && chunk.len() <= READ_CHUNK_MAX_BYTES)
    );
    chunk
}
