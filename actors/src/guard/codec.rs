//! Numbers, strings and their bounds: how the words of the guard's protocol are written and read.

/// The version in every message's first byte.
pub(super) const VERSION: u8 = 1;

/// The most strings in one request.
const STRINGS_MAX: u32 = 1 << 20;

/// A message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message of the guard's protocol cannot be read ({0}): use one build of the program for both sides"
)]
pub(crate) struct BadMessage(pub(super) &'static str);

pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        Self {
            bytes: vec![VERSION, kind],
        }
    }

    pub(super) fn flag(mut self, flag: bool) -> Self {
        self.bytes.push(u8::from(flag));
        self
    }

    pub(super) fn u32(mut self, number: u32) -> Self {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(super) fn i32(mut self, number: i32) -> Self {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(super) fn option(mut self, number: Option<u64>) -> Self {
        self.bytes.push(u8::from(number.is_some()));
        self.bytes.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
        self
    }

    /// A length no message reaches is written as one that no reader takes.
    pub(super) fn count(self, count: usize) -> Self {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    pub(super) fn string(self, string: &[u8]) -> Self {
        let mut this = self.count(string.len());
        this.bytes.extend_from_slice(string);
        this
    }
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<(u8, Self), BadMessage> {
        match bytes {
            [VERSION, kind, rest @ ..] => Ok((*kind, Self { rest })),
            [] | [_] => Err(BadMessage("too short")),
            [..] => Err(BadMessage("another version")),
        }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], BadMessage> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(BadMessage("too short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn flag(&mut self) -> Result<bool, BadMessage> {
        match self.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(BadMessage("neither yes nor no")),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, BadMessage> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, BadMessage> {
        Ok(i32::from_le_bytes(self.take()?))
    }

    pub(super) fn option(&mut self) -> Result<Option<u64>, BadMessage> {
        let is_there = self.flag()?;
        let number = u64::from_le_bytes(self.take()?);
        Ok(is_there.then_some(number))
    }

    pub(super) fn count(&mut self) -> Result<u32, BadMessage> {
        match self.u32()? {
            count if count <= STRINGS_MAX => Ok(count),
            _ => Err(BadMessage("too many strings")),
        }
    }

    pub(super) fn string(&mut self) -> Result<Vec<u8>, BadMessage> {
        let length = self.u32()? as usize;
        let (string, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(BadMessage("too short"))?;
        self.rest = rest;
        Ok(string.to_vec())
    }

    pub(super) fn end<T>(self, message: T) -> Result<T, BadMessage> {
        if self.rest.is_empty() {
            Ok(message)
        } else {
            Err(BadMessage("too long"))
        }
    }
}
