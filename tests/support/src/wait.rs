//! Waiting for what nobody announces.

use std::time::Duration;

/// How often the condition is looked at: often enough that no test waits longer than it must.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The condition did not come to hold in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the condition did not hold within {bound:?}: look for what should have made it true")]
pub struct TimedOut {
    /// How long was waited.
    pub bound: Duration,
}

/// Looks at `condition` every millisecond until it holds, for at most `bound`. For things outside the program that
/// announce nothing, such as another process's end; where there is an event, wait for that. Looks once more when the
/// time is over, so that a stalled machine does not fail a condition that holds.
///
/// Under paused tokio time the clock jumps from look to look, so the wait takes no time, and neither does the outside
/// world get any.
///
/// # Errors
/// [`TimedOut`].
pub async fn wait_until(bound: Duration, mut condition: impl FnMut() -> bool) -> Result<(), TimedOut> {
    let looking = async {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if condition() {
                break;
            }
        }
    };
    if tokio::time::timeout(bound, looking).await.is_ok() || condition() {
        return Ok(());
    }
    Err(TimedOut { bound })
}
