//! What a start costs, for people to read: nothing is asserted but that it works.

use std::process::Stdio;
use std::time::Instant;

use dwell_actors::spawn::{Spawner, TerminalSize};

use super::executor::Guarded;
use super::runner::tests;
use super::support::{request, run, start};

tests! {
    Anyone: what_a_start_costs;
}

const ROUNDS: usize = 200;

fn what_a_start_costs() {
    // Memory of the executor's own, to see whether it matters.
    for mebibytes in [0, 256] {
        let held = vec![1_u8; mebibytes << 20];
        let (spawning, whole) = bare();
        println!(
            "tokio::process, pipes, {mebibytes} MiB: {spawning} us to start, {whole} us to the end (p50 of {ROUNDS})"
        );
        for guarded in [Guarded::Not, Guarded::ByHunt, Guarded::Fully] {
            for terminal in [None, Some(TerminalSize::default())] {
                let (spawning, whole) = median(guarded, terminal);
                let with = terminal.map_or("pipes", |_| "terminal");
                println!(
                    "{guarded:?}, {with}, {mebibytes} MiB: {spawning} us to start, {whole} us to the end (p50 of {ROUNDS})"
                );
            }
        }
        drop(held);
    }
}

fn median(guarded: Guarded, terminal: Option<TerminalSize>) -> (u128, u128) {
    run(async {
        let spawner = Spawner::with_guard(guarded.options()).unwrap();
        let (mut spawning, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let mut request = request(&["/bin/true"]);
            request.terminal = terminal;
            let spawned = start(&spawner, request).await;
            spawning.push(begun.elapsed().as_micros());
            spawned.process.watch().unwrap().wait().await.unwrap();
            whole.push(begun.elapsed().as_micros());
            drop(spawned.process.reap().unwrap());
        }
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            if name.starts_with("dwell-") && terminal.is_none() {
                let rollup = std::fs::read_to_string(process.path().join("smaps_rollup")).unwrap_or_default();
                let kib = |field| {
                    rollup
                        .lines()
                        .find_map(|line: &str| Some(line.strip_prefix(field)?.trim().to_owned()))
                };
                println!(
                    "  {}: {:?} resident, {:?} its own",
                    name.trim(),
                    kib("Rss:"),
                    kib("Private_Dirty:")
                );
            }
        }
        spawning.sort_unstable();
        whole.sort_unstable();
        (spawning[ROUNDS / 2], whole[ROUNDS / 2])
    })
}

/// The same with nothing of ours.
fn bare() -> (u128, u128) {
    run(async {
        let (mut spawning, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let mut child = tokio::process::Command::new("/bin/true")
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            spawning.push(begun.elapsed().as_micros());
            child.wait().await.unwrap();
            whole.push(begun.elapsed().as_micros());
        }
        spawning.sort_unstable();
        whole.sort_unstable();
        (spawning[ROUNDS / 2], whole[ROUNDS / 2])
    })
}
