//! The JSON dialect, as a stock client writes and reads it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers too"
)]

mod calls;
mod frames;
mod golden;
mod hostile;
mod paths;
