//! A process that keeps a thread and says what was acknowledged, for tests that end it or its disk; and what must hold
//! afterwards.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use dwell_actors::fault_point::{self, FaultPoint};
use dwell_actors::metadata_store::{SqliteStore, ThreadId};
use dwell_actors::threads::{Item, ItemKind, NewThread, Thread, ThreadError, Threads};
use rustix::process::{Signal, getpid, kill_process};

const DIR: &str = "DWELL_KEEP_DIR";
const ID: &str = "DWELL_KEEP_ID";
const POINT: &str = "DWELL_KEEP_POINT";
const COUNT: &str = "DWELL_KEEP_COUNT";
const MODE: &str = "DWELL_KEEP_MODE";
/// Flushes that one item may need before the process gives it up.
const TRIES_MAX: usize = 6;

/// How the process keeps its promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// As everybody.
    Honest,
    /// Acknowledges before it flushes: a control.
    Early,
    /// With `synchronous = OFF`: a control.
    Undurable,
}

/// Every place at which the process may be ended: those of the library, and its own.
pub(crate) const POINTS: [&str; 13] = [
    "Opened",
    "BeforeEnqueue",
    "AfterEnqueue",
    "Accepted",
    "BeforeWrite",
    "AfterWrite",
    "BeforeSync",
    "AfterSync",
    "Prepared",
    "BeforeCommit",
    "AfterCommit",
    "BeforeAck",
    "AfterAck",
];

/// Where a thread is kept.
pub(crate) fn threads_dir(dir: &Path) -> PathBuf {
    dir.join("threads")
}

pub(crate) fn database(dir: &Path) -> PathBuf {
    dir.join("runs.db")
}

/// The command that plays the process, which keeps `count` items of the thread in `dir`.
pub(crate) fn command(dir: &Path, id: ThreadId, mode: Mode, count: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "keeping::keeper",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .env(ID, id.to_string())
        .env(MODE, format!("{mode:?}"))
        .env(COUNT, count.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// The same with a thread that it makes itself, in a place where there is nothing yet: `Acks::made` says which.
pub(crate) fn making(dir: &Path, count: u64) -> Command {
    let mut command = command(dir, ThreadId::default(), Mode::Honest, count);
    command.env_remove(ID);
    command
}

/// The same, ended by SIGKILL when it passes a place the n-th time.
pub(crate) fn killed_at(mut command: Command, point: &str, nth: u64) -> Command {
    command.env(POINT, format!("{point}:{nth}"));
    command
}

/// What the process says, as it comes: how many items are acknowledged.
pub(crate) struct Acks(BufReader<ChildStdout>);

impl Acks {
    pub(crate) fn of(child: &mut Child) -> Self {
        Self(BufReader::new(child.stdout.take().unwrap()))
    }

    /// Which thread the process has made.
    pub(crate) fn made(&mut self) -> ThreadId {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "it has made none");
            if let Some((_, id)) = line.trim_end().rsplit_once("made ") {
                return id.parse().unwrap();
            }
        }
    }
}

impl Iterator for Acks {
    type Item = u64;

    /// Other lines are the test harness's, and what failed. A line that was cut short by a death says nothing.
    fn next(&mut self) -> Option<u64> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            let said = line.strip_suffix('\n').and_then(|line| line.rsplit_once("ack "));
            if let Some(count) = said.and_then(|(_, count)| count.parse().ok()) {
                return Some(count);
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Makes a thread with one item in `dir`.
pub(crate) fn begin(dir: &Path) -> ThreadId {
    runtime().block_on(async {
        let threads = Threads::builder(threads_dir(dir))
            .store(database(dir))
            .open()
            .unwrap();
        let thread = threads.create(NewThread::default()).await.unwrap();
        thread.append_and_flush(numbered(0)).await.unwrap();
        thread.shutdown().await.unwrap();
        thread.id()
    })
}

/// An error and what it comes from: what an operator would be shown.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What must hold of a thread of which `acked` items are acknowledged, whatever has happened. Its items.
pub(crate) fn verify(dir: &Path, id: ThreadId, acked: u64) -> Result<u64, String> {
    runtime().block_on(async {
        let open = Threads::builder(threads_dir(dir)).store(database(dir)).open();
        let threads = open.map_err(|error| format!("the store does not open: {}", with_causes(&error)))?;
        let record = threads.get(id).await.map_err(|error| with_causes(&error))?;
        let record = record.ok_or("the thread's record is gone")?;
        // A process that died has its thread followed, and the torn end of its history repaired.
        let thread = threads
            .resume(id)
            .await
            .map_err(|error| format!("it does not open: {}", with_causes(&error)))?;
        let mut items = 0;
        for item in threads.history(id).map_err(|error| with_causes(&error))? {
            let item = item.map_err(|error| with_causes(&error))?;
            let number = String::from_utf8_lossy(&item.body);
            let number = number.split(' ').next().and_then(|number| number.parse().ok());
            if number != Some(items) {
                return Err(format!("item {items} of the history is {number:?}"));
            }
            items += 1;
        }
        if items < acked {
            return Err(format!(
                "{acked} items were acknowledged and the history has {items}"
            ));
        }
        if record.items < acked {
            return Err(format!(
                "{acked} items were acknowledged and the record covers {}",
                record.items
            ));
        }
        if record.items > items {
            return Err(format!(
                "the record covers {} items and there are {items}",
                record.items
            ));
        }
        if record.turns != record.items {
            return Err(format!(
                "half applied: {} turns in {} items",
                record.turns, record.items
            ));
        }
        thread.shutdown().await.map_err(|error| with_causes(&error))?;
        Ok(items)
    })
}

/// Every item is a turn, so that the record's turns must equal the items it covers.
fn numbered(number: u64) -> Item {
    let filler = "x".repeat(usize::try_from(number * 37 % 700).unwrap());
    Item::now(ItemKind::TurnStarted, format!("{number} {filler}"))
}

static TARGET: OnceLock<(String, AtomicU64)> = OnceLock::new();

/// Ends this process if this is the place and the time.
fn reach(point: &str) {
    let Some((target, left)) = TARGET.get() else {
        return;
    };
    if target == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
        kill_process(getpid(), Signal::KILL).unwrap();
        loop {
            std::thread::park();
        }
    }
}

fn reach_library(point: FaultPoint) {
    reach(&format!("{point:?}"));
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush())
        .unwrap();
}

