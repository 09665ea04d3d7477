//! What keeping a thread costs, next to the bare files and the bare store doing the same, alternating in one run.
//!
//! `cargo bench -p dwell-actors --bench threads`, or `-- --only NAME` for one of `append`, `batches`, `barrier`, `open`,
//! `log`. Ratios are of medians; absolute figures are this machine's.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use dwell_actors::event_log::{Item, ItemKind, encode_header, encode_record};
use dwell_actors::metadata_store::{
    Holder, MemoryStore, MetadataStore, RunRecord, SqliteStore, StoreError, ThreadId, ThreadPage,
    ThreadPatch, ThreadQuery, ThreadRecord,
};
use dwell_actors::threads::{NewThread, Thread, Threads};
use rusqlite::Connection;
use tempfile::tempdir;

/// How long an update is held.
const HELD: Duration = Duration::from_millis(100);
const BODY_BYTES: usize = 240;
const APPENDS: u64 = 10_000;
const FLUSHES: u64 = 100;

fn main() {
    let only = std::env::args()
        .skip_while(|argument| argument != "--only")
        .nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    println!("| case | measured | ratio | budget |\n|---|---:|---:|---:|");
    if wanted("append") {
        append();
    }
    if wanted("batches") {
        batches();
    }
    if wanted("barrier") {
        barrier();
    }
    if wanted("open") {
        open();
    }
    if wanted("log") {
        log();
    }
}

fn row(case: &str, measured: Duration, ratio: Option<f64>, budget: &str) {
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    println!(
        "| {case} | {:.1} µs | {ratio} | {budget} |",
        measured.as_secs_f64() * 1e6
    );
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ratio(of: Duration, over: Duration) -> Option<f64> {
    Some(of.as_secs_f64() / over.as_secs_f64())
}

/// Of neighbours in time, so that what slows a whole round down is not read as a difference between its cases. Both times
/// are medians of their own.
fn compare(of: &mut [Duration], over: &mut [Duration]) -> (Duration, Duration, Option<f64>) {
    let rounds = of.iter().zip(over.iter());
    let mut ratios: Vec<f64> = rounds
        .map(|(of, over)| of.as_secs_f64() / over.as_secs_f64())
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied();
    (median(of), median(over), middle)
}

fn item(number: u64) -> Item {
    Item {
        kind: ItemKind::TurnStarted,
        at_unix_us: i64::try_from(number).unwrap(),
        body: vec![b'x'; BODY_BYTES],
    }
}

/// A store of which every update takes as long as a slow disk.
struct SlowStore {
    memory: MemoryStore,
    held: Duration,
}

impl MetadataStore for SlowStore {
    fn record_runs(&mut self, batch: &[RunRecord]) -> Result<(), StoreError> {
        self.memory.record_runs(batch)
    }
    fn lease(&mut self, id: ThreadId, holder: &Holder) -> Result<Option<ThreadRecord>, StoreError> {
        self.memory.lease(id, holder)
    }
    fn release(&mut self, id: ThreadId, holder: &Holder) -> Result<(), StoreError> {
        self.memory.release(id, holder)
    }
    fn update_thread(
        &mut self,
        id: ThreadId,
        holder: &Holder,
        patch: &ThreadPatch,
    ) -> Result<(), StoreError> {
        let (never, changed) = (Mutex::new(()), Condvar::new());
        drop(
            changed
                .wait_timeout_while(never.lock().unwrap(), self.held, |()| true)
                .unwrap(),
        );
        self.memory.update_thread(id, holder, patch)
    }
    fn delete_thread(&mut self, id: ThreadId, holder: &Holder) -> Result<bool, StoreError> {
        self.memory.delete_thread(id, holder)
    }
    fn thread(&self, id: ThreadId) -> Result<Option<ThreadRecord>, StoreError> {
        self.memory.thread(id)
    }
    fn threads(&self, query: &ThreadQuery) -> Result<ThreadPage, StoreError> {
        self.memory.threads(query)
    }
    fn recent_runs(&self, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        self.memory.recent_runs(limit)
    }
    fn is_poisoned(&self) -> bool {
        self.memory.is_poisoned()
    }
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.memory.reopen()
    }
}

