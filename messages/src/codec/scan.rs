//! Looks over MessagePack before serde does: depth, counts, lengths and the end, without recursion or allocation.

use super::DecodeError;

/// Most nesting of a body.
pub const DEPTH_MAX: usize = 32;
/// Most elements of one array, or pairs of one map.
pub const ELEMENTS_MAX: usize = 65_536;

/// Accepts exactly one value that fills `bytes`.
///
/// # Errors
/// What is wrong first: truncation, a reserved or extension type, too deep, too many elements, or bytes behind it.
pub(crate) fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut rest = Rest { bytes, at: 0 };
    // Values still to come at each open level.
    let mut open = [0_usize; DEPTH_MAX];
    let mut depth = 0;
    loop {
        if let Some(children) = rest.value()? {
            // An empty collection nests too: serde descends into it like into any other.
            if depth == DEPTH_MAX {
                return Err(DecodeError::TooDeep { limit: DEPTH_MAX });
            }
            if children > 0 {
                open[depth] = children;
                depth += 1;
                continue;
            }
        }
        while depth > 0 && open[depth - 1] == 1 {
            depth -= 1;
        }
        if depth == 0 {
            return if rest.at == bytes.len() {
                Ok(())
            } else {
                Err(DecodeError::TrailingBytes)
            };
        }
        open[depth - 1] -= 1;
    }
}

struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    /// Passes over one value's head and its scalar bytes; returns how many values a collection holds.
    fn value(&mut self) -> Result<Option<usize>, DecodeError> {
        let head = self.take(1)?[0];
        let (elements, values_each) = match head {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => return Ok(None),
            0x80..=0x8f => (usize::from(head & 0x0f), 2),
            0x90..=0x9f => (usize::from(head & 0x0f), 1),
            0xa0..=0xbf => return self.skip(usize::from(head & 0x1f)),
            0xc4 | 0xd9 => return self.sized(1),
            0xc5 | 0xda => return self.sized(2),
            0xc6 | 0xdb => return self.sized(4),
            0xcc | 0xd0 => return self.skip(1),
            0xcd | 0xd1 => return self.skip(2),
            0xca | 0xce | 0xd2 => return self.skip(4),
            0xcb | 0xcf | 0xd3 => return self.skip(8),
            0xdc => (self.number(2)?, 1),
            0xdd => (self.number(4)?, 1),
            0xde => (self.number(2)?, 2),
            0xdf => (self.number(4)?, 2),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(DecodeError::ForbiddenType { head }),
        };
        if elements > ELEMENTS_MAX {
            return Err(DecodeError::TooMany { limit: ELEMENTS_MAX });
        }
        let children = values_each * elements;
        // Every element takes a byte at least: a count past the end is a lie.
        if children > self.bytes.len() - self.at {
            return Err(DecodeError::Truncated);
        }
        Ok(Some(children))
    }

    fn take(&mut self, count: usize) -> Result<&[u8], DecodeError> {
        let end = self.at.checked_add(count).ok_or(DecodeError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(DecodeError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<Option<usize>, DecodeError> {
        self.take(count).map(|_| None)
    }

    fn number(&mut self, width: usize) -> Result<usize, DecodeError> {
        Ok(self
            .take(width)?
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn sized(&mut self, width: usize) -> Result<Option<usize>, DecodeError> {
        let length = self.number(width)?;
        self.skip(length)
    }
}
