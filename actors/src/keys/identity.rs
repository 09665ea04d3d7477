//! The identity file: one static key pair, made once and never replaced.

use std::fmt;
use std::path::{Path, PathBuf};

use dwell_messages::PublicKey;
use zeroize::{Zeroize, Zeroizing};

use super::error::KeyError;
use super::files::{self, Trust};
use super::hex::{key_from_hex, push_hex};
use super::low_order::is_low_order;

/// The most an identity file may hold.
pub const IDENTITY_FILE_MAX_BYTES: u64 = 1024;

const HEADER: &str = "dwell-key-v1";
/// Header, two labels, two keys and the line ends, with room to spare: the text never outgrows its first buffer.
const TEXT_BYTES: usize = 192;

/// A static X25519 key pair. `Debug` shows the public half alone.
pub struct Identity {
    private: Zeroizing<[u8; 32]>,
    public: PublicKey,
    path: PathBuf,
}

/// Whether an identity was made just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// It is new: its public key has to be enrolled where it is to be known.
    New,
    /// It was there already.
    Existing,
}

impl Identity {
    /// Loads the identity at `path`; makes one from `generate` (private, public) if there is no file at all.
    ///
    /// The file is written whole, synced and put in place without ever replacing one: of two processes that start
    /// first at the same time, one makes the key and both use it. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// A file that is there but cannot be believed or parsed is an error, never a reason to make a new one.
    pub fn load_or_create(
        path: &Path,
        generate: impl FnOnce() -> ([u8; 32], [u8; 32]),
    ) -> Result<(Self, Created), KeyError> {
        Self::load_or_create_beside(path, &[], generate)
    }

    /// As [`Identity::load_or_create`], but makes none where one of `witnesses` exists: files that are only there
    /// because this machine had an identity before. A link that leads nowhere is such a file too.
    ///
    /// # Errors
    ///
    /// As there, and [`KeyError::Lost`].
    pub fn load_or_create_beside(
        path: &Path,
        witnesses: &[&Path],
        generate: impl FnOnce() -> ([u8; 32], [u8; 32]),
    ) -> Result<(Self, Created), KeyError> {
        let dir = files::prepare_dir(path)?;
        if let Some(identity) = Self::read(path)? {
            return Ok((identity, Created::Existing));
        }
        for witness in witnesses {
            match std::fs::symlink_metadata(witness) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(files::failed("inspect", witness, error)),
                Ok(_) => {
                    return Err(KeyError::Lost {
                        path: path.to_owned(),
                        witness: (*witness).to_owned(),
                    });
                }
            }
        }
        let (mut private, public) = generate();
        let identity = Self {
            private: Zeroizing::new(private),
            public: PublicKey(public),
            path: path.to_owned(),
        };
        private.zeroize();
        check_pair(&identity.private, &public).map_err(|problem| KeyError::Rejected { problem })?;
        if files::create_new(&dir, path, identity.text().as_bytes())? {
            return Ok((identity, Created::New));
        }
        Ok((Self::load(path)?, Created::Existing))
    }

    /// Loads the identity at `path` and never makes one.
    ///
    /// # Errors
    ///
    /// [`KeyError::Missing`] without a file; otherwise what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::read(path)?.ok_or_else(|| KeyError::Missing {
            path: path.to_owned(),
        })
    }

    /// Checks that the public key belongs to the private one, by the curve's own arithmetic.
    ///
    /// # Errors
    ///
    /// [`KeyError::Mismatch`] when it does not: a digit of the file has changed.
    pub fn check(&self, public_from_private: impl FnOnce(&[u8; 32]) -> [u8; 32]) -> Result<(), KeyError> {
        if public_from_private(&self.private) == self.public.0 {
            return Ok(());
        }
        Err(KeyError::Mismatch {
            path: self.path.clone(),
        })
    }

    /// The private half. Copy it only into memory that is wiped.
    pub fn private(&self) -> &[u8; 32] {
        &self.private
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let Some(bytes) = files::read(path, Trust::Secret, IDENTITY_FILE_MAX_BYTES)? else {
            return Ok(None);
        };
        if bytes.is_empty() {
            return Err(KeyError::Empty {
                path: path.to_owned(),
            });
        }
        let (private, public) = parse(&bytes).map_err(|(line, problem)| KeyError::Format {
            path: path.to_owned(),
            line,
            problem,
        })?;
        Ok(Some(Self {
            private,
            public,
            path: path.to_owned(),
        }))
    }

    fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push_str(HEADER);
        text.push_str("\nprivate ");
        push_hex(&mut text, &self.private);
        text.push_str("\npublic ");
        push_hex(&mut text, &self.public.0);
        text.push('\n');
        text
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

type Pair = (Zeroizing<[u8; 32]>, PublicKey);

fn parse(bytes: &[u8]) -> Result<Pair, (usize, &'static str)> {
    let text = std::str::from_utf8(bytes).map_err(|_| (1, "it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err((1, "the header is not dwell-key-v1"));
    }
    let private = Zeroizing::new(
        labelled(lines.next(), "private ").ok_or((2, "expected `private` and 64 hexadecimal digits"))?,
    );
    let public =
        labelled(lines.next(), "public ").ok_or((3, "expected `public` and 64 hexadecimal digits"))?;
    if lines.next().is_some() {
        return Err((4, "there is more than a key pair"));
    }
    if !text.ends_with('\n') {
        return Err((3, "the end of the file is missing"));
    }
    check_pair(&private, &public).map_err(|problem| (2, problem))?;
    Ok((private, PublicKey(public)))
}

fn labelled(line: Option<&str>, label: &str) -> Option<[u8; 32]> {
    key_from_hex(line?.strip_prefix(label)?)
}

fn check_pair(private: &[u8; 32], public: &[u8; 32]) -> Result<(), &'static str> {
    if private.iter().all(|byte| *byte == 0) {
        return Err("the private key is all zeroes");
    }
    if is_low_order(public) {
        return Err("the public key is a point of low order");
    }
    Ok(())
}
