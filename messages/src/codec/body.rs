//! Bodies: one MessagePack value a kind.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WireError;
use crate::files::{FileReply, FileRequest, Flaw};
use crate::http::{HttpReply, HttpRequest};
use crate::ids::{ProcessId, RequestId};
use crate::kinds::MessageKind;
use crate::message::{AckBody, Answer, CreditBody, Farewell, Message, Nothing, Number, Reply, Request};
use crate::process::{CHUNK_MAX_BYTES, Event, ReadReply, Start};
use crate::session::{GRANT_BYTES, RESUME_PROCESSES_MAX, Resume};
use crate::workspace::{FindUp, WorkspaceLoad, check_find, check_load};

use super::{DecodeError, ELEMENTS_MAX, EncodeError, Header, files, http, scan};

/// A first guess at an encoded size, so that one allocation does.
pub(super) fn size_hint(message: &Message) -> usize {
    match message {
        Message::Event {
            event: Event::Output(output),
            ..
        } => output.data.len() + 128,
        Message::Request {
            request: Request::Write(write),
            ..
        } => write.data.len() + 128,
        Message::Request {
            request: Request::File(file),
            ..
        } => file.content_bytes() + 384,
        Message::Response {
            result: Ok(Reply::File(file)),
            ..
        } => file.size_hint(),
        Message::Request {
            request: Request::Http(http),
            ..
        } => http.size_hint(),
        Message::Response {
            result: Ok(Reply::Http(http)),
            ..
        } => http.size_hint(),
        Message::Request { .. }
        | Message::Response { .. }
        | Message::Event { .. }
        | Message::Cancel(_)
        | Message::Ack { .. }
        | Message::Credit { .. }
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::Goodbye(_)
        | Message::Resumed(_)
        | Message::ResumeRefused(_)
        | Message::TraceRecords { .. } => 384,
        Message::Resume(resume) => 384 + 64 * resume.processes.len(),
    }
}

pub(super) fn encode(out: &mut BytesMut, message: &Message) -> Result<(), EncodeError> {
    match message {
        Message::Request { request, .. } => encode_request(out, request),
        Message::Response { result, timings, .. } => encode_response(out, result, *timings),
        Message::Event { event, .. } => match event {
            Event::Output(output) => {
                check_chunk(output.data.len())?;
                put(out, output)
            }
            Event::Gap(skipped) => put(out, skipped),
            Event::Exited(exited) => put(out, exited),
            Event::Closed(closed) => put(out, closed),
        },
        Message::Cancel(_) => put(out, &Nothing {}),
        Message::Ping(value) => put(out, &Number { value: *value }),
        Message::Pong(pong) => put(out, pong),
        Message::Ack { received, released } => put(
            out,
            &AckBody {
                received: *received,
                released: released.iter().map(|process| process.0).collect(),
            },
        ),
        Message::Resume(resume) => {
            check_resume(resume).map_err(|(field, problem)| EncodeError::BadString { field, problem })?;
            put(out, resume.as_ref())
        }
        Message::Resumed(resumed) => put(out, resumed),
        Message::ResumeRefused(refused) => put(out, refused),
        Message::Credit { stream, limit, .. } => put(
            out,
            &CreditBody {
                stream: *stream,
                limit: *limit,
            },
        ),
        Message::Goodbye(reason) => put(
            out,
            &Farewell {
                reason: reason.clone(),
            },
        ),
        Message::TraceRecords { records, .. } => put(out, records),
    }
}

fn encode_request(out: &mut BytesMut, request: &Request) -> Result<(), EncodeError> {
    match request {
        Request::EnvironmentInfo => put(out, &Nothing {}),
        Request::Start(start) => {
            check_start(start).map_err(|(field, problem)| EncodeError::BadString { field, problem })?;
            put(out, start.as_ref())
        }
        Request::Write(write) => {
            check_chunk(write.data.len())?;
            put(out, write)
        }
        Request::Signal(signal) => put(out, signal),
        Request::Terminate(terminate) => put(out, terminate),
        Request::Read(read) => put(out, read),
        Request::Resize(resize) => put(out, resize),
        Request::Sessions(list) => put(out, list),
        Request::File(file) => files::encode_request(out, file),
        Request::Http(request) => http::encode_request(out, request),
        Request::FindUp(find) => {
            check_find(find).map_err(|(field, problem)| EncodeError::BadString { field, problem })?;
            put(out, find)
        }
        Request::WorkspaceLoad(load) => {
            check_load(load).map_err(|(field, problem)| EncodeError::BadString { field, problem })?;
            put(out, load.as_ref())
        }
    }
}

