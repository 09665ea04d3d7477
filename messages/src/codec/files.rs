//! Bodies about files, on their way out.

use bytes::BytesMut;

use crate::files::{FileReply, FileRequest, Flaw};
use crate::message::{Answer, Nothing};
use crate::timings::Timings;

use super::EncodeError;
use super::body::put;

impl From<Flaw> for EncodeError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Path { field, problem } => Self::BadPath { field, problem },
            Flaw::Field { field, problem } => Self::BadString { field, problem },
            Flaw::TooLarge { actual } => Self::TooLarge {
                limit: crate::files::BLOCK_MAX_BYTES,
                actual,
            },
        }
    }
}

pub(super) fn encode_request(out: &mut BytesMut, request: &FileRequest) -> Result<(), EncodeError> {
    request.check()?;
    match request {
        FileRequest::Metadata(body) => put(out, body),
        FileRequest::Read(body) => put(out, body),
        FileRequest::Write(body) => put(out, body),
        FileRequest::List(body) => put(out, body),
        FileRequest::CreateDirectory(body) => put(out, body),
        FileRequest::Remove(body) => put(out, body),
        FileRequest::Copy(body) => put(out, body),
        FileRequest::Rename(body) => put(out, body),
        FileRequest::Canonicalize(body) => put(out, body),
        FileRequest::Walk(body) => put(out, body),
        FileRequest::WalkOn(body) => put(out, body),
        FileRequest::Open(body) => put(out, body),
        FileRequest::ReadBlock(body) => put(out, body),
        FileRequest::WriteBlock(body) => put(out, body),
        FileRequest::Close(body) => put(out, body),
        FileRequest::Watch(body) => put(out, body),
        FileRequest::Await(body) => put(out, body),
    }
}

pub(super) fn encode_reply(
    out: &mut BytesMut,
    reply: &FileReply,
    timings: Timings,
) -> Result<(), EncodeError> {
    reply.check()?;
    match reply {
        FileReply::Metadata(value) => put(out, &Answer { value, timings }),
        FileReply::Contents(value) => put(out, &Answer { value, timings }),
        FileReply::Written(value) => put(out, &Answer { value, timings }),
        FileReply::Listing(value) => put(out, &Answer { value, timings }),
        FileReply::DirectoryCreated(value) => put(out, &Answer { value, timings }),
        FileReply::Removed(value) => put(out, &Answer { value, timings }),
        FileReply::Copied(value) => put(out, &Answer { value, timings }),
        FileReply::Renamed | FileReply::Seen => put(
            out,
            &Answer {
                value: Nothing {},
                timings,
            },
        ),
        FileReply::Canonical(value) => put(out, &Answer { value, timings }),
        FileReply::Walked(value) => put(out, &Answer { value, timings }),
        FileReply::WalkedOn(value) => put(out, &Answer { value, timings }),
        FileReply::Opened(value) => put(out, &Answer { value, timings }),
        FileReply::Block(value) => put(out, &Answer { value, timings }),
        FileReply::BlockWritten(value) => put(out, &Answer { value, timings }),
        FileReply::Closed(value) => put(out, &Answer { value, timings }),
        FileReply::Watching(value) => put(out, &Answer { value, timings }),
    }
}
