//! Server-sent events out of bytes, however these are cut. Pure.

use bytes::{Buf as _, BytesMut};

/// Cuts a body into the data of its events. Names, ids and comments are passed over: what the Responses API says of an
/// event is in its data.
#[derive(Debug)]
pub struct SseParser {
    max_bytes: usize,
    unread: BytesMut,
    /// Up to here `unread` has no end of a line.
    searched: usize,
    data: Vec<u8>,
    has_data: bool,
    begun: bool,
    /// The last line ended in a carriage return, whose line feed may still come.
    after_return: bool,
}

/// Why a body is no sequence of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SseError {
    /// One event is longer than the bound.
    #[error("an event has more than {0} bytes")]
    TooLarge(usize),
    /// Its data is no text.
    #[error("an event is not UTF-8")]
    NotText,
}

impl SseParser {
    /// Events of at most `max_bytes` of data, and lines no longer than that.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            unread: BytesMut::new(),
            searched: 0,
            data: Vec::new(),
            has_data: false,
            begun: false,
            after_return: false,
        }
    }

    /// More of the body. At most one chunk lies here beside what `next_event` could not yet finish.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The data of the next whole event. `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`SseError`]; the rest of the body is then not to be read.
    pub fn next_event(&mut self) -> Result<Option<String>, SseError> {
        while let Some(line) = self.next_line()? {
            if line.is_empty() {
                if !std::mem::take(&mut self.has_data) {
                    continue;
                }
                let data = std::mem::take(&mut self.data);
                return String::from_utf8(data).map(Some).map_err(|_| SseError::NotText);
            }
            if let Some(data) = field(&line, b"data") {
                if self.data.len() + data.len() + 1 > self.max_bytes {
                    return Err(SseError::TooLarge(self.max_bytes));
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data);
            }
        }
        Ok(None)
    }

    /// The next line without its end: a line feed, a carriage return, or both.
    fn next_line(&mut self) -> Result<Option<BytesMut>, SseError> {
        if self.after_return && !self.unread.is_empty() {
            self.after_return = false;
            if self.unread[0] == b'\n' {
                self.unread.advance(1);
            }
        }
        if !self.begun {
            const MARK: &[u8] = "\u{feff}".as_bytes();
            if self.unread.len() < MARK.len() && MARK.starts_with(&self.unread) {
                return Ok(None);
            }
            self.begun = true;
            if self.unread.starts_with(MARK) {
                self.unread.advance(MARK.len());
            }
        }
        let end = self.unread[self.searched..]
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end.map(|end| end + self.searched) else {
            self.searched = self.unread.len();
            // A field's name and separator stand before its data.
            return if self.unread.len() > self.max_bytes + 8 {
                Err(SseError::TooLarge(self.max_bytes))
            } else {
                Ok(None)
            };
        };
        let line = self.unread.split_to(end);
        self.after_return = self.unread[0] == b'\r';
        self.unread.advance(1);
        self.searched = 0;
        Ok(Some(line))
    }
}

/// The value of a line that has this field, with one space after the colon left out.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest {
        [] => Some(rest),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}