fn encode_response(
    out: &mut BytesMut,
    result: &Result<Reply, WireError>,
    timings: crate::timings::Timings,
) -> Result<(), EncodeError> {
    match result {
        Ok(Reply::EnvironmentInfo(value)) => put(out, &Answer { value, timings }),
        Ok(Reply::Started(value)) => put(out, &Answer { value, timings }),
        Ok(Reply::Written(value)) => put(out, &Answer { value, timings }),
        Ok(Reply::Terminated(value)) => put(out, &Answer { value, timings }),
        Ok(Reply::Signalled | Reply::Resized) => put(
            out,
            &Answer {
                value: Nothing {},
                timings,
            },
        ),
        Ok(Reply::Sessions(value)) => put(out, &Answer { value, timings }),
        Ok(Reply::File(file)) => files::encode_reply(out, file, timings),
        Ok(Reply::Http(reply)) => http::encode_reply(out, reply, timings),
        Ok(Reply::FoundUp(value)) => put(out, &Answer { value, timings }),
        Ok(Reply::Workspace(value)) => put(out, &Answer { value, timings }),
        Ok(Reply::Read(value)) => {
            check_chunk(longest_chunk(value))?;
            put(out, &Answer { value, timings })
        }
        Err(value) => put(out, &Answer { value, timings }),
    }
}

pub(super) fn put<T: Serialize>(out: &mut BytesMut, value: &T) -> Result<(), EncodeError> {
    let mut serializer = rmp_serde::Serializer::new(out.writer()).with_struct_map();
    value
        .serialize(&mut serializer)
        .map_err(|error| EncodeError::Serialize(error.to_string()))
}

fn check_chunk(actual: usize) -> Result<(), EncodeError> {
    if actual > CHUNK_MAX_BYTES {
        return Err(EncodeError::TooLarge {
            limit: CHUNK_MAX_BYTES,
            actual,
        });
    }
    Ok(())
}

/// Bytes of the longest chunk among the events of an answer.
fn longest_chunk(reply: &ReadReply) -> usize {
    let length = |event: &Event| match event {
        Event::Output(output) => output.data.len(),
        Event::Gap(_) | Event::Exited(_) | Event::Closed(_) => 0,
    };
    reply.events.iter().map(length).max().unwrap_or(0)
}

/// Lengths that are not free, and more processes than a session may have.
fn check_resume(resume: &Resume) -> Result<(), (&'static str, &'static str)> {
    if resume.token.len() != GRANT_BYTES {
        return Err(("token", "does not have 32 bytes"));
    }
    if resume.processes.len() > RESUME_PROCESSES_MAX {
        return Err(("processes", "has more than 4,096 elements"));
    }
    Ok(())
}

/// Strings that no system call takes, and lists that no peer decodes.
fn check_start(start: &Start) -> Result<(), (&'static str, &'static str)> {
    let lists = [
        ("argv", start.argv.len()),
        ("env.set", start.env.set.len()),
        ("env.unset", start.env.unset.len()),
        ("env.include", start.env.include.len()),
        ("env.exclude", start.env.exclude.len()),
    ];
    if let Some((field, _)) = lists.into_iter().find(|(_, length)| *length > ELEMENTS_MAX) {
        return Err((field, "has more than 65,536 elements"));
    }
    let nul = "holds a NUL byte";
    if start.argv.iter().any(|arg| arg.contains(&0)) {
        return Err(("argv", nul));
    }
    if start.cwd.as_ref().is_some_and(|cwd| cwd.contains(&0)) {
        return Err(("cwd", nul));
    }
    if start.pty.as_ref().is_some_and(|pty| pty.term.contains('\0')) {
        return Err(("pty.term", nul));
    }
    if start
        .env
        .set
        .iter()
        .any(|(name, value)| name.contains(&0) || value.contains(&0))
    {
        return Err(("env.set", nul));
    }
    if start
        .env
        .set
        .iter()
        .any(|(name, _)| name.is_empty() || name.contains(&b'='))
    {
        return Err(("env.set", "has a name that is empty or holds '='"));
    }
    Ok(())
}