/// Bursts of appends, each timed on its own, with a pause between the bursts in which the queue empties.
async fn bursts(thread: &Thread, times: &mut Vec<Duration>) {
    for _ in 0..40 {
        for number in 0..32 {
            let item = item(number);
            let begun = Instant::now();
            thread.append(item).await.unwrap();
            times.push(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn append() {
    let run = async |here: bool| {
        let dir = tempdir().unwrap();
        let open = |name: &str, held| {
            let store = SlowStore {
                memory: MemoryStore::new(),
                held,
            };
            let builder = Threads::builder(dir.path().join(name)).metadata_store(store);
            if here { builder.here() } else { builder }.open().unwrap()
        };
        let (idle, slow) = (open("idle", Duration::ZERO), open("slow", HELD));
        let idle = idle.create(NewThread::default()).await.unwrap();
        let slow = slow.create(NewThread::default()).await.unwrap();
        let (mut free, mut blocked) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            bursts(&idle, &mut free).await;
            // An update is under way from the first append on, and another right behind it.
            bursts(&slow, &mut blocked).await;
        }
        (median(&mut free), median(&mut blocked))
    };
    let (free, blocked) = dwell_actors::block_on(run(true));
    row("append accepted, here", free, None, "≤ 10 µs");
    row(
        "the same while updates take 100 ms",
        blocked,
        ratio(blocked, free),
        "≤ 1.2",
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (free, blocked) = runtime.block_on(run(false));
    row("append accepted, from another thread", free, None, "≤ 10 µs");
    row(
        "the same while updates take 100 ms",
        blocked,
        ratio(blocked, free),
        "≤ 1.2",
    );
}

/// The bare files: a log that is written with one call a batch and synced, and one commit behind it.
struct Bare {
    file: File,
    store: SqliteStore,
    holder: Holder,
    id: ThreadId,
    number: u64,
    bytes: u64,
}

impl Bare {
    fn new(dir: &Path) -> Self {
        let id = ThreadId([3; 16]);
        let mut store = SqliteStore::open(&dir.join("bare.db")).unwrap();
        let holder = Holder::of_this_process();
        store.lease(id, &holder).unwrap();
        let mut file = File::create(dir.join("bare.log")).unwrap();
        file.write_all(&encode_header(id)).unwrap();
        Self {
            file,
            store,
            holder,
            id,
            number: 0,
            bytes: 0,
        }
    }

    fn batch(&mut self, items: u64) {
        let mut bytes = Vec::new();
        for _ in 0..items {
            encode_record(&mut bytes, self.number, &item(self.number));
            self.number += 1;
        }
        self.file.write_all(&bytes).unwrap();
        self.file.sync_data().unwrap();
        self.bytes += bytes.len() as u64;
        let patch = ThreadPatch {
            updated_unix_us: Some(i64::try_from(self.number).unwrap()),
            turns: Some(self.number),
            items: Some(self.number),
            log_bytes: Some(self.bytes),
            ..ThreadPatch::default()
        };
        self.store.update_thread(self.id, &self.holder, &patch).unwrap();
    }
}

fn threads(dir: &Path, here: bool) -> Threads {
    let builder = Threads::builder(dir.join("threads")).store(dir.join("threads.db"));
    if here { builder.here() } else { builder }.open().unwrap()
}

fn batches() {
    let run = async |here: bool| {
        let dir = tempdir().unwrap();
        let mut bare = Bare::new(dir.path());
        let threads = threads(dir.path(), here);
        let thread = threads.create(NewThread::default()).await.unwrap();
        let (mut kept, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            let begun = Instant::now();
            for _ in 0..FLUSHES {
                bare.batch(APPENDS / FLUSHES);
            }
            floor.push(begun.elapsed());
            let begun = Instant::now();
            for _ in 0..FLUSHES {
                for number in 0..APPENDS / FLUSHES {
                    thread.append(item(number)).await.unwrap();
                }
                thread.flush().await.unwrap();
            }
            kept.push(begun.elapsed());
        }
        compare(&mut kept, &mut floor)
    };
    let (kept, floor, ratio) = dwell_actors::block_on(run(true));
    row("10,000 appends and 100 flushes, bare", floor, None, "");
    row("the same of a thread, here", kept, ratio, "≤ 1.2");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (kept, _, ratio) = runtime.block_on(run(false));
    row("the same of a thread, from another thread", kept, ratio, "≤ 1.2");
}

fn barrier() {
    let run = async |here: bool| {
        let dir = tempdir().unwrap();
        let mut bare = Bare::new(dir.path());
        let threads = threads(dir.path(), here);
        let thread = threads.create(NewThread::default()).await.unwrap();
        let (mut kept, mut floor) = (Vec::new(), Vec::new());
        for number in 0..400 {
            let begun = Instant::now();
            bare.batch(1);
            floor.push(begun.elapsed());
            let begun = Instant::now();
            thread.append_and_flush(item(number)).await.unwrap();
            kept.push(begun.elapsed());
        }
        compare(&mut kept, &mut floor)
    };
    let (kept, floor, ratio) = dwell_actors::block_on(run(true));
    row(
        "one item written, synced and its record committed, bare",
        floor,
        None,
        "",
    );
    row("append and flush, here", kept, ratio, "≤ 1.3");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (kept, _, ratio) = runtime.block_on(run(false));
    row("append and flush, from another thread", kept, ratio, "≤ 1.3");
}

fn open() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("many.db");
    drop(SqliteStore::open(&path).unwrap());
    let mut connection = Connection::open(&path).unwrap();
    let transaction = connection.transaction().unwrap();
    let insert = "INSERT INTO threads VALUES (?1, ?2, ?2, NULL, ?3, ?4, NULL, NULL, NULL, 'm', 1, 1, 1, 1, 0, NULL, 1, 1)";
    for number in 0..100_000_i64 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(
            &number
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed())
                .to_be_bytes(),
        );
        let preview = format!("what the thread of number {number} is about");
        let cwd = format!("/src/{}", number % 100);
        transaction
            .prepare_cached(insert)
            .unwrap()
            .execute((id, number * 7 % 99_991, preview, cwd))
            .unwrap();
    }
    transaction.commit().unwrap();
    drop(connection);
    let timed = |query: &ThreadQuery| {
        let mut times: Vec<_> = (0..20)
            .map(|_| {
                let begun = Instant::now();
                let store = SqliteStore::open(&path).unwrap();
                assert!(!store.threads(query).unwrap().threads.is_empty());
                begun.elapsed()
            })
            .collect();
        median(&mut times)
    };
    let all = ThreadQuery::default();
    let cwd = ThreadQuery {
        cwd: Some("/src/7".into()),
        ..all.clone()
    };
    let text = ThreadQuery {
        text: Some("number 77".into()),
        ..all.clone()
    };
    row("100,000 threads: open, first page", timed(&all), None, "≤ 200 ms");
    row(
        "100,000 threads: open, first page of a directory",
        timed(&cwd),
        None,
        "≤ 200 ms",
    );
    row(
        "100,000 threads: open, first page of a search",
        timed(&text),
        None,
        "≤ 200 ms",
    );
}

/// Why history is in files of its own: the same items in SQLite, with its strongest setting that is comparable.
fn log() {
    let dir = tempdir().unwrap();
    for items in [1_u64, 64] {
        let mut file = File::create(dir.path().join(format!("{items}.log"))).unwrap();
        let mut connection = Connection::open(dir.path().join(format!("{items}.db"))).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE events (thread BLOB, number INTEGER, kind INTEGER, at INTEGER, body BLOB,
                     PRIMARY KEY (thread, number)) WITHOUT ROWID;",
            )
            .unwrap();
        let (mut files, mut tables) = (Vec::new(), Vec::new());
        let mut number = 0;
        for _ in 0..200 {
            let begun = Instant::now();
            let mut bytes = Vec::new();
            for n in number..number + items {
                encode_record(&mut bytes, n, &item(n));
            }
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
            files.push(begun.elapsed());
            let begun = Instant::now();
            let transaction = connection.transaction().unwrap();
            for n in number..number + items {
                let item = item(n);
                let mut insert = transaction
                    .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")
                    .unwrap();
                insert
                    .execute((
                        [3_u8; 16],
                        n.cast_signed(),
                        u8::from(item.kind),
                        item.at_unix_us,
                        item.body,
                    ))
                    .unwrap();
            }
            transaction.commit().unwrap();
            tables.push(begun.elapsed());
            number += items;
        }
        let (file, table) = (median(&mut files), median(&mut tables));
        row(
            &format!("{items} items of {BODY_BYTES} bytes into a file, synced"),
            file,
            None,
            "",
        );
        row(
            &format!("{items} items into a table of SQLite, committed"),
            table,
            ratio(table, file),
            "",
        );
    }
}
