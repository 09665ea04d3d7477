//! The asking end: which processes there are, and what they answer.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dwell_messages::Role;

use super::place::{SOCKETS_MAX, connect, parse};
use super::serve::{is_ours, left, write_all};
use super::{ANSWER_MAX_BYTES, QUESTION};
use crate::in_flight::view::Snapshot;
use crate::spawn::procfs;

/// How long an answer may take before its process counts as hanging.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A role of a process that says it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its socket.
    pub path: PathBuf,
    /// Which role.
    pub role: Role,
    /// Whose process.
    pub pid: u32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The directory cannot be read.
    #[error("{} cannot be read", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nobody listens there any more; a socket of ours was removed.
    #[error("nobody answers at {} any more: its process has ended", path.display())]
    Gone {
        /// The socket.
        path: PathBuf,
    },
    /// It does not answer in time.
    #[error(
        "process {pid} does not answer within {} s{}: look at its stacks (eu-stack -p {pid}), or end it",
        ANSWER_TIMEOUT.as_secs(),
        if *stopped { ", for it is stopped (kill -CONT lets it go on)" } else { "" }
    )]
    Hangs {
        /// Its number.
        pid: u32,
        /// Whether a signal has stopped it.
        stopped: bool,
    },
    /// It is another user's.
    #[error("{} is another user's process: it is not asked", path.display())]
    NotOurs {
        /// The socket.
        path: PathBuf,
    },
    /// What it says is no table.
    #[error("what answers at {} does not speak this version: update the older side ({why})", path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The connection failed.
    #[error("{} cannot be asked", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The table, or why there is none.
pub type Answer = Result<Snapshot, InspectError>;

/// An answer, and whose it is.
#[derive(Debug)]
pub struct Answered {
    /// Who was asked.
    pub candidate: Candidate,
    /// What came of it.
    pub answer: Answer,
}

/// The sockets of a directory, by role and process; at most `SOCKETS_MAX`. A directory that is not there has none.
///
/// # Errors
/// When it cannot be read.
pub fn candidates(dir: &Path) -> Result<Vec<Candidate>, InspectError> {
    let failed = |source| InspectError::Directory {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if let Some((role, pid)) = entry.file_name().to_str().and_then(parse).filter(|_| is_socket) {
            found.push(Candidate {
                path: entry.path(),
                role,
                pid,
            });
        }
        if found.len() >= SOCKETS_MAX {
            break;
        }
    }
    found.sort_by(|a, b| (a.role, a.pid, &a.path).cmp(&(b.role, b.pid, &b.path)));
    Ok(found)
}

/// Asks all of them at the same time: those that hang delay nobody. Sockets of processes that have ended are removed.
#[must_use]
pub fn ask(candidates: Vec<Candidate>) -> Vec<Answered> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = candidates
            .into_iter()
            .map(|candidate| {
                let asked = candidate.clone();
                (candidate, scope.spawn(move || ask_one(&asked)))
            })
            .collect();
        let answered = asking.into_iter().map(|(candidate, asking)| {
            let answer = asking.join().unwrap_or_else(|_| {
                Err(InspectError::Failed {
                    path: candidate.path.clone(),
                    source: io::Error::other("asking it failed on this side"),
                })
            });
            Answered { candidate, answer }
        });
        answered.collect()
    })
}

fn ask_one(candidate: &Candidate) -> Answer {
    let path = &candidate.path;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(InspectError::Gone { path: path.clone() });
    };
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => InspectError::Hangs {
            pid: candidate.pid,
            stopped: procfs::stat(candidate.pid).is_ok_and(|stat| stat.is_stopped),
        },
        _ => InspectError::Failed {
            path: path.clone(),
            source,
        },
    };
    let mut stream = match connect(dir, name) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            // Nobody will ever listen there again: each process makes sockets of its own.
            drop(fs::remove_file(path));
            return Err(InspectError::Gone { path: path.clone() });
        }
        Err(error) => return Err(failed(error)),
    };
    if !is_ours(&stream).map_err(failed)? {
        return Err(InspectError::NotOurs { path: path.clone() });
    }
    let ends = Instant::now() + ANSWER_TIMEOUT;
    write_all(&mut stream, QUESTION.as_bytes(), ends).map_err(failed)?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 16 * 1024];
        stream
            .set_read_timeout(Some(left(ends).map_err(failed)?))
            .map_err(failed)?;
        match stream.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
        if answer.len() > ANSWER_MAX_BYTES {
            let why = format!("it is longer than {ANSWER_MAX_BYTES} bytes");
            return Err(InspectError::NotUnderstood {
                path: path.clone(),
                why,
            });
        }
    }
    serde_json::from_slice(&answer).map_err(|error| InspectError::NotUnderstood {
        path: path.clone(),
        why: error.to_string(),
    })
}
