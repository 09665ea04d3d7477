//! What a start costs, for people to read: nothing is asserted but that it works.

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
        spawning.sort_unstable();
        whole.sort_unstable();
        (spawning[ROUNDS / 2], whole[ROUNDS / 2])
    })
}
