//! The executors a client trusts: a name, the one key it answers with, and where it is reached.

use std::fmt;
use std::path::{Path, PathBuf};

use dwell_messages::PublicKey;

use super::error::KeyError;
use super::files::{self, Trust};
use super::hex::{key_from_hex, push_hex};
use super::low_order::is_low_order;

/// The most executors a file may hold.
pub const KNOWN_EXECUTORS_MAX: usize = 1024;
/// The most bytes it may hold.
pub const KNOWN_EXECUTORS_MAX_BYTES: u64 = 512 * 1024;
/// The longest name of an executor.
pub const EXECUTOR_NAME_MAX_BYTES: usize = 64;
/// The longest address.
const ADDRESS_MAX_BYTES: usize = 255;

/// What a user calls an executor: letters, digits, `.`, `_` and `-`, not beginning with `-` or `.`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ExecutorName(String);

impl ExecutorName {
    /// Takes a name.
    ///
    /// # Errors
    /// What a name is, in words.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty()
            || text.len() > EXECUTOR_NAME_MAX_BYTES
            || text.starts_with(['-', '.'])
            || !text.bytes().all(fits)
        {
            return Err(
                "a name has 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first",
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The name nearest to a machine's own.
    pub fn from_hostname(hostname: &str) -> Self {
        let fitting: String = hostname
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .take(EXECUTOR_NAME_MAX_BYTES)
            .collect();
        Self::new(fitting.trim_start_matches(['-', '.'])).unwrap_or_else(|_| Self("executor".into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExecutorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an executor is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KnownRoute {
    /// Through the relay at this address.
    Relay(String),
    /// At this address itself.
    Direct(String),
}

impl KnownRoute {
    pub(super) fn parse(name: &str, address: &str) -> Result<Self, &'static str> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if address.is_empty() || address.len() > ADDRESS_MAX_BYTES || address.contains(odd) {
            return Err("an address has 1 to 255 bytes and no blanks");
        }
        match name {
            "relay" => Ok(Self::Relay(address.to_owned())),
            "direct" => Ok(Self::Direct(address.to_owned())),
            _ => Err("a way is relay or direct"),
        }
    }

    pub(super) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Relay(address) => ("relay", address),
            Self::Direct(address) => ("direct", address),
        }
    }
}

/// A line of `known_executors`. The text form is `NAME KEY`, then `relay=ADDRESS` or `direct=ADDRESS` or neither.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownExecutor {
    /// What it is called here.
    pub name: ExecutorName,
    /// The key it must answer with.
    pub key: PublicKey,
    /// Where it is reached, if the file says.
    pub route: Option<KnownRoute>,
}

impl KnownExecutor {
    /// From the text form.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut words = text.split_ascii_whitespace();
        let (Some(name), Some(key)) = (words.next(), words.next()) else {
            return Err("expected a name and a key");
        };
        let name = ExecutorName::new(name)?;
        let key = key_from_hex(key).ok_or("expected a key of 64 hexadecimal digits behind the name")?;
        if is_low_order(&key) {
            return Err("the key is a point of low order and nobody's");
        }
        let route = match words.next() {
            None => None,
            Some(word) => {
                let (way, address) = word
                    .split_once('=')
                    .ok_or("behind the key stands relay=ADDRESS or direct=ADDRESS")?;
                Some(KnownRoute::parse(way, address)?)
            }
        };
        if words.next().is_some() {
            return Err("there is more than a name, a key and an address");
        }
        Ok(Self {
            name,
            key: PublicKey(key),
            route,
        })
    }
}

impl fmt::Display for KnownExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = String::new();
        push_hex(&mut key, &self.key.0);
        write!(f, "{} {key}", self.name)?;
        if let Some(route) = &self.route {
            let (way, address) = route.parts();
            write!(f, " {way}={address}")?;
        }
        Ok(())
    }
}

/// Whether a pin is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pinned {
    /// It was not known before.
    New,
    /// It was, with this very key.
    Already,
}

/// The executors this client trusts. A line that cannot be understood hides itself alone, and is an error wherever it
/// could matter: for a name that is not found, and for whoever would write the file.
#[derive(Debug)]
pub struct KnownExecutors {
    path: PathBuf,
    entries: Vec<KnownExecutor>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
enum Problem {
    Line(usize, &'static str),
    Several(usize, String),
}

impl KnownExecutors {
    /// Reads the file at `path`; a missing one knows nobody. Blocks on the file system.
    ///
    /// # Errors
    /// A file that others may write, or that is none. Lines that cannot be understood are in
    /// [`KnownExecutors::problems`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let content = read(path)?;
        parse(path, &content)
    }

