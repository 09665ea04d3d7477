//! Prints what a start costs, beside the same by tokio's own `Command`. Asserts nothing: run it alone with `--nocapture`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dwell_actors::spawn::Spawner;

use super::support::{counting, finish, request, run, start};

const ROUNDS: usize = 101;

#[test]
fn the_cost_of_a_start_is_printed() {
    let _alone = counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = Instant::now();
            finish(start(&spawner, request(&["/bin/true"])).await).await;
            ours.push(began.elapsed());
            let began = Instant::now();
            let mut command = tokio::process::Command::new("/bin/true");
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.output().await.unwrap();
            theirs.push(began.elapsed());
        }
        println!(
            "start to end, median of {ROUNDS}: {:?} here, {:?} tokio",
            median(ours),
            median(theirs)
        );
    });
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
