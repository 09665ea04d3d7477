//! What the mailbox layer promises, and each promise broken on purpose.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "mailbox/ask.rs"]
mod ask;
#[path = "mailbox/capacity.rs"]
mod capacity;
#[path = "mailbox/control.rs"]
mod control;
#[path = "mailbox/drain.rs"]
mod drain;
#[path = "mailbox/fairness.rs"]
mod fairness;
#[path = "mailbox/panics.rs"]
mod panics;
#[path = "mailbox/residence.rs"]
mod residence;
#[path = "mailbox/support.rs"]
mod support;
