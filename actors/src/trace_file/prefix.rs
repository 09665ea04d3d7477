//! Ids by their first digits, as people copy them.

use std::fmt;
use std::path::Path;

use dwell_messages::TraceId;

use super::error::TraceFileError;
use super::names::ROLES;
use super::trace::{files, for_each_line};

/// The digits of a whole id.
const DIGITS: usize = 32;
/// How many candidates an ambiguous prefix names.
const CANDIDATES_MAX: usize = 8;

/// The first digits of a trace id: at least one, at most all 32.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TracePrefix(String);

/// Which trace a prefix means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// This one. Whether there is a span of it is not known when all digits were given.
    One(TraceId),
    /// None in the files.
    None,
    /// More than one; some of them, the newest last.
    Ambiguous(Vec<TraceId>),
}

impl TracePrefix {
    /// Reads hexadecimal digits of either case.
    ///
    /// # Errors
    ///
    /// When the text is empty, too long, or has something else in it; the text says what an id is.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits || text.len() > DIGITS {
            return Err("a trace id is 32 hexadecimal digits, of which the first few are enough");
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The whole id, if all digits were given.
    pub fn whole(&self) -> Option<TraceId> {
        if self.0.len() != DIGITS {
            return None;
        }
        u128::from_str_radix(&self.0, 16)
            .ok()
            .map(|id| TraceId(id.to_be_bytes()))
    }

    /// Whether an id begins with these digits.
    pub fn begins(&self, id: TraceId) -> bool {
        self.0.bytes().enumerate().all(|(at, digit)| {
            let byte = id.0[at / 2];
            let nibble = if at % 2 == 0 { byte >> 4 } else { byte & 0xf };
            char::from(digit).to_digit(16) == Some(u32::from(nibble))
        })
    }

    /// Which trace of a directory's files these digits mean. Reads nothing when they are a whole id.
    ///
    /// # Errors
    ///
    /// When a file that is there cannot be read.
    pub fn resolve(&self, dir: &Path) -> Result<Named, TraceFileError> {
        if let Some(whole) = self.whole() {
            return Ok(Named::One(whole));
        }
        let mut found: Vec<TraceId> = Vec::new();
        for path in ROLES.into_iter().flat_map(|role| files(dir, role)) {
            for_each_line(&path, |line| {
                for id in line.spans.iter().map(|span| span.trace()) {
                    if self.begins(id) && !found.contains(&id) {
                        if found.len() >= CANDIDATES_MAX {
                            found.remove(0);
                        }
                        found.push(id);
                    }
                }
            })?;
        }
        Ok(match found.as_slice() {
            [] => Named::None,
            [only] => Named::One(*only),
            [_, _, ..] => Named::Ambiguous(found),
        })
    }
}

impl fmt::Display for TracePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