pub(super) fn decode(kind: MessageKind, header: &Header, bytes: &Bytes) -> Result<Message, DecodeError> {
    let body = Body { kind, header, bytes };
    let event = |event: Event| {
        Ok(Message::Event {
            process: body.process()?,
            event,
        })
    };
    match kind {
        MessageKind::EnvironmentInfo => {
            body.read::<Nothing>()?;
            body.request(Request::EnvironmentInfo)
        }
        MessageKind::Start => {
            let start: Start = body.read()?;
            check_start(&start).map_err(|(field, problem)| body.bad(format!("{field} {problem}")))?;
            body.request(Request::Start(Box::new(start)))
        }
        MessageKind::Write => {
            let write: crate::process::Write = body.read()?;
            body.chunk(write.data.len())?;
            body.request(Request::Write(write))
        }
        MessageKind::Signal => body.request(Request::Signal(body.read()?)),
        MessageKind::Terminate => body.request(Request::Terminate(body.read()?)),
        MessageKind::Read => body.request(Request::Read(body.read()?)),
        MessageKind::Resize => body.request(Request::Resize(body.read()?)),
        MessageKind::Sessions => body.request(Request::Sessions(body.read()?)),
        MessageKind::FileMetadata => body.file(FileRequest::Metadata),
        MessageKind::FileRead => body.file(FileRequest::Read),
        MessageKind::FileWrite => body.file(FileRequest::Write),
        MessageKind::FileList => body.file(FileRequest::List),
        MessageKind::FileCreateDirectory => body.file(FileRequest::CreateDirectory),
        MessageKind::FileRemove => body.file(FileRequest::Remove),
        MessageKind::FileCopy => body.file(FileRequest::Copy),
        MessageKind::FileRename => body.file(FileRequest::Rename),
        MessageKind::FileCanonicalize => body.file(FileRequest::Canonicalize),
        MessageKind::FileWalk => body.file(FileRequest::Walk),
        MessageKind::FileWalkOn => body.file(FileRequest::WalkOn),
        MessageKind::FileOpen => body.file(FileRequest::Open),
        MessageKind::FileReadBlock => body.file(FileRequest::ReadBlock),
        MessageKind::FileWriteBlock => body.file(FileRequest::WriteBlock),
        MessageKind::FileClose => body.file(FileRequest::Close),
        MessageKind::FileWatch => body.file(FileRequest::Watch),
        MessageKind::FileAwait => body.file(FileRequest::Await),
        MessageKind::FileMetadataReply => body.file_reply(FileReply::Metadata),
        MessageKind::FileContents => body.file_reply(FileReply::Contents),
        MessageKind::FileWritten => body.file_reply(FileReply::Written),
        MessageKind::FileListing => body.file_reply(FileReply::Listing),
        MessageKind::FileDirectoryCreated => body.file_reply(FileReply::DirectoryCreated),
        MessageKind::FileRemoved => body.file_reply(FileReply::Removed),
        MessageKind::FileCopied => body.file_reply(FileReply::Copied),
        MessageKind::FileRenamed => body.file_reply(|_: Nothing| FileReply::Renamed),
        MessageKind::FileCanonical => body.file_reply(FileReply::Canonical),
        MessageKind::FileWalked => body.file_reply(FileReply::Walked),
        MessageKind::FileWalkedOn => body.file_reply(FileReply::WalkedOn),
        MessageKind::FileOpened => body.file_reply(FileReply::Opened),
        MessageKind::FileBlock => body.file_reply(FileReply::Block),
        MessageKind::FileBlockWritten => body.file_reply(FileReply::BlockWritten),
        MessageKind::FileClosed => body.file_reply(FileReply::Closed),
        MessageKind::FileWatching => body.file_reply(FileReply::Watching),
        MessageKind::FileSeen => body.file_reply(|_: Nothing| FileReply::Seen),
        MessageKind::HttpOpen => body.http(|open| HttpRequest::Open(Box::new(open))),
        MessageKind::HttpSend => body.http(HttpRequest::Send),
        MessageKind::HttpRead => body.http(HttpRequest::Read),
        MessageKind::HttpClose => body.http(HttpRequest::Close),
        MessageKind::HttpHead => body.http_reply(HttpReply::Head),
        MessageKind::HttpSent => body.http_reply(|_: Nothing| HttpReply::Sent),
        MessageKind::HttpBody => body.http_reply(HttpReply::Body),
        MessageKind::HttpClosed => body.http_reply(|_: Nothing| HttpReply::Closed),
        MessageKind::FindUp => {
            let find: FindUp = body.read()?;
            check_find(&find).map_err(|(field, problem)| body.bad(format!("{field} {problem}")))?;
            body.request(Request::FindUp(find))
        }
        MessageKind::WorkspaceLoad => {
            let load: WorkspaceLoad = body.read()?;
            check_load(&load).map_err(|(field, problem)| body.bad(format!("{field} {problem}")))?;
            body.request(Request::WorkspaceLoad(Box::new(load)))
        }
        MessageKind::EnvironmentInfoReply => body.response(Reply::EnvironmentInfo),
        MessageKind::Started => body.response(Reply::Started),
        MessageKind::Written => body.response(Reply::Written),
        MessageKind::Signalled => body.response(|_: Nothing| Reply::Signalled),
        MessageKind::Terminated => body.response(Reply::Terminated),
        MessageKind::ReadReply => body.read_reply(),
        MessageKind::Resized => body.response(|_: Nothing| Reply::Resized),
        MessageKind::SessionsReply => body.response(Reply::Sessions),
        MessageKind::FoundUp => body.response(Reply::FoundUp),
        MessageKind::WorkspaceLoaded => body.response(|reply| Reply::Workspace(Box::new(reply))),
        MessageKind::Error => {
            let Answer { value, timings } = body.read()?;
            Ok(Message::Response {
                id: body.id()?,
                result: Err(value),
                timings,
            })
        }
        MessageKind::Output => {
            let output: crate::process::Output = body.read()?;
            body.chunk(output.data.len())?;
            event(Event::Output(output))
        }
        MessageKind::Gap => event(Event::Gap(body.read()?)),
        MessageKind::Exited => event(Event::Exited(body.read()?)),
        MessageKind::Closed => event(Event::Closed(body.read()?)),
        MessageKind::Cancel => {
            body.read::<Nothing>()?;
            Ok(Message::Cancel(body.id()?))
        }
        MessageKind::Ack => {
            let AckBody { received, released } = body.read()?;
            let released = released.into_iter().map(ProcessId).collect();
            Ok(Message::Ack { received, released })
        }
        MessageKind::Resume => {
            let resume: Resume = body.read()?;
            check_resume(&resume).map_err(|(field, problem)| body.bad(format!("{field} {problem}")))?;
            Ok(Message::Resume(Box::new(resume)))
        }
        MessageKind::Resumed => Ok(Message::Resumed(body.read()?)),
        MessageKind::ResumeRefused => Ok(Message::ResumeRefused(body.read()?)),
        MessageKind::Ping => Ok(Message::Ping(body.read::<Number>()?.value)),
        MessageKind::Pong => Ok(Message::Pong(body.read()?)),
        MessageKind::Credit => {
            let CreditBody { stream, limit } = body.read()?;
            Ok(Message::Credit {
                process: body.process()?,
                stream,
                limit,
            })
        }
        MessageKind::Goodbye => Ok(Message::Goodbye(body.read::<Farewell>()?.reason)),
        MessageKind::TraceRecords => Ok(Message::TraceRecords {
            process: body.process()?,
            records: body.read()?,
        }),
    }
}

