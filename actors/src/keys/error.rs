//! What can be wrong with a key file, and what to do about it.

use std::io;
use std::path::PathBuf;

use dwell_messages::PublicKey;
use dwell_relay::fingerprint;

/// A key file was refused. Nothing was changed and nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system refused a step.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No identity file where one was expected.
    #[error("there is no identity at {}; make one with `dwell key`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A link, a directory, a pipe or a device stands in the file's place.
    #[error("{} is {found}, not a regular file; put the file itself there", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What stands there.
        found: &'static str,
    },
    /// The file or its directory is open to others.
    #[error("{} has mode {mode:04o}, which lets others {danger}; run `chmod {wanted:o}` on it if you trust its content", path.display())]
    Mode {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What others could do.
        danger: &'static str,
        /// The mode it should have.
        wanted: u32,
    },
    /// The file or its directory belongs to somebody else.
    #[error("{} belongs to user {owner} and not to user {wanted}; run as its owner or `chown` it if you trust its content", path.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        wanted: u32,
    },
    /// The file is larger than such a file can be.
    #[error("{} is larger than {max_bytes} bytes; it is not such a file", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// The most it may hold.
        max_bytes: u64,
    },
    /// The file is empty: a creation that was cut short, or a truncation.
    #[error("{} is empty; restore it from a backup, or remove it and enrol the new key that is then made", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The identity file is not in its format.
    #[error("{} line {line}: {problem}; restore it from a backup, or remove it and enrol the new key that is then made", path.display())]
    Format {
        /// The path.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The public key in the file is not the private key's.
    #[error("the public key in {} does not belong to its private key; restore the file from a backup", path.display())]
    Mismatch {
        /// The path.
        path: PathBuf,
    },
    /// A line of `authorized_clients` or `known_executors` cannot be understood.
    #[error("{} line {line}: {problem}; correct or remove the line", path.display())]
    Line {
        /// The path.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The list holds as many keys as it may.
    #[error("{} would hold more than {max} keys; remove those no longer used", path.display())]
    TooMany {
        /// The path.
        path: PathBuf,
        /// The most it may hold.
        max: usize,
    },
    /// The key is on the list already, and may do something else.
    #[error(
        "{key} is listed in {} already, with {}; change that line by hand if it is to be another",
        path.display(),
        if grant.is_empty() { "the default options" } else { grant }
    )]
    Listed {
        /// The path.
        path: PathBuf,
        /// The key.
        key: PublicKey,
        /// Its options there.
        grant: String,
    },
    /// The identity is gone, and what was built on it is not.
    #[error(
        "there is no identity at {}, but {} says that there was one: restore it from a backup; to begin anew under a \
         new key, which everybody has to be told, move {} away first",
        path.display(), witness.display(), witness.display()
    )]
    Lost {
        /// Where it was looked for.
        path: PathBuf,
        /// What says that it was there.
        witness: PathBuf,
    },
    /// Nobody of this name is known.
    #[error("{} knows no executor called {name}; `dwell trust LINE` adds one, from the line that `dwell executor` prints", path.display())]
    UnknownExecutor {
        /// The path.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The executor of this name has another key than the one that is pinned.
    #[error(
        "{name} is pinned in {} with the key {}, and this is {}: nothing was sent and nothing was changed. Either the \
         executor has a new key, or this is somebody else. Ask its operator for the fingerprint by another way; if it \
         is the new one, remove the line of {name} and trust it again",
        path.display(), fingerprint(pinned), fingerprint(offered)
    )]
    Changed {
        /// The path.
        path: PathBuf,
        /// The name.
        name: String,
        /// The key that is pinned.
        pinned: PublicKey,
        /// The one that was offered.
        offered: PublicKey,
    },
    /// One name has several keys.
    #[error("{} line {line}: {name} has several keys; an executor has one: remove the line that is out of date", path.display())]
    SeveralKeys {
        /// The path.
        path: PathBuf,
        /// The line of the second, counted from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// A key or comment that cannot be written to the list.
    #[error("{problem}; nothing was added")]
    Rejected {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another process is changing the list.
    #[error("another process is changing {}; try again", path.display())]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// The operating system gave no randomness for a temporary name.
    #[error("the operating system gave no random bytes; try again")]
    Random(#[source] getrandom::Error),
}

impl KeyError {
    /// What went wrong without the path: for places that keep no paths.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::Line { line, problem, .. } => format!("line {line}: {problem}"),
            Self::Io { action, source, .. } => format!("cannot {action} it: {}", source.kind()),
            Self::Mode { .. } | Self::Owner { .. } => "others could have written it".into(),
            Self::NotAFile { found, .. } => format!("it is {found}"),
            Self::TooMany { .. } | Self::TooLarge { .. } => "it is too large".into(),
            Self::Missing { .. }
            | Self::Empty { .. }
            | Self::Format { .. }
            | Self::Mismatch { .. }
            | Self::Rejected { .. }
            | Self::Listed { .. }
            | Self::Lost { .. }
            | Self::UnknownExecutor { .. }
            | Self::Changed { .. }
            | Self::SeveralKeys { .. }
            | Self::Busy { .. }
            | Self::Random(_) => "it cannot be used".into(),
        }
    }
}
