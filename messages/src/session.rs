//! Opening a session: what the handshake's two payloads carry, and what an environment is.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{DecodeError, EncodeError, from_body, to_body};
use crate::error::WireError;
use crate::process::ExitStatus;

/// Most bytes of authorization in message 1.
pub const AUTHORIZATION_MAX_BYTES: usize = 4_096;

/// Bytes of an epoch.
pub const EPOCH_BYTES: usize = 16;
/// Bytes of a session's grant.
pub const GRANT_BYTES: usize = 32;

/// The payload of handshake message 1. Nothing in it has any effect by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The client's clock, in Unix milliseconds: an executor may refuse what is older than what it has seen.
    pub timestamp_ms: u64,
    /// Opaque authorization, at most `AUTHORIZATION_MAX_BYTES`.
    #[serde(default)]
    pub authorization: ByteBuf,
}

/// What an executor is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentInfo {
    /// Operating system, as Rust names it.
    pub os: String,
    /// Processor architecture, as Rust names it.
    pub arch: String,
    /// The machine's name.
    pub hostname: String,
    /// The executor's release.
    pub version: String,
    /// The directory commands run in unless they say otherwise, as bytes.
    pub cwd: ByteBuf,
    /// The user's shell, where known.
    pub shell: Option<String>,
    /// Processors available.
    pub cpus: u32,
    /// Optional abilities.
    pub capabilities: Vec<String>,
}

/// The payload of handshake message 2.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// This life of the executor's process, 16 bytes.
    pub epoch: ByteBuf,
    /// The number of the session that begins if the client begins one.
    pub session: u64,
    /// What the client takes that session up with when its link has died, 32 bytes.
    pub grant: ByteBuf,
    /// The executor's clock in Unix nanoseconds, to align drawings. Never used for a duration.
    pub unix_ns: u64,
    /// What the executor is.
    pub environment: EnvironmentInfo,
}

/// Most processes that one `Resume` names.
pub const RESUME_PROCESSES_MAX: usize = 4_096;

/// The first message on a fresh link of a session that exists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// Which session, by the number that came with its welcome.
    pub session: u64,
    /// The grant that came with its welcome, 32 bytes.
    pub token: ByteBuf,
    /// Who has the session. 1 is who began it, and keeps the number over all its links. Who takes the session over says
    /// the present owner's number and one more; whoever had it is shut out from then on.
    pub owner: u64,
    /// Which of this owner's links this is. It must be higher than any before it.
    pub link: u64,
    /// Every message of the executor up to this sequence number has been applied.
    pub received: u64,
    /// How far the client is with each process that it still wants events of.
    pub processes: Vec<Progress>,
    /// Whether the client knows all of the session's processes: what it does not name it never wants to hear of again.
    #[serde(default)]
    pub whole: bool,
}

/// How far a client is with one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// The process's id.
    #[serde(rename = "p")]
    pub process: u64,
    /// The next byte of standard output and of standard error that it needs.
    #[serde(rename = "o")]
    pub next: [u64; 2],
    /// The offsets that may not be passed.
    #[serde(rename = "l")]
    pub limit: [u64; 2],
}

/// The session goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resumed {
    /// The owner's number, as it was asked for.
    pub owner: u64,
    /// Every message of the client up to this sequence number has been applied.
    pub received: u64,
    /// The lowest sequence number that the executor may still send: what stands below it was acknowledged.
    pub from: u64,
    /// The executor never heard of the session: nothing of it was done. It begins here, as the one that this link's welcome
    /// names.
    #[serde(default)]
    pub anew: bool,
    /// The highest request id that came: who has just taken the session over goes on behind it.
    pub requests: u64,
    /// The highest process id that came in a start.
    pub processes: u64,
}

/// Most sessions in one answer to `ListSessions`.
pub const LISTED_SESSIONS_MAX: usize = 64;
/// Most processes in one answer to `ListSessions`, those of all its sessions together.
pub const LISTED_PROCESSES_MAX: usize = 512;

