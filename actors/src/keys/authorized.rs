//! The clients an executor serves: one public key a line, and what its holder may do.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dwell_messages::PublicKey;

use super::error::KeyError;
use super::files::{self, Trust};
use super::grant::Grant;
use super::hex::{key_from_hex, push_hex};
use super::low_order::is_low_order;

/// The most keys a list may hold.
pub const AUTHORIZED_CLIENTS_MAX: usize = 1024;
/// The most bytes a list may hold.
pub const AUTHORIZED_CLIENTS_MAX_BYTES: u64 = 256 * 1024;
/// The most characters of a comment.
const COMMENT_MAX_CHARS: usize = 128;

/// A file that was changed less than this long ago, in seconds, may change again without its time stamps showing it.
const STAMP_SETTLED_S: u64 = 2;

/// The clients an executor serves. An empty or missing file means nobody.
///
/// A line is a key in 64 hexadecimal digits, then the options of a [`Grant`], then nothing or a comment that begins
/// with `#`. Anything else is an error, so that an option of a later version is never taken for a comment and ignored.
#[derive(Debug)]
pub struct AuthorizedClients {
    path: PathBuf,
    content: Vec<u8>,
    stamp: Option<Stamp>,
    keys: Vec<PublicKey>,
    /// One for each key, in the same order.
    grants: Vec<Grant>,
}

/// What a file's metadata says of its content; `None` where there is no file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn take(path: &Path) -> Option<Self> {
        std::fs::symlink_metadata(path)
            .ok()
            .map(|metadata| Self::of(&metadata))
    }

    /// Whether the next change of the file is sure to show in its stamp.
    fn is_settled(&self, now_unix_s: u64) -> bool {
        u64::try_from(self.changed.0)
            .is_ok_and(|changed| changed.saturating_add(STAMP_SETTLED_S) < now_unix_s)
    }
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
        let stamp = Stamp::take(path);
        let content = read(path)?;
        let (keys, grants) = parse(path, &content)?;
        Ok(Self {
            path: path.to_owned(),
            content,
            stamp,
            keys,
            grants,
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
        // Before it is read: a change in between is seen the next time.
        let stamp = Stamp::take(&self.path);
        let content = read(&self.path)?;
        if content == self.content {
            self.stamp = stamp;
            return Ok(Reload::Unchanged);
        }
        (self.keys, self.grants) = parse(&self.path, &content)?;
        self.content = content;
        self.stamp = stamp;
        Ok(Reload::Changed)
    }

    /// As [`AuthorizedClients::reload_if_changed`], but reads the file only if its metadata is not what it was, or is
    /// too young to tell. For a poll: one system call when nothing has happened.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reload_if_touched(&mut self, now_unix_s: u64) -> Result<Reload, KeyError> {
        let stamp = Stamp::take(&self.path);
        if stamp == self.stamp && stamp.is_none_or(|stamp| stamp.is_settled(now_unix_s)) {
            return Ok(Reload::Unchanged);
        }
        self.reload_if_changed()
    }

    /// Whether a client is listed. Takes the same time wherever in the list a key is, and if it is not.
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.grant(key).is_some()
    }

    /// What a listed client may do, whether or not that is over. Takes the same time for every key.
    pub fn grant(&self, key: &PublicKey) -> Option<Grant> {
        let mut found = None;
        for (known, grant) in self.keys.iter().zip(&self.grants) {
            let difference = known.0.iter().zip(&key.0).fold(0, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(*grant);
            }
        }
        found
    }

    /// The keys in the order of the file.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a key to the list at `path` with the default grant: see [`AuthorizedClients::add_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn add(path: &Path, key: &PublicKey, comment: &str) -> Result<Reload, KeyError> {
        Self::add_with(path, key, &Grant::default(), comment)
    }

    /// Adds a key to the list at `path`, which is made if there is none. Adding a key twice changes nothing.
    ///
    /// The list is replaced as a whole: a reader sees the old or the new one. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// A list with a line that is no key is not touched; [`KeyError::Listed`] for a key that is there with another
    /// grant; [`KeyError::Busy`] while another process changes it.
    pub fn add_with(path: &Path, key: &PublicKey, grant: &Grant, comment: &str) -> Result<Reload, KeyError> {
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
        let (keys, grants) = parse(path, &content)?;
        if let Some(index) = keys.iter().position(|listed| listed == key) {
            if grants[index] == *grant {
                return Ok(Reload::Unchanged);
            }
            return Err(KeyError::Listed {
                path: path.to_owned(),
                key: *key,
                grant: grants[index].to_string(),
            });
        }
        if keys.len() >= AUTHORIZED_CLIENTS_MAX {
            return Err(too_many(path));
        }
        let mut line = String::new();
        push_hex(&mut line, &key.0);
        let options = grant.to_string();
        if !options.is_empty() {
            line.push(' ');
            line.push_str(&options);
        }
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

fn parse(path: &Path, content: &[u8]) -> Result<(Vec<PublicKey>, Vec<Grant>), KeyError> {
    let (mut keys, mut grants) = (Vec::new(), Vec::new());
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |problem| KeyError::Line {
            path: path.to_owned(),
            line: index + 1,
            problem,
        };
        let Some((key, grant)) = parse_line(line).map_err(wrong)? else {
            continue;
        };
        match keys.iter().position(|listed| *listed == key) {
            Some(first) if grants[first] != grant => {
                return Err(wrong("the key stands in an earlier line with other options"));
            }
            Some(_) => {}
            None => {
                keys.push(key);
                grants.push(grant);
            }
        }
        if keys.len() > AUTHORIZED_CLIENTS_MAX {
            return Err(too_many(path));
        }
    }
    Ok((keys, grants))
}

