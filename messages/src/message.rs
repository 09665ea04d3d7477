//! Everything that lies inside the seal, as one type.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::files::{FileReply, FileRequest};
use crate::http::{HttpReply, HttpRequest};
use crate::ids::{ProcessId, RequestId};
use crate::kinds::MessageKind;
use crate::process::{
    Closed, Event, Exited, Output, OutputStream, Read, ReadReply, Resize, Signal, Start, Started, Terminate,
    Terminated, Write, Written,
};
use crate::session::{EnvironmentInfo, ListSessions, Resume, ResumeRefused, Resumed, SessionList};
use crate::span::{PackedSpans, Role};
use crate::timings::Timings;
use crate::workspace::{FindUp, FoundUp, WorkspaceLoad, WorkspaceReply};

/// What can be asked of an executor.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// What is this environment?
    EnvironmentInfo,
    /// Start a process.
    Start(Box<Start>),
    /// Write to its standard input.
    Write(Write),
    /// Send it a signal.
    Signal(Signal),
    /// End it.
    Terminate(Terminate),
    /// Its events after a number.
    Read(Read),
    /// Resize its terminal.
    Resize(Resize),
    /// This client's sessions, and what runs in them.
    Sessions(ListSessions),
    /// Something about files.
    File(Box<FileRequest>),
    /// Something about HTTP.
    Http(Box<HttpRequest>),
    /// The nearest directory that holds a marker; see `is_whole_call`.
    FindUp(FindUp),
    /// A workspace, in one batch; see `is_whole_call`.
    WorkspaceLoad(Box<WorkspaceLoad>),
}

impl Request {
    /// The method's name, of low cardinality, for spans.
    pub fn method(&self) -> &'static str {
        match self {
            Self::EnvironmentInfo => "Environment/Info",
            Self::Start(_) => "Process/Start",
            Self::Write(_) => "Process/Write",
            Self::Signal(_) => "Process/Signal",
            Self::Terminate(_) => "Process/Terminate",
            Self::Read(_) => "Process/Read",
            Self::Resize(_) => "Process/Resize",
            Self::Sessions(_) => "Session/List",
            Self::File(file) => file.method(),
            Self::Http(http) => http.method(),
            Self::FindUp(_) => "Workspace/FindUp",
            Self::WorkspaceLoad(_) => "Workspace/Load",
        }
    }
}

impl Request {
    /// Whether it is a call by itself, with spans of its own and no process. Then the process it names is none, but the
    /// number, of the process ids of its session, under which its spans come back.
    pub fn is_whole_call(&self) -> bool {
        match self {
            Self::FindUp(_) | Self::WorkspaceLoad(_) => true,
            Self::EnvironmentInfo
            | Self::Start(_)
            | Self::Write(_)
            | Self::Signal(_)
            | Self::Terminate(_)
            | Self::Read(_)
            | Self::Resize(_)
            | Self::Sessions(_)
            | Self::File(_)
            | Self::Http(_) => false,
        }
    }
}

/// What an executor answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// To `EnvironmentInfo`.
    EnvironmentInfo(EnvironmentInfo),
    /// To `Start`.
    Started(Started),
    /// To `Write`.
    Written(Written),
    /// To `Signal`.
    Signalled,
    /// To `Terminate`: the process has ended.
    Terminated(Terminated),
    /// To `Read`.
    Read(ReadReply),
    /// To `Resize`.
    Resized,
    /// To `Sessions`.
    Sessions(SessionList),
    /// To `File`.
    File(FileReply),
    /// To `Http`.
    Http(HttpReply),
    /// To `FindUp`.
    FoundUp(FoundUp),
    /// To `WorkspaceLoad`.
    Workspace(Box<WorkspaceReply>),
}

/// Spans of calls, behind their terminal events.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TraceRecords {
    /// Who made them.
    pub role: Role,
    /// The spans.
    pub spans: PackedSpans,
    /// Spans there was no room for.
    #[serde(default)]
    pub dropped: u64,
    /// Whether these are the last of their calls.
    pub last: bool,
    /// Further processes, by number, whose calls' spans are among these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<u64>,
}