pub(super) struct Body<'a> {
    kind: MessageKind,
    header: &'a Header,
    bytes: &'a Bytes,
}

impl Body<'_> {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        scan::check(self.bytes).map_err(|error| match error {
            // A request whose framing is sound but whose body is not can be answered.
            error if self.answerable().is_some() => self.bad(error.to_string()),
            error => error,
        })?;
        if !matches!(self.bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
            return Err(self.bad("it is not a map".into()));
        }
        let mut reader = rmp_serde::Deserializer::from_read_ref(&self.bytes[..]);
        T::deserialize(&mut reader).map_err(|error| self.bad(error.to_string()))
    }

    fn request(&self, request: Request) -> Result<Message, DecodeError> {
        let process = (self.header.process != 0).then_some(ProcessId(self.header.process));
        let of_no_process = matches!(
            request,
            Request::EnvironmentInfo | Request::Sessions(_) | Request::File(_) | Request::Http(_)
        );
        if process.is_none() && !of_no_process {
            return Err(self.bad("it names no process".into()));
        }
        Ok(Message::Request {
            id: self.id()?,
            process,
            request,
        })
    }

    /// A path that no file can have is told apart from everything else that is wrong: it has its own code.
    fn file<T: DeserializeOwned>(
        &self,
        request: impl FnOnce(T) -> FileRequest,
    ) -> Result<Message, DecodeError> {
        let request = request(self.read()?);
        match request.check() {
            Ok(()) => Ok(Message::Request {
                id: self.id()?,
                process: None,
                request: Request::File(Box::new(request)),
            }),
            Err(Flaw::Path { field, problem }) => Err(DecodeError::BadPath {
                id: self.id()?,
                field,
                problem,
            }),
            Err(flaw @ (Flaw::Field { .. } | Flaw::TooLarge { .. })) => Err(self.bad(flaw.to_string())),
        }
    }

    fn file_reply<T: DeserializeOwned>(
        &self,
        reply: impl FnOnce(T) -> FileReply,
    ) -> Result<Message, DecodeError> {
        let Answer { value, timings } = self.read()?;
        let reply = reply(value);
        reply.check().map_err(|flaw| self.bad(flaw.to_string()))?;
        Ok(Message::Response {
            id: self.id()?,
            result: Ok(Reply::File(reply)),
            timings,
        })
    }

    fn response<T: DeserializeOwned>(&self, reply: impl FnOnce(T) -> Reply) -> Result<Message, DecodeError> {
        let Answer { value, timings } = self.read()?;
        Ok(Message::Response {
            id: self.id()?,
            result: Ok(reply(value)),
            timings,
        })
    }

    fn read_reply(&self) -> Result<Message, DecodeError> {
        let Answer { value, timings } = self.read()?;
        self.chunk(longest_chunk(&value))?;
        Ok(Message::Response {
            id: self.id()?,
            result: Ok(Reply::Read(value)),
            timings,
        })
    }

    pub(super) fn id(&self) -> Result<RequestId, DecodeError> {
        match self.header.id {
            0 => Err(DecodeError::MissingId {
                kind: self.kind.to_wire(),
            }),
            id => Ok(RequestId(id)),
        }
    }

    fn process(&self) -> Result<ProcessId, DecodeError> {
        match self.header.process {
            0 => Err(DecodeError::MissingId {
                kind: self.kind.to_wire(),
            }),
            process => Ok(ProcessId(process)),
        }
    }

    fn chunk(&self, actual: usize) -> Result<(), DecodeError> {
        if actual > CHUNK_MAX_BYTES {
            return Err(self.bad(format!(
                "{actual} bytes in one chunk, and {CHUNK_MAX_BYTES} are the most"
            )));
        }
        Ok(())
    }

    fn answerable(&self) -> Option<RequestId> {
        let request = self.kind.to_wire() < super::REQUESTS_END && self.header.id != 0;
        request.then_some(RequestId(self.header.id))
    }

    pub(super) fn bad(&self, why: String) -> DecodeError {
        DecodeError::BadBody {
            kind: self.kind.to_wire(),
            id: self.answerable(),
            why,
        }
    }
}
