//! Numbers of one role: how long messages and requests take, how full things are, what was dropped.
//!
//! **What is exact and what is sampled.** Counts, gauges and the durations of RPCs are exact. Residences and turns come
//! from the records of sampled calls, which the collector's thread has anyway, so that no message pays for them: their
//! histograms hold the sampled deliveries only. Depths, permits and ages are read when somebody asks.
//!
//! **Labels** are of fixed sets, named in `families::LABELS`: actors, messages, methods, error types, reasons. No id of
//! a session, process, trace, key or address is a label, and nothing that a peer can choose.

pub(crate) mod families;
mod gather;
mod histogram;
mod http;
mod meters;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
mod text;

pub use families::{FAMILIES, Family, Kind, LABELS};
#[cfg(feature = "responses")]
pub(crate) use families::{MODEL_EVENTS, MODEL_REQUESTS};
#[cfg(feature = "responses")]
pub(crate) use gather::Gathered;
pub(crate) use gather::gather;
pub use http::{CONNECTIONS_MAX, HTTP_TIMEOUT, REQUEST_MAX_BYTES};
pub(crate) use http::{Http, Source, Verdict};
pub(crate) use meters::{Direction, Meters, Side};
pub(crate) use text::render;

#[cfg(test)]
mod tests;
