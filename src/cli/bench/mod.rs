//! `dwell bench`: figures of this machine, with what it takes to read them. A file a benchmark.

mod attribution;
mod calibration;
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

/// Measure dwell on this machine.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// How much of a call's time its account cannot name.
    #[command(after_help = ATTRIBUTION_NOTES)]
    Attribution(attribution::Attribution),
}

pub(crate) async fn bench(ask: Bench, json: bool) -> Result<u8, Failure> {
    match ask.what {
        What::Attribution(ask) => attribution::attribution(ask, json).await,
    }
}
