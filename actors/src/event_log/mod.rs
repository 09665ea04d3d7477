//! A thread's history: one append-only file of checksummed records, whose torn end is repaired at a record's boundary.
//!
//! `format` is the bytes, without a file; `file` keeps one such file and what is not on the disk yet; `worker` is the
//! thread that writes them all.

mod error;
mod file;
mod format;
pub(crate) mod worker;

pub use error::LogError;
pub(crate) use file::remove;
pub use file::{LogFile, Opened, TAIL_MAX_BYTES};
pub use format::{
    FILE_HEADER_BYTES, Fault, ITEM_BODY_MAX_BYTES, Item, ItemKind, LogReader, RECORD_HEADER_BYTES,
    ROOM_MAX_BYTES, Step, encode_header, encode_record,
};
pub use worker::LOG_QUEUE_MAX;
