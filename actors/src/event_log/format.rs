//! The bytes of an event log.
//!
//! A header of 32 bytes: magic (7) and version (1), the thread's id (16), four zeros, and the CRC-32 of these 28. Then
//! records: the payload's length (u32), a CRC-32 (u32), and the payload: the item's kind (u8), its time in Unix
//! microseconds (i64), its body. Integers are little-endian. A record's checksum covers its number in the file and
//! its length too, so that a record that is repeated, left out or moved is as wrong as one whose bits are. Zeros behind the
//! last record, up to `ROOM_MAX_BYTES`, are room for more: no record has the length 0.

use std::io::{self, Read};

use crate::metadata_store::ThreadId;

/// Bytes of a file's header.
pub const FILE_HEADER_BYTES: usize = 32;
/// Bytes before a record's payload.
pub const RECORD_HEADER_BYTES: usize = 8;
/// The longest body of an item: what is larger belongs into a file of its own.
pub const ITEM_BODY_MAX_BYTES: usize = 1 << 20;

/// The most room that is made ready behind a log.
pub const ROOM_MAX_BYTES: u64 = 1 << 20;

const MAGIC: [u8; 8] = *b"dwellog\x01";
/// Kind and time.
const PAYLOAD_MIN_BYTES: usize = 9;
const PAYLOAD_MAX_BYTES: usize = PAYLOAD_MIN_BYTES + ITEM_BODY_MAX_BYTES;

/// What an item is, as far as a list of threads wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ItemKind {
    /// Anything that changes nothing in lists.
    Note,
    /// What the user said. The first one is the thread's preview.
    UserMessage,
    /// What the model said.
    AgentMessage,
    /// What the thread is for. The first one is its preview.
    Goal,
    /// A call of a tool.
    ToolCall,
    /// What came of it.
    ToolOutput,
    /// A turn has begun.
    TurnStarted,
    /// A turn has ended.
    TurnEnded,
    /// A kind that this version does not know; kept as it is.
    Other(u8),
}

/// One entry of a thread's history. Its body is its author's: nothing here looks into it but for the preview.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// When it was, in Unix microseconds of the machine that wrote it. For people: order is by place.
    pub at_unix_us: i64,
    /// Its content, at most `ITEM_BODY_MAX_BYTES`.
    pub body: Vec<u8>,
}

/// Why a log is not read further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It ends within a header or a record.
    #[error("it ends within a record")]
    Short,
    /// Its first bytes are not those of an event log of this version.
    #[error("its header is not that of an event log of this version")]
    Header,
    /// It is the log of another thread.
    #[error("it is the log of another thread")]
    Thread,
    /// A record's length cannot be one.
    #[error("a record's length cannot be one")]
    Length,
    /// A record is not what was written.
    #[error("a record's checksum is wrong")]
    Checksum,
}

/// What came next in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// An item.
    Item(Item),
    /// The end of what can be read; with a fault, of what is left of it. Every later step is the same.
    End(Option<Fault>),
}

/// Reads a log from its beginning. Never panics, and never holds more than one record.
#[derive(Debug)]
pub struct LogReader<R> {
    source: R,
    thread: ThreadId,
    payload: Vec<u8>,
    /// Items read, and bytes up to the end of the last good one.
    items: u64,
    good_bytes: u64,
    ended: Option<Option<Fault>>,
}

impl From<u8> for ItemKind {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Note,
            1 => Self::UserMessage,
            2 => Self::AgentMessage,
            3 => Self::Goal,
            4 => Self::ToolCall,
            5 => Self::ToolOutput,
            6 => Self::TurnStarted,
            7 => Self::TurnEnded,
            other => Self::Other(other),
        }
    }
}

impl From<ItemKind> for u8 {
    fn from(kind: ItemKind) -> Self {
        match kind {
            ItemKind::Note => 0,
            ItemKind::UserMessage => 1,
            ItemKind::AgentMessage => 2,
            ItemKind::Goal => 3,
            ItemKind::ToolCall => 4,
            ItemKind::ToolOutput => 5,
            ItemKind::TurnStarted => 6,
            ItemKind::TurnEnded => 7,
            ItemKind::Other(other) => other,
        }
    }
}

impl ItemKind {
    /// Its word in exports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::UserMessage => "user_message",
            Self::AgentMessage => "agent_message",
            Self::Goal => "goal",
            Self::ToolCall => "tool_call",
            Self::ToolOutput => "tool_output",
            Self::TurnStarted => "turn_started",
            Self::TurnEnded => "turn_ended",
            Self::Other(_) => "other",
        }
    }
}

impl Item {
    /// Bytes it takes in a log.
    pub fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + PAYLOAD_MIN_BYTES + self.body.len()
    }
}