fn parse_line(line: &[u8]) -> Result<Option<(PublicKey, Grant)>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not text")?;
    let text = line.split_once('#').map_or(line, |(before, _)| before).trim();
    if text.is_empty() {
        return Ok(None);
    }
    parse_authorization(text).map(Some)
}

/// A key and, behind a blank or a comma, its options: a line of the file without its comment.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn parse_authorization(text: &str) -> Result<(PublicKey, Grant), &'static str> {
    let (key, options) = text.split_once([' ', '\t', ',']).unwrap_or((text, ""));
    let key = key_from_hex(key).ok_or(
        "expected a key of 64 hexadecimal digits, then its options, then nothing or a comment after #",
    )?;
    if is_low_order(&key) {
        return Err("the key is a point of low order and nobody's");
    }
    Ok((PublicKey(key), Grant::parse(options)?))
}

fn too_many(path: &Path) -> KeyError {
    KeyError::TooMany {
        path: path.to_owned(),
        max: AUTHORIZED_CLIENTS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::keys::ScopeSet;

    fn clients() -> impl Strategy<Value = Vec<([u8; 32], u8, Option<u32>)>> {
        vec(
            (any::<[u8; 32]>(), 0..128_u8, proptest::option::of(1..u32::MAX)),
            0..20,
        )
    }

    proptest! {
        #[test]
        fn every_list_comes_back(clients in clients(), comment in "[ -~]{0,20}") {
            let (mut content, mut keys, mut grants) = (String::new(), Vec::new(), Vec::new());
            for (key, bits, sessions_max) in clients {
                if is_low_order(&key) || keys.contains(&PublicKey(key)) {
                    continue;
                }
                let grant = Grant { scopes: ScopeSet::from_bits(bits), sessions_max, ..Grant::default() };
                content.push_str(&format!("{} {grant} # {comment}\n", PublicKey(key)));
                keys.push(PublicKey(key));
                grants.push(grant);
            }
            prop_assert_eq!(parse(Path::new("x"), content.as_bytes()).unwrap(), (keys, grants));
        }

        #[test]
        fn no_bytes_panic(content in vec(any::<u8>(), 0..300), options in "[a-z0-9=+,:# -]{0,60}") {
            let _ = parse(Path::new("x"), &content);
            let line = format!("{} {options}", "1".repeat(64));
            let _ = parse(Path::new("x"), line.as_bytes());
        }
    }
}
