//! Floods of message 1s against an executor in a process of its own: directly, and as a relay would pass them on.
//!
//! What strangers cost is counted in Diffie-Hellmans, which no load of the machine changes; times and shares of a core
//! are printed, and asserted with room.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures are for whoever runs this")]

mod direct;
mod executor;
mod memory;
mod messages;
mod relay;
mod through_relay;

use std::time::Duration;

/// How long each flood lasts.
pub(crate) fn flood_time() -> Duration {
    Duration::from_secs(if std::env::var_os("DWELL_SOAK").is_some() {
        10
    } else {
        2
    })
}

/// Message 1s a second.
pub(crate) const RATE_PER_S: u32 = 10_000;
/// The longest anything may take that is not measured.
pub(crate) const BOUND: Duration = Duration::from_secs(240);
/// Of a core, and how much room a build without optimisation and a loaded machine get.
pub(crate) const CPU_SHARE_MAX: f64 = if cfg!(debug_assertions) { 0.5 } else { 0.25 };
/// A legitimate handshake during a flood without a right MAC; the promise is a tenth.
pub(crate) const HANDSHAKE_P99_MAX: Duration = Duration::from_secs(5);
/// A client that the relay vouches for.
pub(crate) const VOUCHED_MAX: Duration = Duration::from_secs(5);

/// What all memory before authentication may be.
pub(crate) const MEMORY_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Floods measure the machine: one at a time.
pub(crate) static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// One at a time, and never without end.
pub(crate) fn alone(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    runtime().block_on(async { tokio::time::timeout(BOUND, test).await.expect("a flood ends") });
}

pub(crate) fn p99(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}