#[test]
#[ignore = "the process that other tests end"]
fn keeper() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let text = |name: &str| std::env::var(name).unwrap();
    if let Ok(point) = std::env::var(POINT) {
        let (point, nth) = point.split_once(':').unwrap();
        TARGET
            .set((point.to_owned(), AtomicU64::new(nth.parse().unwrap())))
            .unwrap();
        fault_point::set(reach_library);
    }
    let mode = match text(MODE).as_str() {
        "Honest" => Mode::Honest,
        "Early" => Mode::Early,
        "Undurable" => Mode::Undurable,
        other => panic!("{other}"),
    };
    if let Err(error) = runtime().block_on(keep(
        &dir,
        std::env::var(ID).ok().map(|id| id.parse().unwrap()),
        mode,
        text(COUNT).parse().unwrap(),
    )) {
        say(&format!("failed: {error}"));
    }
}

/// Without an id with a thread of its own.
async fn keep(dir: &Path, id: Option<ThreadId>, mode: Mode, count: u64) -> Result<(), ThreadError> {
    let builder = Threads::builder(threads_dir(dir));
    let builder = match mode {
        Mode::Honest | Mode::Early => builder.store(database(dir)),
        Mode::Undurable => {
            builder.metadata_store(SqliteStore::open_without_durability(&database(dir)).unwrap())
        }
    };
    let threads = builder.open()?;
    let thread = match id {
        Some(id) => threads.resume(id).await?,
        None => threads.create(NewThread::default()).await?,
    };
    if id.is_none() {
        say(&format!("made {}", thread.id()));
    }
    let mut next = threads.history(thread.id())?.count() as u64;
    let end = next.saturating_add(count);
    while next < end {
        reach("BeforeEnqueue");
        thread.append(numbered(next)).await?;
        reach("AfterEnqueue");
        next += 1;
        if next.is_multiple_of(2) {
            acknowledge(&thread, mode, next).await?;
            // With nothing pending: it must not be acknowledged for less.
            acknowledge(&thread, mode, next).await?;
        }
    }
    thread.shutdown().await
}

async fn acknowledge(thread: &Thread, mode: Mode, items: u64) -> Result<(), ThreadError> {
    if mode == Mode::Early {
        say(&format!("ack {items}"));
    }
    let mut outcome = thread.flush().await;
    for _ in 0..TRIES_MAX {
        let Err(error) = &outcome else { break };
        say(&format!("not yet: {error}"));
        outcome = thread.flush().await;
    }
    outcome?;
    reach("BeforeAck");
    say(&format!("ack {items}"));
    reach("AfterAck");
    Ok(())
}

/// Waits for a process, and is told whether it ended by itself and well.
pub(crate) fn ended_well(mut child: Child) -> bool {
    child.wait().unwrap().success()
}

/// The files of a thread that a promise rests on.
#[cfg(feature = "system-tests")]
pub(crate) fn files(dir: &Path, id: ThreadId) -> [PathBuf; 3] {
    let database = database(dir);
    let wal = PathBuf::from(format!("{}-wal", database.display()));
    [
        dwell_actors::threads::log_path(&threads_dir(dir), id),
        wal,
        database,
    ]
}
