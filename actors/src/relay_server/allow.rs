//! The allow file: who may use a relay that others can reach.
//!
//! One entry a line: `executor` and a public key, or `harness` and the hash of a token, each in 64 hexadecimal digits,
//! what follows on the line being a comment; or `token` and the token itself, behind which a comment begins with `#`. Empty
//! lines and lines that begin with `#` are skipped.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dwell_messages::PublicKey;
use dwell_relay::keys::KEY_BYTES;
use dwell_relay::rendezvous::TokenHash;
use dwell_relay::{Admission, parse_public_key};

/// The most bytes an allow file may have.
pub const ALLOW_FILE_MAX_BYTES: u64 = 1024 * 1024;
/// The most entries of either sort: each is compared at every opening.
pub const ALLOW_ENTRIES_MAX: usize = 4096;
/// The shortest token: shorter ones can be guessed.
pub const TOKEN_MIN_BYTES: usize = 16;
/// The longest that fits behind a preamble.
pub const TOKEN_MAX_BYTES: usize = 255;
/// Write permission for the group and for everyone.
const WRITABLE_BY_OTHERS_MODE: u32 = 0o022;

/// An allow file is not usable: nobody is admitted by half of one.
#[derive(Debug, thiserror::Error)]
pub enum AllowError {
    /// It could not be read.
    #[error("the allow file {} could not be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others decide what is in it.
    #[error("the allow file {} can be changed by others than its owner: run chmod go-w on it", path.display())]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// Not a list of this size, or not a plain file.
    #[error("the allow file is not a plain file of at most {ALLOW_FILE_MAX_BYTES} bytes: check its path")]
    NotAList,
    /// A line is no entry.
    #[error("line {line} of the allow file: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What to correct.
        problem: LineProblem,
    },
    /// Too many entries.
    #[error(
        "line {line} of the allow file is past the {ALLOW_ENTRIES_MAX} entries of one sort it may have: remove some"
    )]
    TooMany {
        /// The number of the line, from 1.
        line: usize,
    },
}

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineProblem {
    /// Not UTF-8.
    #[error("it is not text: write it as UTF-8")]
    NotText,
    /// Neither sort of entry.
    #[error("it begins with none of `executor`, `token` and `harness`")]
    Sort,
    /// A token that cannot be one. It is not repeated.
    #[error("a token has {TOKEN_MIN_BYTES} to {TOKEN_MAX_BYTES} bytes, and only a # comment behind it")]
    Token,
    /// No value.
    #[error("64 hexadecimal digits must follow the first word")]
    Digits,
    /// No executor can prove this key.
    #[error("the key has small order and is nobody's: copy the executor's key again")]
    LowOrder,
}

/// Reads an allow file. Blocks on the file system.
///
/// # Errors
/// [`AllowError`]; a missing file is an error too.
pub fn load_allow_file(path: &Path) -> Result<Admission, AllowError> {
    let failed = |source| AllowError::Read {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(AllowError::NotAList);
    }
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & WRITABLE_BY_OTHERS_MODE != 0 {
        return Err(AllowError::Writable {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(ALLOW_FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    parse_allow_list(&bytes)
}

/// Reads the contents of an allow file. An empty one admits nobody.
///
/// # Errors
/// [`AllowError::Line`] and [`AllowError::TooMany`] with the line's number; [`AllowError::NotAList`] when it is too
/// large.
pub fn parse_allow_list(content: &[u8]) -> Result<Admission, AllowError> {
    if content.len() as u64 > ALLOW_FILE_MAX_BYTES {
        return Err(AllowError::NotAList);
    }
    let (mut executors, mut harness_tokens) = (Vec::new(), Vec::new());
    for (index, bytes) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        match parse_line(bytes).map_err(|problem| AllowError::Line { line, problem })? {
            Some(Entry::Executor(key)) => executors.push(key),
            Some(Entry::Harness(hash)) => harness_tokens.push(hash),
            None => {}
        }
        if executors.len().max(harness_tokens.len()) > ALLOW_ENTRIES_MAX {
            return Err(AllowError::TooMany { line });
        }
    }
    Ok(Admission::Listed {
        executors,
        harness_tokens,
    })
}

enum Entry {
    Executor(PublicKey),
    Harness(TokenHash),
}

fn parse_line(bytes: &[u8]) -> Result<Option<Entry>, LineProblem> {
    let text = std::str::from_utf8(bytes).map_err(|_| LineProblem::NotText)?;
    let mut words = text.split_ascii_whitespace();
    let Some(sort) = words.next().filter(|word| !word.starts_with('#')) else {
        return Ok(None);
    };
    if sort == "token" {
        let (token, comment) = (words.next().unwrap_or(""), words.next());
        let fits = (TOKEN_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len());
        return if fits && comment.is_none_or(|word| word.starts_with('#')) {
            Ok(Some(Entry::Harness(TokenHash::of(token.as_bytes()))))
        } else {
            Err(LineProblem::Token)
        };
    }
    let value = words.next().and_then(from_hex).ok_or(LineProblem::Digits);
    match sort {
        "executor" => {
            let key = parse_public_key(&value?).map_err(|_| LineProblem::LowOrder)?;
            Ok(Some(Entry::Executor(key)))
        }
        "harness" => Ok(Some(Entry::Harness(TokenHash(value?)))),
        _ => Err(LineProblem::Sort),
    }
}

/// The bytes of exactly 64 hexadecimal digits of either case.
fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let nibble = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let mut bytes = [0; KEY_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}
