//! The one poll of an executor's list and clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::gate::Gate;
use crate::telemetry::wall_unix_ms;

/// How often the list and the clock are looked at: a revoked key's sessions are told to end within this.
pub const REVIEW_INTERVAL: Duration = Duration::from_millis(250);

/// Reviews until told to stop.
pub(crate) async fn watch(gate: Arc<Gate>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(REVIEW_INTERVAL) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        gate.review(wall_unix_ms() / 1_000);
    }
}