/// Asks for this client's sessions at this executor, a page at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ListSessions {
    /// Where the page begins: `next` of the page before; zeroes for the first.
    pub after: Cursor,
}

/// A place in the list of sessions: everything up to this process of this session has been told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The session.
    #[serde(rename = "s")]
    pub session: u64,
    /// The process in it; `u64::MAX`: all of them.
    #[serde(rename = "p")]
    pub process: u64,
}

/// This client's sessions, in the order of their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SessionList {
    /// At most `LISTED_SESSIONS_MAX`, with at most `LISTED_PROCESSES_MAX` processes in all.
    pub sessions: Vec<SessionEntry>,
    /// The executor's clock when it made this list, in Unix milliseconds: what its other times are held against.
    pub now_unix_ms: u64,
    /// Where the next page begins; absent: this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

/// One session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Its number.
    pub session: u64,
    /// What it is taken up with, 32 bytes: the grant of its first welcome.
    pub grant: ByteBuf,
    /// Its present owner's number.
    pub owner: u64,
    /// Whether somebody is connected to it.
    pub connected: bool,
    /// Since when that is so, by the executor's clock, in Unix milliseconds.
    pub since_unix_ms: u64,
    /// When it began, by the executor's clock, in Unix milliseconds.
    pub begun_unix_ms: u64,
    /// Whether it did not answer in time: then its processes are not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Its processes, in the order of their ids; those whose end was taken and forgotten are not among them.
    pub processes: Vec<ProcessEntry>,
}

/// One process of a listed session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Its id in its session.
    pub process: u64,
    /// Its program's name, without directory and arguments.
    pub program: String,
    /// Its process id on the executor's system; 0: it is still being started.
    pub pid: u32,
    /// When it was asked for, by the executor's clock, in Unix milliseconds.
    pub started_unix_ms: u64,
    /// How it ended, where it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ExitStatus>,
    /// Whether its client has been told of its end, or would be if it were there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// Bytes that it has written to standard output and to standard error so far.
    pub written: [u64; 2],
    /// The first byte of each that whoever takes the session up can still get.
    pub kept: [u64; 2],
    /// Whether it has a terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Whether it has an input that can be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
}

/// The session does not go on over this link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResumeRefused {
    /// Why: `UnknownSession` for every session that is not there or not this client's, `Superseded` for one that has a
    /// newer owner.
    pub error: WireError,
    /// The present owner's number, where the session is this client's; else 0.
    pub owner: u64,
}

impl Hello {
    /// As handshake payload.
    ///
    /// # Errors
    /// When the authorization is too long.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        if self.authorization.len() > AUTHORIZATION_MAX_BYTES {
            return Err(EncodeError::TooLarge {
                limit: AUTHORIZATION_MAX_BYTES,
                actual: self.authorization.len(),
            });
        }
        to_body(self)
    }

    /// From a handshake payload.
    ///
    /// # Errors
    /// When it is not one, or its authorization is too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let hello: Self = from_body(bytes)?;
        if hello.authorization.len() > AUTHORIZATION_MAX_BYTES {
            return Err(DecodeError::TooLarge {
                limit: AUTHORIZATION_MAX_BYTES,
                actual: hello.authorization.len(),
            });
        }
        Ok(hello)
    }
}

impl Welcome {
    /// As handshake payload.
    ///
    /// # Errors
    /// Only if serialization itself fails.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        to_body(self)
    }

    /// From a handshake payload.
    ///
    /// # Errors
    /// When it is not one, or its epoch or grant has another length than it must.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let welcome: Self = from_body(bytes)?;
        let fields = [
            ("epoch", welcome.epoch.len(), EPOCH_BYTES),
            ("grant", welcome.grant.len(), GRANT_BYTES),
        ];
        match fields
            .into_iter()
            .find(|(_, actual, expected)| actual != expected)
        {
            None => Ok(welcome),
            Some((field, actual, expected)) => Err(DecodeError::BadBody {
                kind: 0,
                id: None,
                why: format!("{field} has {actual} bytes and must have {expected}"),
            }),
        }
    }
}
