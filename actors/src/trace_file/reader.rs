//! Reading lines, with a bound on what is held and on what is read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dwell_messages::Span;
use rustix::fs::OFlags;

use super::error::TraceFileError;
use super::otlp;
use super::resource::Resource;

/// The most of one file that is read; of a longer one, the end.
pub const READ_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// The most of one line that is held; a longer one is passed over.
pub const TRACE_LINE_MAX_BYTES: usize = 8 * 1024 * 1024;

/// One batch of spans and who made them.
#[derive(Clone, PartialEq, Debug)]
pub struct TraceLine {
    /// Who made them.
    pub resource: Resource,
    /// The spans.
    pub spans: Vec<Span>,
}

/// The batches of a file, oldest first. Ends quietly before a last line that is not whole.
#[derive(Debug)]
pub struct TraceLines {
    path: PathBuf,
    reader: BufReader<std::io::Take<File>>,
    line: Vec<u8>,
    offset_bytes: u64,
    /// The first line may be the tail of one.
    skip_line: bool,
    ready: VecDeque<TraceLine>,
    done: bool,
}

/// Reads a trace file line by line, at most its last [`READ_MAX_BYTES`].
///
/// # Errors
///
/// When it cannot be opened; what is wrong with a line is an item of the iterator, which goes on behind it.
pub fn read_traces(path: &Path) -> Result<TraceLines, TraceFileError> {
    read_traces_tail(path, READ_MAX_BYTES)
}

pub(super) fn read_traces_tail(path: &Path, max_bytes: u64) -> Result<TraceLines, TraceFileError> {
    let mut file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|error| TraceFileError::io("open", path, error))?;
    let metadata = file
        .metadata()
        .map_err(|error| TraceFileError::io("inspect", path, error))?;
    if !metadata.is_file() {
        return Err(TraceFileError::NotAFile {
            path: path.to_owned(),
        });
    }
    let length = metadata.len();
    // One byte earlier, so that a line that begins exactly at the bound is not taken for a tail.
    let start = length.saturating_sub(max_bytes).saturating_sub(1);
    file.seek(SeekFrom::Start(start))
        .map_err(|error| TraceFileError::io("read", path, error))?;
    Ok(TraceLines {
        path: path.to_owned(),
        // What is appended while we read is for the next reader: a busy writer must not keep us for ever.
        reader: BufReader::new(file.take(length - start)),
        line: Vec::new(),
        offset_bytes: start,
        skip_line: start > 0,
        ready: VecDeque::new(),
        done: false,
    })
}

impl Iterator for TraceLines {
    type Item = Result<TraceLine, TraceFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(Ok(batch));
            }
            if self.done {
                return None;
            }
            if let Err(error) = self.advance() {
                return Some(Err(error));
            }
        }
    }
}

impl TraceLines {
    /// Reads one line into `ready`, or sets `done`.
    fn advance(&mut self) -> Result<(), TraceFileError> {
        let begin = self.offset_bytes;
        let (read, whole) = match self.read_line() {
            Ok(outcome) => outcome,
            Err(error) => {
                self.done = true;
                return Err(TraceFileError::io("read", &self.path, error));
            }
        };
        self.offset_bytes += read;
        if read == 0 || !whole {
            // Torn at the end: its writer died, or is writing it now.
            self.done = true;
            return Ok(());
        }
        if std::mem::take(&mut self.skip_line) || self.line.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.line.len() > TRACE_LINE_MAX_BYTES {
            return Err(TraceFileError::LineTooLong {
                path: self.path.clone(),
                offset_bytes: begin,
                max_bytes: TRACE_LINE_MAX_BYTES,
            });
        }
        match otlp::parse_line(&self.line) {
            Ok(batches) => {
                self.ready.extend(batches);
                Ok(())
            }
            Err(problem) => Err(TraceFileError::Line {
                path: self.path.clone(),
                offset_bytes: begin,
                problem,
            }),
        }
    }

    /// The bytes consumed, and whether they end a line. Holds at most one byte more than a line may have.
    fn read_line(&mut self) -> std::io::Result<(u64, bool)> {
        self.line.clear();
        let mut read = 0;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok((read, false));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |at| at + 1);
            let room = (TRACE_LINE_MAX_BYTES + 1).saturating_sub(self.line.len());
            self.line
                .extend_from_slice(&chunk[..end.unwrap_or(chunk.len()).min(room)]);
            self.reader.consume(taken);
            read += taken as u64;
            if end.is_some() {
                return Ok((read, true));
            }
        }
    }
}
