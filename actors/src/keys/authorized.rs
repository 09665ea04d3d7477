//! The clients an executor serves: one public key a line.

use std::path::{Path, PathBuf};

use dwell_messages::PublicKey;

use super::error::KeyError;
use super::files::{self, Trust};
use super::hex::{key_from_hex, push_hex};
use super::low_order::is_low_order;

/// The most keys a list may hold.
pub const AUTHORIZED_CLIENTS_MAX: usize = 1024;
/// The most bytes a list may hold.
pub const AUTHORIZED_CLIENTS_MAX_BYTES: u64 = 256 * 1024;
/// The most characters of a comment.
const COMMENT_MAX_CHARS: usize = 128;

/// The clients an executor serves. An empty or missing file means nobody.
///
/// A line is a key in 64 hexadecimal digits, then nothing or a comment that begins with `#`. Anything else is an
/// error, so that an option of a later version is never taken for a comment and ignored.
#[derive(Debug)]
pub struct AuthorizedClients {
    path: PathBuf,
    content: Vec<u8>,
    keys: Vec<PublicKey>,
}

/// What a reload found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reload {
    /// The file says what it said before.
    Unchanged,
    /// The list is a new one: live sessions have to be looked at again.
    Changed,
}

impl AuthorizedClients {
    /// Reads the list at `path`. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`KeyError::Line`] with the number of a line that is no key; a file that others may write.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let content = read(path)?;
        let keys = parse(path, &content)?;
        Ok(Self {
            path: path.to_owned(),
            content,
            keys,
        })
    }

    /// Reads the file again and takes it over whole, or keeps the old list whole.
    ///
    /// It compares content and not time stamps, so no change is too quick to be seen. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// As [`AuthorizedClients::load`]; the list is then what it was, and the next call reports the error again.
    pub fn reload_if_changed(&mut self) -> Result<Reload, KeyError> {
        let content = read(&self.path)?;
        if content == self.content {
            return Ok(Reload::Unchanged);
        }
        self.keys = parse(&self.path, &content)?;
        self.content = content;
        Ok(Reload::Changed)
    }

    /// Whether a client is served. Takes the same time wherever in the list a key is, and if it is not.
    pub fn contains(&self, key: &PublicKey) -> bool {
        let mut found = false;
        for known in &self.keys {
            let difference = known.0.iter().zip(&key.0).fold(0, |sum, (a, b)| sum | (a ^ b));
            found |= std::hint::black_box(difference) == 0;
        }
        found
    }

    /// The keys in the order of the file.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Adds a key to the list at `path`, which is made if there is none. Adding a key twice changes nothing.
    ///
    /// The list is replaced as a whole: a reader sees the old or the new one. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// A list with a line that is no key is not touched; [`KeyError::Busy`] while another process changes it.
    pub fn add(path: &Path, key: &PublicKey, comment: &str) -> Result<Reload, KeyError> {
        if is_low_order(&key.0) {
            return Err(KeyError::Rejected {
                problem: "the key is a point of low order and nobody's",
            });
        }
        if comment.chars().any(char::is_control) || comment.chars().count() > COMMENT_MAX_CHARS {
            return Err(KeyError::Rejected {
                problem: "a comment is one line of at most 128 characters",
            });
        }
        let dir = files::prepare_dir(path)?;
        let _lock = files::lock_dir(&dir, path)?;
        let mut content = read(path)?;
        let keys = parse(path, &content)?;
        if keys.contains(key) {
            return Ok(Reload::Unchanged);
        }
        if keys.len() >= AUTHORIZED_CLIENTS_MAX {
            return Err(too_many(path));
        }
        let mut line = String::new();
        push_hex(&mut line, &key.0);
        if !comment.is_empty() {
            line.push_str(" # ");
            line.push_str(comment);
        }
        line.push('\n');
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        content.extend_from_slice(line.as_bytes());
        if content.len() as u64 > AUTHORIZED_CLIENTS_MAX_BYTES {
            return Err(KeyError::TooLarge {
                path: path.to_owned(),
                max_bytes: AUTHORIZED_CLIENTS_MAX_BYTES,
            });
        }
        files::replace(&dir, path, &content)?;
        Ok(Reload::Changed)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes = files::read(path, Trust::Decisive, AUTHORIZED_CLIENTS_MAX_BYTES)?;
    Ok(bytes.map(|bytes| bytes.to_vec()).unwrap_or_default())
}

fn parse(path: &Path, content: &[u8]) -> Result<Vec<PublicKey>, KeyError> {
    let mut keys = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let key = parse_line(line).map_err(|problem| KeyError::Line {
            path: path.to_owned(),
            line: index + 1,
            problem,
        })?;
        if let Some(key) = key.filter(|key| !keys.contains(key)) {
            keys.push(key);
        }
        if keys.len() > AUTHORIZED_CLIENTS_MAX {
            return Err(too_many(path));
        }
    }
    Ok(keys)
}

fn parse_line(line: &[u8]) -> Result<Option<PublicKey>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not text")?;
    let text = line.split_once('#').map_or(line, |(before, _)| before).trim();
    if text.is_empty() {
        return Ok(None);
    }
    let key =
        key_from_hex(text).ok_or("expected 64 hexadecimal digits, then nothing or a comment after #")?;
    if is_low_order(&key) {
        return Err("the key is a point of low order and nobody's");
    }
    Ok(Some(PublicKey(key)))
}

fn too_many(path: &Path) -> KeyError {
    KeyError::TooMany {
        path: path.to_owned(),
        max: AUTHORIZED_CLIENTS_MAX,
    }
}
