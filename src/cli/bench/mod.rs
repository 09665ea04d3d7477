//! `dwell bench`: figures of this machine, with what it takes to read them. A file or a folder a benchmark.

mod attribution;
mod calibration;
mod compare;
mod delay;
mod progress;
mod statistics;

use clap::{Args, Subcommand};

use super::failure::Failure;

/// What `dwell bench attribution --help` ends with.
const ATTRIBUTION_NOTES: &str = "\
Starts a relay and an executor as processes of their own on loopback, and runs `true` again and again: directly, through
the relay, and directly through a proxy that keeps every byte for a while, both ways. Unattributed is what no segment of
a call's account names on either machine, and what of its transit exceeds the link's usual ping. The budget: at the
median at most 1 % of the call or 20 us, whichever is more; through the slow link at most 1 %. Figures are of this machine
and this minute: a quiet one is needed, and the calibration says how fast it is.";

/// What `dwell bench --help` ends with.
pub(crate) const NOTES: &str = "\
Starts a relay and executors as processes of their own on loopback and measures them from this process: directly, through
the relay (both sealed), and by the JSON dialect that a Codex CLI speaks; beside them commands of this process's own, and
the servers that are named. All peers take their turn in each round, ratios are taken within a round, and every answer is
looked at: a wrong exit code or a missing byte is counted as a failure and is no figure. Latencies are made by a proxy in
front of each server, and a round trip is what the same proxy adds to a bare echo by TCP. Without --codex and --ssh dwell is
measured alone. A quiet machine is needed; the calibration says how fast this one is. About five minutes with all peers,
ten seconds with --quick and without.

  dwell bench --quick
  dwell bench --codex $(command -v codex) --ssh /usr/bin/ssh --json > figures.json";

/// Measure dwell on this machine.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(flatten)]
    compare: compare::Compare,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// How much of a call's time its account cannot name.
    #[command(after_help = ATTRIBUTION_NOTES)]
    Attribution(attribution::Attribution),
}

pub(crate) async fn bench(ask: Bench, json: bool) -> Result<u8, Failure> {
    match ask.what {
        Some(What::Attribution(ask)) => attribution::attribution(ask, json).await,
        None => compare::compare(ask.compare, json).await,
    }
}
