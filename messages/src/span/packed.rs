//! Spans of one call as a block of bytes: what they share stands in it once.
//!
//! The threads that move messages move the block as it is; who collects spans packs and unpacks it elsewhere. Half of
//! what a span says, its neighbours say too: the trace, the names of actors and attributes, each other's ids.
//! Specified in PROTOCOL.md, "Packed spans".

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Span, SpanKind, Value};
use crate::codec::{self, DecodeError};

/// Most bytes of one block.
pub const PACKED_MAX_BYTES: usize = 64 * 1024;
/// Most spans of one block.
pub const PACKED_SPANS_MAX: usize = 1_024;
/// Most bytes of text that a block may stand for once it is unpacked: words that many spans share count each time.
pub const UNPACKED_TEXT_MAX_BYTES: usize = 1 << 20;

/// Characters that are kept of what is wrong with a block.
const WHY_MAX_CHARS: usize = 120;

/// Words that a call's spans have, about.
const WORDS_USUAL: usize = 96;

/// Numbers that a span has, about.
const NUMBERS_USUAL: usize = 5;

const TRACE_BYTES: usize = 16;
const ID_BYTES: usize = 8;

/// Spans as a block of bytes. No bytes are no spans.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackedSpans {
    #[serde(with = "serde_bytes")]
    block: Vec<u8>,
}

/// A block cannot be unpacked: its spans are lost, and nothing else.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnpackError {
    /// Not MessagePack, or not of a block's form.
    #[error("packed spans are not understood: {0}")]
    Malformed(String),
    /// A number points behind the end of what it counts.
    #[error("a packed span names {what} {index}, and there are {count}: the peer is faulty")]
    OutOfRange {
        /// What is counted.
        what: &'static str,
        /// The number.
        index: u32,
        /// How many there are.
        count: usize,
    },
    /// More than a block may stand for.
    #[error("packed spans stand for more than {limit} {what}: the peer is faulty")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl From<DecodeError> for UnpackError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl PackedSpans {
    /// Packs spans, in their order. `None` when they are more than [`PACKED_SPANS_MAX`] or take more than
    /// [`PACKED_MAX_BYTES`].
    pub fn pack(spans: &[Span]) -> Option<Self> {
        if spans.is_empty() {
            return Some(Self::default());
        }
        if spans.len() > PACKED_SPANS_MAX {
            return None;
        }
        let mut block = Vec::with_capacity(64 * spans.len());
        // Writing to memory does not fail, and every type in here is one that MessagePack has.
        rmp_serde::encode::write_named(&mut block, &Packer::pack(spans)).ok()?;
        (block.len() <= PACKED_MAX_BYTES).then_some(Self { block })
    }

    /// The spans, in the order in which they were packed.
    ///
    /// # Errors
    /// When the bytes are no block, or stand for more than its limits. Never takes more memory than those.
    pub fn unpack(&self) -> Result<Vec<Span>, UnpackError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        if self.block.len() > PACKED_MAX_BYTES {
            return Err(UnpackError::TooMany {
                what: "bytes",
                limit: PACKED_MAX_BYTES,
            });
        }
        codec::check(&self.block)?;
        let block: Block<'_> = rmp_serde::from_slice(&self.block).map_err(|error| {
            // It may quote what the peer sent.
            let why: String = error.to_string().chars().take(WHY_MAX_CHARS).collect();
            UnpackError::Malformed(why)
        })?;
        block.unpack()
    }

    /// Whether there are no spans.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Bytes of the block.
    pub fn len(&self) -> usize {
        self.block.len()
    }
}

impl fmt::Debug for PackedSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PackedSpans")
            .field(&format_args!("{} bytes", self.block.len()))
            .finish()
    }
}

/// A block. Every number in here that is not a time, a count or a value counts into one of its lists.
#[derive(Serialize, Deserialize)]
struct Block<'a> {
    /// Trace ids, one behind the other, each of as many of the spans as the count in its place.
    #[serde(rename = "t", borrow, with = "serde_bytes")]
    traces: Cow<'a, [u8]>,
    #[serde(rename = "c")]
    counts: Vec<u32>,
    /// Span ids: those of the spans that follow none, in their order, and then others that they name.
    #[serde(rename = "i", borrow, with = "serde_bytes")]
    ids: Cow<'a, [u8]>,
    /// Texts.
    #[serde(rename = "w", borrow)]
    words: Vec<&'a str>,
    /// What spans have in common.
    #[serde(rename = "m")]
    shapes: Vec<Shape>,
    /// When the first span begins, in Unix nanoseconds.
    #[serde(rename = "b")]
    base_unix_ns: u64,
    #[serde(rename = "s")]
    spans: Vec<Packed>,
}

