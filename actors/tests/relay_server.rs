//! The relay over real transports, with the real cores of links at both ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "relay_server/admission.rs"]
mod admission;
#[path = "relay_server/endings.rs"]
mod endings;
#[path = "relay_server/forwarding.rs"]
mod forwarding;
#[path = "relay_server/support.rs"]
mod support;
