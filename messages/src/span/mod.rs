//! A finished span, as it travels behind a terminal event and as every exporter sees it.

mod packed;

use std::borrow::Cow;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::packed::{
    PACKED_MAX_BYTES, PACKED_SPANS_MAX, PackedSpans, UNPACKED_TEXT_MAX_BYTES, UnpackError,
};
use crate::trace::{SpanId, TraceId};

/// OpenTelemetry's span kind, as far as dwell uses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum SpanKind {
    /// Work inside one process: every residence and turn span.
    #[serde(rename = "i")]
    Internal,
    /// The caller's side of an RPC or of a process.
    #[serde(rename = "c")]
    Client,
    /// The callee's side of an RPC.
    #[serde(rename = "s")]
    Server,
}

/// An attribute's value. Integers are signed, as OpenTelemetry has them.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// A floating-point number.
    F64(f64),
    /// Text of low cardinality, or an id.
    Str(Cow<'static, str>),
}

/// By what it is: trying one kind after the other, as serde would for a set of kinds without a tag, costs an error with its
/// text for every one that it is not, which was half of what reading a trace cost.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a boolean, a number or text")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::I64(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        // What no signed integer holds is no count of ours, and loses digits rather than its trace.
        Ok(i64::try_from(value).map_or(Value::F64(value as f64), Value::I64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::F64(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(Cow::Owned(value.to_owned())))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Str(Cow::Owned(value)))
    }
}

/// Which role of dwell made a span.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// In the agent's process: asks.
    #[serde(rename = "harness")]
    Harness,
    /// On the machine with the code: runs.
    #[serde(rename = "executor")]
    Executor,
    /// Anywhere both can reach: forwards sealed records.
    #[serde(rename = "relay")]
    Relay,
}

/// A finished span. Times are Unix nanoseconds of the machine that made it, and never compared across machines.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Span {
    /// The trace it belongs to.
    #[serde(rename = "t", with = "serde_bytes")]
    pub trace_id: [u8; 16],
    /// Its own id.
    #[serde(rename = "s", with = "serde_bytes")]
    pub span_id: [u8; 8],
    /// Its parent's id; all zeroes for a root.
    #[serde(rename = "p", with = "serde_bytes")]
    pub parent: [u8; 8],
    /// A noun of low cardinality.
    #[serde(rename = "n")]
    pub name: Cow<'static, str>,
    /// Its kind.
    #[serde(rename = "k")]
    pub kind: SpanKind,
    /// When it began, in Unix nanoseconds.
    #[serde(rename = "b")]
    pub start_unix_ns: u64,
    /// When it ended, in Unix nanoseconds; never before its start.
    #[serde(rename = "e")]
    pub end_unix_ns: u64,
    /// Attributes, at most a dozen.
    #[serde(rename = "a", default)]
    pub attributes: Vec<(Cow<'static, str>, Value)>,
    /// The lifecycle span of the actor that served it: a link, never a parent.
    #[serde(rename = "l", default, with = "serde_bytes")]
    pub link: Option<[u8; 8]>,
    /// `error.type`, where the work failed.
    #[serde(rename = "x", default)]
    pub error: Option<Cow<'static, str>>,
}

impl Span {
    /// The trace it belongs to.
    pub fn trace(&self) -> TraceId {
        TraceId(self.trace_id)
    }

    /// Its own id.
    pub fn id(&self) -> SpanId {
        SpanId(self.span_id)
    }

    /// How long it lasted, in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.end_unix_ns.saturating_sub(self.start_unix_ns)
    }

    /// The attribute of this name, if it has one.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }
}