/// All of a span but its ids, its times and its numbers.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Shape {
    #[serde(rename = "n")]
    name: u32,
    #[serde(rename = "k", default = "internal", skip_serializing_if = "is_internal")]
    kind: SpanKind,
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<(u32, Common)>,
    #[serde(rename = "l", default, skip_serializing_if = "is_false")]
    is_linked: bool,
    /// It is to the span before what a turn is to the wait in the mailbox: see [`follows`].
    #[serde(rename = "f", default, skip_serializing_if = "is_false")]
    follows: bool,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    error: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_internal(kind: &SpanKind) -> bool {
    *kind == SpanKind::Internal
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

fn internal() -> SpanKind {
    SpanKind::Internal
}

/// Whether a span begins where the one before ends and has that one's trace, parent, link, and id but for the last bit: a
/// message's turn behind its wait, which is most of a call.
fn follows(before: &Span, span: &Span) -> bool {
    span.start_unix_ns == before.end_unix_ns
        && span.span_id == sibling(before.span_id)
        && span.parent == before.parent
        && span.link == before.link
        && span.trace_id == before.trace_id
}

/// An id with its last bit turned.
fn sibling(mut id: [u8; ID_BYTES]) -> [u8; ID_BYTES] {
    id[ID_BYTES - 1] ^= 1;
    id
}

/// What a shape says of an attribute's value: a text by its number among the words, or nothing, where the span has a
/// number of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
enum Common {
    Bool(bool),
    Word(u32),
    Own(()),
}

/// A span, as an array: its shape and then numbers. Of one that follows none: its parent's id counted from 1, its link's
/// id where its shape is linked, and how long after the end of the span before it begins, in nanoseconds. Of each: how
/// long it lasted, and as many numbers as its shape leaves open.
struct Packed {
    shape: u32,
    numbers: Vec<Value>,
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(Some(1 + self.numbers.len()))?;
        array.serialize_element(&self.shape)?;
        for value in &self.numbers {
            array.serialize_element(value)?;
        }
        array.end()
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PackedVisitor)
    }
}

struct PackedVisitor;

impl<'de> Visitor<'de> for PackedVisitor {
    type Value = Packed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of a shape and numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Packed, A::Error> {
        let shape = seq.next_element()?;
        let mut packed = Packed {
            shape: shape.ok_or_else(|| A::Error::invalid_length(0, &self))?,
            numbers: Vec::with_capacity(NUMBERS_USUAL),
        };
        while let Some(value) = seq.next_element()? {
            packed.numbers.push(value);
        }
        Ok(packed)
    }
}

/// A span's numbers, one after the other.
struct Numbers<'a> {
    values: std::slice::Iter<'a, Value>,
    count: usize,
}

impl<'a> Numbers<'a> {
    fn of(span: &'a Packed) -> Self {
        Self {
            values: span.numbers.iter(),
            count: span.numbers.len(),
        }
    }

    fn next(&mut self) -> Result<&'a Value, UnpackError> {
        self.values.next().ok_or(UnpackError::OutOfRange {
            what: "number",
            index: number(self.count),
            count: self.count,
        })
    }

    fn integer(&mut self) -> Result<i64, UnpackError> {
        match self.next()? {
            Value::I64(value) => Ok(*value),
            Value::Bool(_) | Value::F64(_) | Value::Str(_) => {
                Err(UnpackError::Malformed("a time or a place is no integer".into()))
            }
        }
    }

    /// A time, as however many nanoseconds are between it and another: any two are some number of them apart.
    fn nanoseconds(&mut self) -> Result<u64, UnpackError> {
        self.integer().map(i64::cast_unsigned)
    }

    fn index(&mut self) -> Result<u32, UnpackError> {
        let index = self.integer()?;
        u32::try_from(index).map_err(|_| UnpackError::Malformed(format!("{index} counts nothing")))
    }
}

/// Of numbers that are random, small or addresses: all of them this process's own, so that nobody can make them collide.
#[derive(Default)]
struct Folding(u64);

