//! Ancestry at the edges: what crosses a process's boundary as text, in W3C's or Jaeger's words.
//!
//! Inside, a context is 26 bytes in every message (`dwell_messages::TraceContext`). At the edges, which are the
//! environment that `dwell run` is started with, the one that a command is given, and whatever carrier an embedding
//! program has, it is text under names that `OTEL_PROPAGATORS` chooses. The OpenTelemetry SDK for Rust does not read
//! that variable; [`Propagators`] does.
//!
//! What is malformed never fails anything: it is named in [`Extracted::malformed`], and a new trace begins. Baggage is
//! taken by name only ([`AllowList`]), and reaches a command only where its caller asks for that
//! (`Command::baggage`).

mod baggage;
mod choice;
#[cfg(feature = "tracing-parent")]
mod current;
mod environment;
#[expect(
    deprecated,
    reason = "upstream gave the format up; this is the one module that uses its crate"
)]
mod jaeger;

pub use baggage::{AllowList, BAGGAGE_MAX_BYTES, BAGGAGE_MEMBERS_MAX, Baggage, BaggageError};
pub use choice::{Chosen, Extracted, Format, PROPAGATORS, Propagators};
pub use environment::environment_name;
pub(crate) use environment::{CARRIED, for_child};

use dwell_messages::TraceContext;

/// The span that the calling code is in, where the embedding program has one that can be seen.
#[cfg(feature = "tracing-parent")]
pub(crate) fn current() -> Option<TraceContext> {
    current::current()
}

/// Without the feature `tracing-parent` there is none.
#[cfg(not(feature = "tracing-parent"))]
pub(crate) fn current() -> Option<TraceContext> {
    None
}
