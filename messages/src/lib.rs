//! dwell's vocabulary: what harness, relay and executor say to each other, and its native encoding.
//!
//! No actix, no tokio and no sockets in here: whoever embeds only the vocabulary gets only that.

pub mod codec;
pub mod confinement;
pub mod dialect;
pub mod envelope;
pub mod error;
pub mod files;
pub mod http;
pub mod ids;
pub mod kinds;
pub mod message;
pub mod process;
pub mod session;
pub mod span;
pub mod timings;
pub mod trace;
pub mod workspace;

pub use envelope::Envelope;
pub use error::{Blame, ErrorCode, WireError};
pub use files::{FileReply, FileRequest};
pub use http::{HttpReply, HttpRequest};
pub use ids::{Epoch, ParseKeyError, ProcessId, PublicKey, RequestId, StreamId};
pub use message::{Message, Pong, Reply, Request, TraceRecords};
pub use process::{Closed, Event, ExitStatus, Exited, Output, OutputStream};
pub use session::{
    Cursor, EnvironmentInfo, Hello, ListSessions, ProcessEntry, Progress, Resume, ResumeRefused, Resumed,
    SessionEntry, SessionList, Welcome,
};
pub use span::{PackedSpans, Role, Span, SpanKind, Value};
pub use timings::Timings;
pub use trace::{SpanId, TraceContext, TraceFlags, TraceId, TraceState};