impl Folding {
    /// An odd constant with bits all over: the golden ratio's fraction.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(Self::SPREAD);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

type Seen<K> = HashMap<K, u32, BuildHasherDefault<Folding>>;

fn with_room<K>(count: usize) -> Seen<K> {
    Seen::with_capacity_and_hasher(count, BuildHasherDefault::default())
}

/// Lists under construction, and where in them what has been seen stands.
struct Packer<'a> {
    traces: Vec<u8>,
    counts: Vec<u32>,
    ids: (Vec<u8>, Seen<u64>),
    /// By where they lie: names are constants, and one that is not is only written twice.
    words: (Vec<&'a str>, Seen<(usize, usize)>),
    shapes: (Vec<Shape>, Seen<Shape>),
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl<'a> Packer<'a> {
    fn pack(spans: &'a [Span]) -> Block<'a> {
        let mut packer = Self {
            traces: Vec::new(),
            counts: Vec::new(),
            ids: (
                Vec::with_capacity(2 * ID_BYTES * spans.len()),
                with_room(2 * spans.len()),
            ),
            words: (Vec::with_capacity(WORDS_USUAL), with_room(WORDS_USUAL)),
            shapes: (Vec::with_capacity(WORDS_USUAL), with_room(WORDS_USUAL)),
        };
        // Those of the spans first, in their order: which is whose need not be said.
        let before = |at: usize| at.checked_sub(1).map(|before| &spans[before]);
        for (at, span) in spans.iter().enumerate() {
            if before(at).is_some_and(|before| follows(before, span)) {
                continue;
            }
            let (bytes, seen) = &mut packer.ids;
            seen.entry(u64::from_ne_bytes(span.span_id))
                .or_insert(number(bytes.len() / ID_BYTES));
            bytes.extend_from_slice(&span.span_id);
        }
        let packed = (spans.iter().enumerate())
            .map(|(at, span)| packer.span(before(at), span))
            .collect();
        Block {
            traces: packer.traces.into(),
            counts: packer.counts,
            ids: packer.ids.0.into(),
            words: packer.words.0,
            shapes: packer.shapes.0,
            base_unix_ns: spans.first().map_or(0, |span| span.start_unix_ns),
            spans: packed,
        }
    }

    fn span(&mut self, before: Option<&Span>, span: &'a Span) -> Packed {
        self.trace(&span.trace_id);
        let follows = before.is_some_and(|before| follows(before, span));
        let shape = Shape {
            name: self.word(&span.name),
            kind: span.kind,
            attributes: (span.attributes.iter())
                .map(|(name, value)| (self.word(name), self.common(value)))
                .collect(),
            is_linked: span.link.is_some() && !follows,
            follows,
            error: span.error.as_deref().map(|error| self.word(error)),
        };
        let mut numbers = Vec::with_capacity(NUMBERS_USUAL);
        let nanoseconds = |from: u64, to: u64| Value::I64(to.wrapping_sub(from).cast_signed());
        if !follows {
            let parent = (span.parent != [0; ID_BYTES]).then(|| 1 + self.id(span.parent));
            numbers.push(Value::I64(parent.unwrap_or(0).into()));
            numbers.extend(span.link.map(|link| Value::I64(self.id(link).into())));
            let ended = before.map_or(span.start_unix_ns, |before| before.end_unix_ns);
            numbers.push(nanoseconds(ended, span.start_unix_ns));
        }
        numbers.push(nanoseconds(span.start_unix_ns, span.end_unix_ns));
        let own = span.attributes.iter().map(|(_, value)| value);
        numbers.extend(
            own.filter(|value| matches!(value, Value::I64(_) | Value::F64(_)))
                .cloned(),
        );
        Packed {
            shape: self.shape(shape),
            numbers,
        }
    }

    /// One more span of this trace.
    fn trace(&mut self, trace: &[u8; TRACE_BYTES]) {
        match self.counts.last_mut() {
            Some(count) if self.traces.ends_with(trace) => *count += 1,
            _ => {
                self.traces.extend_from_slice(trace);
                self.counts.push(1);
            }
        }
    }

    fn id(&mut self, id: [u8; ID_BYTES]) -> u32 {
        let (bytes, seen) = &mut self.ids;
        *seen.entry(u64::from_ne_bytes(id)).or_insert_with(|| {
            bytes.extend_from_slice(&id);
            number(bytes.len() / ID_BYTES - 1)
        })
    }

    fn word(&mut self, word: &'a str) -> u32 {
        let (words, seen) = &mut self.words;
        *seen.entry((word.as_ptr().addr(), word.len())).or_insert_with(|| {
            words.push(word);
            number(words.len() - 1)
        })
    }

    fn common(&mut self, value: &'a Value) -> Common {
        match value {
            Value::Bool(value) => Common::Bool(*value),
            Value::Str(text) => Common::Word(self.word(text)),
            Value::I64(_) | Value::F64(_) => Common::Own(()),
        }
    }

    fn shape(&mut self, shape: Shape) -> u32 {
        let (shapes, seen) = &mut self.shapes;
        *seen.entry(shape).or_insert_with_key(|shape| {
            shapes.push(shape.clone());
            number(shapes.len() - 1)
        })
    }
}

/// Bytes `index` of a list of ids.
fn part<const N: usize>(list: &[u8], what: &'static str, index: u32) -> Result<[u8; N], UnpackError> {
    let at = usize::try_from(index).ok().and_then(|index| index.checked_mul(N));
    at.and_then(|at| list.get(at..)?.first_chunk().copied())
        .ok_or(UnpackError::OutOfRange {
            what,
            index,
            count: list.len() / N,
        })
}

fn entry<'a, T>(list: &'a [T], what: &'static str, index: u32) -> Result<&'a T, UnpackError> {
    let found = usize::try_from(index).ok().and_then(|index| list.get(index));
    found.ok_or(UnpackError::OutOfRange {
        what,
        index,
        count: list.len(),
    })
}

/// Words, and how many bytes of them may still be given out.
struct Words<'a> {
    words: &'a [&'a str],
    left: usize,
}

impl Words<'_> {
    fn get(&mut self, index: u32) -> Result<String, UnpackError> {
        let word = *entry(self.words, "word", index)?;
        let left = self.left.checked_sub(word.len());
        self.left = left.ok_or(UnpackError::TooMany {
            what: "bytes of text",
            limit: UNPACKED_TEXT_MAX_BYTES,
        })?;
        Ok(word.to_owned())
    }
}

