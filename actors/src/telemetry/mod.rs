//! The accounting of time: ticks, records, spans, and the collector that makes the one into the other.

mod clock;
mod collector;
mod console;
mod crossing;
mod export_queue;
mod exporters;
mod file_sink;
mod flight;
mod ids;
mod local;
mod offset;
#[cfg(feature = "otlp")]
pub mod otlp;
mod recent;
mod record;
mod sampler;
pub mod sdk;
pub mod semconv;
mod stage;
pub mod template;

pub use clock::{Anchor, Scale, Tick, nanos, unix_now_ns, wall_unix_ms, wall_unix_us};
pub use collector::{ClockOffset, Collector, CollectorOptions, STAGES_MAX, SinkError, SpanSink, Stats};
pub use console::{ConsoleSink, line as console_line};
pub use crossing::{count_crossing, crossings};
pub use export_queue::SPANS_WAITING_MAX;
pub use exporters::{DISABLED, EXPORTER, Exporters};
pub use file_sink::{FileSink, service};
pub(crate) use flight::Flight;
pub use flight::{FLIGHT_RECORDS, FLIGHT_STAGES};
pub use ids::{root, span_id, trace_id};
pub(crate) use local::ArbiterLocal;
pub use local::{RING_RECORDS, ThreadTag, thread_tag};
pub use offset::{ClockEstimate, DRIFT_PPM};
pub use recent::Kept;
pub use record::{ATTR_ACTOR, ATTR_DEPTH, ATTR_MESSAGE, Record};
pub use sampler::{SAMPLER, SAMPLER_ARG, Sampler};
pub(crate) use stage::Annotate;
pub use stage::Stage;
