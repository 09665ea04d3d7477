//! dwell's vocabulary: what harness, relay and executor say to each other, and its native encoding.
//!
//! No actix, no tokio and no sockets in here: whoever embeds only the vocabulary gets only that.

pub mod envelope;
pub mod ids;
pub mod kinds;
pub mod span;
pub mod trace;

pub use envelope::Envelope;
pub use ids::{Epoch, ProcessId, PublicKey, RequestId, StreamId};
pub use span::{Role, Span, SpanKind, Value};
pub use trace::{SpanId, TraceContext, TraceFlags, TraceId, TraceState};
