//! What a walk costs next to the `ignore` crate's own, over the same tree, alternating in one run.
//!
//! `cargo bench -p dwell-actors --bench files`. Ratios are of speeds, so more is better: the median over neighbouring
//! rounds. Absolute figures are this machine's.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dwell_actors::executor::Executor;
use dwell_actors::files::{LocalFiles, RemoteFiles, WalkOptions};
use dwell_actors::harness::{Harness, Target};
use dwell_messages::files::{FileReply, FileRequest, Handle, Walk, WalkOn};
use dwell_relay::{OsRandomness, StaticKeypair};
use ignore::{WalkBuilder, WalkState};
use serde_bytes::ByteBuf;
use std::os::unix::ffi::OsStrExt as _;

const DIRECTORIES: usize = 500;
const FILES_EACH: usize = 99;
const ENTRIES: usize = DIRECTORIES * (FILES_EACH + 1);
const ROUNDS: usize = 21;
const BUDGET: f64 = 0.7;

fn main() {
    let tree = tempfile::tempdir().unwrap();
    grow(tree.path());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("{ENTRIES} entries in {DIRECTORIES} directories, {ROUNDS} rounds");
    println!("| walk | median | speed of ours over it | budget |\n|---|---:|---:|---:|");
    for ignore_files in [false, true] {
        let which = if ignore_files {
            "ignore files honoured"
        } else {
            "everything"
        };
        compare(&runtime, tree.path(), ignore_files, which);
    }
}

/// Three levels, some of it with ignore files.
fn grow(root: &Path) {
    std::fs::create_dir(root.join(".git")).unwrap();
    std::fs::write(root.join(".gitignore"), "target/\n*.o\n!keep.o\n").unwrap();
    for directory in 0..DIRECTORIES {
        let dir = root.join(format!("part{:02}/module{directory:04}", directory % 20));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..FILES_EACH {
            std::fs::File::create(dir.join(format!("source_file_{file:03}.rs"))).unwrap();
        }
    }
}

fn builder(root: &Path, ignore_files: bool) -> WalkBuilder {
    let mut builder = WalkBuilder::new(root);
    builder
        .standard_filters(ignore_files)
        .hidden(false)
        .git_global(false);
    builder
}

fn serial(root: &Path, ignore_files: bool) -> usize {
    builder(root, ignore_files).build().map(Result::unwrap).count()
}

/// Sorted as ours is.
fn sorted(root: &Path, ignore_files: bool) -> usize {
    let mut builder = builder(root, ignore_files);
    builder.sort_by_file_name(std::ffi::OsStr::cmp);
    builder.build().map(Result::unwrap).count()
}

fn parallel(root: &Path, ignore_files: bool) -> usize {
    let count = AtomicUsize::new(0);
    builder(root, ignore_files).build_parallel().run(|| {
        Box::new(|entry| {
            drop(entry.unwrap());
            count.fetch_add(1, Ordering::Relaxed);
            WalkState::Continue
        })
    });
    count.into_inner()
}

fn options(ignore_files: bool) -> WalkOptions {
    WalkOptions {
        max_entries: 1_000_000,
        ignore_files,
        ..WalkOptions::default()
    }
}

async fn local(files: &LocalFiles, root: &Path, options: WalkOptions) -> usize {
    let handle = Handle(1);
    let first = FileRequest::Walk(Walk {
        handle,
        path: ByteBuf::from(root.as_os_str().as_bytes()),
        max_depth: options.max_depth,
        max_directories: options.max_directories,
        max_entries: options.max_entries,
        follow: false,
        prune_hidden: false,
        ignore_files: options.ignore_files,
    });
    let (mut count, mut request) = (0, first);
    loop {
        match files.call(request).await.unwrap() {
            FileReply::Walked(page) | FileReply::WalkedOn(page) => {
                count += page.entries.len();
                if page.end {
                    return count;
                }
            }
            other => panic!("a page, not {other:?}"),
        }
        request = FileRequest::WalkOn(WalkOn { handle });
    }
}

async fn remote() -> (dwell_actors::executor::ExecutorHandle, Harness, RemoteFiles) {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public());
    let executor = executor.serve().await.unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = Harness::builder()
        .identity(client)
        .sampled(false)
        .connect(target)
        .await
        .unwrap();
    let files = harness.files();
    (executor, harness, files)
}

fn timed(mut walk: impl FnMut() -> usize) -> Duration {
    let begun = Instant::now();
    let found = walk();
    let taken = begun.elapsed();
    assert!(found >= ENTRIES, "{found} entries were found");
    taken
}

fn compare(runtime: &tokio::runtime::Runtime, root: &Path, ignore_files: bool, which: &str) {
    let files = LocalFiles::new();
    let (_executor, harness, far) = runtime.block_on(remote());
    let path = root.as_os_str().as_bytes();
    let mut times: [Vec<Duration>; 5] = Default::default();
    for round in 0..=ROUNDS {
        let taken = [
            timed(|| runtime.block_on(local(&files, root, options(ignore_files)))),
            timed(|| serial(root, ignore_files)),
            timed(|| sorted(root, ignore_files)),
            timed(|| parallel(root, ignore_files)),
            timed(|| {
                let walked = runtime.block_on(far.walk_all(path, options(ignore_files)));
                walked.unwrap().entries.len()
            }),
        ];
        // The first is for the caches.
        if round > 0 {
            times
                .iter_mut()
                .zip(taken)
                .for_each(|(times, taken)| times.push(taken));
        }
    }
    runtime.block_on(harness.shutdown());
    let [ours, serial, sorted, parallel, far] = times;
    row(&format!("ours, {which}"), &ours, None, None);
    row(&format!("`ignore`, {which}"), &serial, Some(&ours), Some(BUDGET));
    row(
        &format!("`ignore`, sorted, {which}"),
        &sorted,
        Some(&ours),
        Some(BUDGET),
    );
    row(
        &format!("`ignore`, on every core, {which}"),
        &parallel,
        Some(&ours),
        None,
    );
    row(
        &format!("ours through a link on loopback, {which}"),
        &far,
        None,
        None,
    );
}

fn row(case: &str, times: &[Duration], ours: Option<&[Duration]>, budget: Option<f64>) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2].as_secs_f64() * 1e3;
    let ratio = ours.map(|ours| {
        let mut ratios: Vec<f64> = times
            .iter()
            .zip(ours)
            .map(|(other, ours)| other.as_secs_f64() / ours.as_secs_f64())
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    });
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    let budget = budget.map_or_else(String::new, |budget| format!("≥ {budget}"));
    println!("| {case} | {median:.1} ms | {ratio} | {budget} |");
}