/// The header of a thread's log.
pub fn encode_header(thread: ThreadId) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&thread.0);
    let sum = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Appends the record of the item that is number `number` of its log, counted from 0. The body's length is its
/// caller's to check.
pub fn encode_record(out: &mut Vec<u8>, number: u64, item: &Item) {
    let length = u32::try_from(PAYLOAD_MIN_BYTES + item.body.len()).unwrap_or(u32::MAX);
    let begins = out.len();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(item.kind.into());
    out.extend_from_slice(&item.at_unix_us.to_le_bytes());
    out.extend_from_slice(&item.body);
    let sum = checksum(number, length, &out[begins + RECORD_HEADER_BYTES..]);
    out[begins + 4..begins + RECORD_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(number: u64, length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

impl<R: Read> LogReader<R> {
    /// Reads the log of `thread` from `source`, best buffered.
    pub fn new(source: R, thread: ThreadId) -> Self {
        Self {
            source,
            thread,
            payload: Vec::new(),
            items: 0,
            good_bytes: 0,
            ended: None,
        }
    }

    /// Items read so far.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Bytes from the beginning to the end of the last good record; 0 as long as not even the header was good.
    pub fn good_bytes(&self) -> u64 {
        self.good_bytes
    }

    /// The next item, or the end.
    ///
    /// # Errors
    /// When the source cannot be read: that says nothing about the log.
    pub fn step(&mut self) -> io::Result<Step> {
        if let Some(fault) = self.ended {
            return Ok(Step::End(fault));
        }
        if self.good_bytes == 0
            && let Some(fault) = self.header()?
        {
            return Ok(self.end(Some(fault)));
        }
        Ok(match self.record()? {
            Ok(Some(item)) => Step::Item(item),
            Ok(None) => self.end(None),
            Err(fault) => self.end(Some(fault)),
        })
    }

    fn end(&mut self, fault: Option<Fault>) -> Step {
        self.ended = Some(fault);
        Step::End(fault)
    }

    fn header(&mut self) -> io::Result<Option<Fault>> {
        let mut header = [0; FILE_HEADER_BYTES];
        if fill(&mut self.source, &mut header)? < FILE_HEADER_BYTES {
            return Ok(Some(Fault::Short));
        }
        if header == encode_header(self.thread) {
            self.good_bytes = FILE_HEADER_BYTES as u64;
            return Ok(None);
        }
        let sound = header[..8] == MAGIC && header[28..] == crc32fast::hash(&header[..28]).to_le_bytes();
        Ok(Some(if sound { Fault::Thread } else { Fault::Header }))
    }

    /// Whether nothing but zeros comes, and no more of them than there may be.
    fn is_room(&mut self) -> io::Result<bool> {
        let mut left = ROOM_MAX_BYTES;
        self.payload.resize(4_096, 0);
        loop {
            let read = fill(&mut self.source, &mut self.payload)?;
            if self.payload[..read].iter().any(|byte| *byte != 0) || read as u64 > left {
                return Ok(false);
            }
            if read < self.payload.len() {
                return Ok(true);
            }
            left -= read as u64;
        }
    }

    fn record(&mut self) -> io::Result<Result<Option<Item>, Fault>> {
        let mut header = [0; RECORD_HEADER_BYTES];
        match fill(&mut self.source, &mut header)? {
            0 => return Ok(Ok(None)),
            RECORD_HEADER_BYTES => {}
            some if header[..some].iter().all(|byte| *byte == 0) => return Ok(Ok(None)),
            _ => return Ok(Err(Fault::Short)),
        }
        if header == [0; RECORD_HEADER_BYTES] {
            return Ok(if self.is_room()? {
                Ok(None)
            } else {
                Err(Fault::Length)
            });
        }
        let [l0, l1, l2, l3, sum @ ..] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let bytes = length as usize;
        if !(PAYLOAD_MIN_BYTES..=PAYLOAD_MAX_BYTES).contains(&bytes) {
            return Ok(Err(Fault::Length));
        }
        self.payload.resize(bytes, 0);
        if fill(&mut self.source, &mut self.payload)? < bytes {
            return Ok(Err(Fault::Short));
        }
        if sum != checksum(self.items, length, &self.payload).to_le_bytes() {
            return Ok(Err(Fault::Checksum));
        }
        let Some(([kind, at @ ..], body)) = self.payload.split_first_chunk::<PAYLOAD_MIN_BYTES>() else {
            return Ok(Err(Fault::Length));
        };
        let item = Item {
            kind: ItemKind::from(*kind),
            at_unix_us: i64::from_le_bytes(*at),
            body: body.to_vec(),
        };
        self.items += 1;
        self.good_bytes += (RECORD_HEADER_BYTES + bytes) as u64;
        Ok(Ok(Some(item)))
    }
}

/// Reads until the buffer is full or the source ends; how much it was.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
