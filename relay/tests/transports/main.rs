//! WebSockets and TLS beside TCP on one port: the same bytes come through, and no peer costs more than its bound.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod bytes;
mod hostile;
mod stalls;
mod support;
mod trust;
