//! Starting real processes: what comes back, what fails and how, and that nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod bench;
mod endings;
mod environment;
mod failures;
mod groups;
mod hygiene;
mod pipes;
mod support;