impl Block<'_> {
    fn unpack(self) -> Result<Vec<Span>, UnpackError> {
        if self.spans.len() > PACKED_SPANS_MAX {
            return Err(UnpackError::TooMany {
                what: "spans",
                limit: PACKED_SPANS_MAX,
            });
        }
        let mut words = Words {
            words: &self.words,
            left: UNPACKED_TEXT_MAX_BYTES,
        };
        let mut traces = (0..)
            .zip(&self.counts)
            .flat_map(|(trace, count)| (0..*count).map(move |_| trace));
        let mut own = 0;
        let mut spans: Vec<Span> = Vec::with_capacity(self.spans.len());
        for packed in &self.spans {
            let trace = traces.next().unwrap_or(number(self.traces.len() / TRACE_BYTES));
            let mut numbers = Numbers::of(packed);
            let shape = entry(&self.shapes, "shape", packed.shape)?;
            let mut span = self.begun((&mut own, trace), spans.last(), shape, &mut numbers)?;
            span.name = words.get(shape.name)?.into();
            span.end_unix_ns = span.start_unix_ns.wrapping_add(numbers.nanoseconds()?);
            for (name, value) in &shape.attributes {
                let name = words.get(*name)?.into();
                let value = match *value {
                    Common::Bool(value) => Value::Bool(value),
                    Common::Word(word) => Value::Str(words.get(word)?.into()),
                    Common::Own(()) => numbers.next()?.clone(),
                };
                span.attributes.push((name, value));
            }
            let error = shape.error.map(|error| words.get(error)).transpose()?;
            span.error = error.map(Into::into);
            spans.push(span);
        }
        Ok(spans)
    }

    /// A span as far as the numbers say that a span of this shape has, which one that follows takes from the one before.
    fn begun(
        &self,
        (own, trace): (&mut u32, u32),
        before: Option<&Span>,
        shape: &Shape,
        numbers: &mut Numbers<'_>,
    ) -> Result<Span, UnpackError> {
        let id = |index| part::<ID_BYTES>(&self.ids, "id", index);
        let mut span = Span {
            trace_id: part::<TRACE_BYTES>(&self.traces, "trace", trace)?,
            span_id: [0; ID_BYTES],
            parent: [0; ID_BYTES],
            name: Cow::Borrowed(""),
            kind: shape.kind,
            start_unix_ns: before.map_or(self.base_unix_ns, |before| before.end_unix_ns),
            end_unix_ns: 0,
            attributes: Vec::with_capacity(shape.attributes.len()),
            link: None,
            error: None,
        };
        if shape.follows {
            let before = before.ok_or(UnpackError::OutOfRange {
                what: "span",
                index: 0,
                count: 0,
            })?;
            span.span_id = sibling(before.span_id);
            (span.parent, span.link) = (before.parent, before.link);
        } else {
            span.span_id = id(*own)?;
            *own += 1;
            span.parent = (numbers.index()?.checked_sub(1)).map_or(Ok([0; ID_BYTES]), id)?;
            if shape.is_linked {
                span.link = Some(id(numbers.index()?)?);
            }
            span.start_unix_ns = span.start_unix_ns.wrapping_add(numbers.nanoseconds()?);
        }
        Ok(span)
    }
}
