//! Asking a model: the cores, then the session against a server that plays faults.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "responses")]

mod answers;
mod measures;
mod ordinals;
mod places;
mod posts;
mod requests;
mod retries;
mod sidebands;
mod sse;
mod support;
mod telemetry;
mod websocket;