    /// The executor of this name.
    ///
    /// # Errors
    /// [`KeyError::SeveralKeys`]; [`KeyError::UnknownExecutor`], or the line that may have been meant.
    pub fn find(&self, name: &str) -> Result<&KnownExecutor, KeyError> {
        if let Some(problem) = self
            .problems
            .iter()
            .find(|problem| matches!(problem, Problem::Several(_, of) if of == name))
        {
            return Err(self.error(problem));
        }
        if let Some(known) = self.entries.iter().find(|known| known.name.as_str() == name) {
            return Ok(known);
        }
        Err(match self.problems.first() {
            Some(problem) => self.error(problem),
            None => KeyError::UnknownExecutor {
                path: self.path.clone(),
                name: name.to_owned(),
            },
        })
    }

    /// All of them, in the order of the file.
    pub fn entries(&self) -> &[KnownExecutor] {
        &self.entries
    }

    /// What is wrong with lines of the file.
    pub fn problems(&self) -> Vec<KeyError> {
        self.problems.iter().map(|problem| self.error(problem)).collect()
    }

    /// Pins an executor's key in the file at `path`, which is made if there is none. Pinning it twice changes nothing;
    /// another key under a known name is never taken. Blocks on the file system.
    ///
    /// # Errors
    /// [`KeyError::Changed`], with both fingerprints; a file with a line that cannot be understood is not touched.
    pub fn pin(path: &Path, executor: &KnownExecutor) -> Result<Pinned, KeyError> {
        if is_low_order(&executor.key.0) {
            return Err(KeyError::Rejected {
                problem: "the key is a point of low order and nobody's",
            });
        }
        let dir = files::prepare_dir(path)?;
        let _lock = files::lock_dir(&dir, path)?;
        let mut content = read(path)?;
        let known = parse(path, &content)?;
        if let Some(problem) = known.problems.first() {
            return Err(known.error(problem));
        }
        if let Some(pinned) = known.entries.iter().find(|entry| entry.name == executor.name) {
            if pinned.key == executor.key {
                return Ok(Pinned::Already);
            }
            return Err(KeyError::Changed {
                path: path.to_owned(),
                name: executor.name.to_string(),
                pinned: pinned.key,
                offered: executor.key,
            });
        }
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        content.extend_from_slice(format!("{executor}\n").as_bytes());
        if known.entries.len() >= KNOWN_EXECUTORS_MAX {
            return Err(too_many(path));
        }
        if content.len() as u64 > KNOWN_EXECUTORS_MAX_BYTES {
            return Err(KeyError::TooLarge {
                path: path.to_owned(),
                max_bytes: KNOWN_EXECUTORS_MAX_BYTES,
            });
        }
        files::replace(&dir, path, &content)?;
        Ok(Pinned::New)
    }

    fn error(&self, problem: &Problem) -> KeyError {
        match problem {
            Problem::Line(line, problem) => KeyError::Line {
                path: self.path.clone(),
                line: *line,
                problem,
            },
            Problem::Several(line, name) => KeyError::SeveralKeys {
                path: self.path.clone(),
                line: *line,
                name: name.clone(),
            },
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes = files::read(path, Trust::Decisive, KNOWN_EXECUTORS_MAX_BYTES)?;
    Ok(bytes.map(|bytes| bytes.to_vec()).unwrap_or_default())
}

fn parse(path: &Path, content: &[u8]) -> Result<KnownExecutors, KeyError> {
    let (mut entries, mut problems): (Vec<KnownExecutor>, _) = (Vec::new(), Vec::new());
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line_number = index + 1;
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some(found)) => match entries.iter().find(|entry| entry.name == found.name) {
                // Said twice is said once.
                Some(entry) if entry.key == found.key => {}
                Some(_) => problems.push(Problem::Several(line_number, found.name.to_string())),
                None => entries.push(found),
            },
            Err(problem) => problems.push(Problem::Line(line_number, problem)),
        }
        if entries.len().max(problems.len()) > KNOWN_EXECUTORS_MAX {
            return Err(too_many(path));
        }
    }
    Ok(KnownExecutors {
        path: path.to_owned(),
        entries,
        problems,
    })
}

fn parse_line(line: &[u8]) -> Result<Option<KnownExecutor>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not text")?;
    let text = line.split_once('#').map_or(line, |(before, _)| before).trim();
    if text.is_empty() {
        return Ok(None);
    }
    KnownExecutor::parse(text).map(Some)
}

fn too_many(path: &Path) -> KeyError {
    KeyError::TooMany {
        path: path.to_owned(),
        max: KNOWN_EXECUTORS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(content in vec(any::<u8>(), 0..300)) {
            let known = parse(Path::new("x"), &content).unwrap();
            prop_assert!(known.entries().len() + known.problems().len() <= 300);
        }
    }
}