/// A message inside the seal.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// A request; `process` names the process it is about.
    Request {
        /// Its id.
        id: RequestId,
        /// The process it is about.
        process: Option<ProcessId>,
        /// What is asked.
        request: Request,
    },
    /// The answer to a request, with the executor's account of it.
    Response {
        /// The request's id.
        id: RequestId,
        /// The answer.
        result: Result<Reply, WireError>,
        /// Where the executor's time went.
        timings: Timings,
    },
    /// What a process tells.
    Event {
        /// Which process.
        process: ProcessId,
        /// What it tells.
        event: Event,
    },
    /// The caller of a request no longer waits.
    Cancel(RequestId),
    /// What has been applied. Absolute, so that repeating it changes nothing.
    Ack {
        /// Everything up to this sequence number.
        received: u64,
        /// Processes of which this side wants nothing more: what is kept of them may go.
        released: Vec<ProcessId>,
    },
    /// How far a stream may be sent: an absolute offset, so that repeating it changes nothing.
    Credit {
        /// Which process.
        process: ProcessId,
        /// Which of its outputs.
        stream: OutputStream,
        /// The offset that may not be passed.
        limit: u64,
    },
    /// A round trip on the link.
    Ping(u64),
    /// Its answer.
    Pong(Pong),
    /// The authenticated end of the link.
    Goodbye(String),
    /// The first message on a fresh link of a session that exists.
    Resume(Box<Resume>),
    /// The session goes on.
    Resumed(Resumed),
    /// It does not.
    ResumeRefused(ResumeRefused),
    /// Spans of a trace.
    TraceRecords {
        /// The process whose call they belong to.
        process: ProcessId,
        /// The spans.
        records: TraceRecords,
    },
}

