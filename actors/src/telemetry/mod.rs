//! The accounting of time: ticks, records, spans, and the collector that makes the one into the other.

mod clock;
mod collector;
mod crossing;
mod file_sink;
mod ids;
mod local;
#[cfg(feature = "otlp")]
pub mod otlp;
mod recent;
mod record;
pub mod sdk;
mod stage;
pub mod template;

pub use clock::{Anchor, Tick, nanos, unix_now_ns, wall_unix_ms};
pub use collector::{ClockOffset, Collector, CollectorOptions, STAGES_MAX, SinkError, SpanSink, Stats};
pub use crossing::{count_crossing, crossings};
pub use file_sink::{FileSink, service};
pub use ids::{root, span_id, trace_id};
pub(crate) use local::ArbiterLocal;
pub use local::{RING_RECORDS, ThreadTag, thread_tag};
pub use recent::Kept;
pub use record::{ATTR_ACTOR, ATTR_DEPTH, ATTR_MESSAGE, Record};
pub use stage::Stage;