impl Message {
    /// Its kind on the wire.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Request { request, .. } => match request {
                Request::EnvironmentInfo => MessageKind::EnvironmentInfo,
                Request::Start(_) => MessageKind::Start,
                Request::Write(_) => MessageKind::Write,
                Request::Signal(_) => MessageKind::Signal,
                Request::Terminate(_) => MessageKind::Terminate,
                Request::Read(_) => MessageKind::Read,
                Request::Resize(_) => MessageKind::Resize,
                Request::Sessions(_) => MessageKind::Sessions,
                Request::File(file) => file.kind(),
                Request::Http(http) => http.kind(),
                Request::FindUp(_) => MessageKind::FindUp,
                Request::WorkspaceLoad(_) => MessageKind::WorkspaceLoad,
            },
            Self::Response { result, .. } => match result {
                Ok(Reply::EnvironmentInfo(_)) => MessageKind::EnvironmentInfoReply,
                Ok(Reply::Started(_)) => MessageKind::Started,
                Ok(Reply::Written(_)) => MessageKind::Written,
                Ok(Reply::Signalled) => MessageKind::Signalled,
                Ok(Reply::Terminated(_)) => MessageKind::Terminated,
                Ok(Reply::Read(_)) => MessageKind::ReadReply,
                Ok(Reply::Resized) => MessageKind::Resized,
                Ok(Reply::Sessions(_)) => MessageKind::SessionsReply,
                Ok(Reply::File(file)) => file.kind(),
                Ok(Reply::Http(http)) => http.kind(),
                Ok(Reply::FoundUp(_)) => MessageKind::FoundUp,
                Ok(Reply::Workspace(_)) => MessageKind::WorkspaceLoaded,
                Err(_) => MessageKind::Error,
            },
            Self::Event { event, .. } => match event {
                Event::Output(_) => MessageKind::Output,
                Event::Gap(_) => MessageKind::Gap,
                Event::Exited(_) => MessageKind::Exited,
                Event::Closed(_) => MessageKind::Closed,
            },
            Self::Cancel(_) => MessageKind::Cancel,
            Self::Ack { .. } => MessageKind::Ack,
            Self::Credit { .. } => MessageKind::Credit,
            Self::Ping(_) => MessageKind::Ping,
            Self::Pong(_) => MessageKind::Pong,
            Self::Goodbye(_) => MessageKind::Goodbye,
            Self::Resume(_) => MessageKind::Resume,
            Self::Resumed(_) => MessageKind::Resumed,
            Self::ResumeRefused(_) => MessageKind::ResumeRefused,
            Self::TraceRecords { .. } => MessageKind::TraceRecords,
        }
    }

    /// Whether the framer fills a trailer behind it: responses and terminal events, which account for a call.
    pub fn has_trailer(&self) -> bool {
        match self {
            Self::Response { .. } => true,
            Self::Event { event, .. } => match event {
                Event::Exited(_) | Event::Closed(_) => true,
                Event::Output(_) | Event::Gap(_) => false,
            },
            Self::Request { .. }
            | Self::Cancel(_)
            | Self::Ack { .. }
            | Self::Credit { .. }
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Goodbye(_)
            | Self::Resume(_)
            | Self::Resumed(_)
            | Self::ResumeRefused(_)
            | Self::TraceRecords { .. } => false,
        }
    }

    /// Whether it has its place in the session's order: it is kept until the peer has acknowledged it, and sent again
    /// over the next link. Output has its offsets for that; acknowledgements, credit and pings are absolute.
    pub fn is_sequenced(&self) -> bool {
        match self {
            Self::Request { .. } | Self::Response { .. } | Self::Cancel(_) => true,
            Self::Event { event, .. } => match event {
                Event::Exited(_) | Event::Closed(_) => true,
                Event::Output(_) | Event::Gap(_) => false,
            },
            Self::Ack { .. }
            | Self::Credit { .. }
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Goodbye(_)
            | Self::Resume(_)
            | Self::Resumed(_)
            | Self::ResumeRefused(_)
            | Self::TraceRecords { .. } => false,
        }
    }

    /// The id in the header, 0 where there is none.
    pub(crate) fn header_id(&self) -> u64 {
        match self {
            Self::Request { id, .. } | Self::Response { id, .. } | Self::Cancel(id) => id.0,
            Self::Event { .. }
            | Self::Ack { .. }
            | Self::Credit { .. }
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Goodbye(_)
            | Self::Resume(_)
            | Self::Resumed(_)
            | Self::ResumeRefused(_)
            | Self::TraceRecords { .. } => 0,
        }
    }

    /// The process in the header, 0 where there is none.
    pub(crate) fn header_process(&self) -> u64 {
        match self {
            Self::Request { process, .. } => process.map_or(0, |process| process.0),
            Self::Event { process, .. }
            | Self::Credit { process, .. }
            | Self::TraceRecords { process, .. } => process.0,
            Self::Response { .. }
            | Self::Cancel(_)
            | Self::Ack { .. }
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Goodbye(_)
            | Self::Resume(_)
            | Self::Resumed(_)
            | Self::ResumeRefused(_) => 0,
        }
    }
}

/// The body of a response: its value and the account.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    #[serde(default)]
    pub(crate) timings: Timings,
}

/// A body with nothing in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Nothing {}

/// The body of messages that are one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Number {
    #[serde(rename = "v")]
    pub(crate) value: u64,
}

/// The answer to a ping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// The ping's value, untouched.
    #[serde(rename = "v")]
    pub value: u64,
    /// The answering side's clock when it answered, in Unix nanoseconds; 0 where it does not say. To align a drawing
    /// with, and for nothing else.
    #[serde(rename = "t", default, skip_serializing_if = "is_zero")]
    pub unix_ns: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The body of an acknowledgement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct AckBody {
    #[serde(rename = "v")]
    pub(crate) received: u64,
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) released: Vec<u64>,
}

/// The body of a credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct CreditBody {
    #[serde(rename = "s")]
    pub(crate) stream: OutputStream,
    #[serde(rename = "l")]
    pub(crate) limit: u64,
}

/// The body of a goodbye.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Farewell {
    pub(crate) reason: String,
}

impl From<Output> for Event {
    fn from(output: Output) -> Self {
        Self::Output(output)
    }
}

impl From<Exited> for Event {
    fn from(exited: Exited) -> Self {
        Self::Exited(exited)
    }
}

impl From<Closed> for Event {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}
