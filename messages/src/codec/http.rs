//! Bodies about HTTP, both ways.

use bytes::BytesMut;
use serde::de::DeserializeOwned;

use crate::http::{Flaw, HttpReply, HttpRequest, PART_MAX_BYTES};
use crate::message::{Answer, Message, Nothing, Reply, Request};
use crate::timings::Timings;

use super::body::{Body, put};
use super::{DecodeError, EncodeError};

impl From<Flaw> for EncodeError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Field { field, problem } => Self::BadString { field, problem },
            Flaw::TooLarge { actual } => Self::TooLarge {
                limit: PART_MAX_BYTES,
                actual,
            },
        }
    }
}

pub(super) fn encode_request(out: &mut BytesMut, request: &HttpRequest) -> Result<(), EncodeError> {
    request.check()?;
    match request {
        HttpRequest::Open(body) => put(out, body.as_ref()),
        HttpRequest::Send(body) => put(out, body),
        HttpRequest::Read(body) => put(out, body),
        HttpRequest::Close(body) => put(out, body),
    }
}

pub(super) fn encode_reply(
    out: &mut BytesMut,
    reply: &HttpReply,
    timings: Timings,
) -> Result<(), EncodeError> {
    reply.check()?;
    match reply {
        HttpReply::Head(value) => put(out, &Answer { value, timings }),
        HttpReply::Body(value) => put(out, &Answer { value, timings }),
        HttpReply::Sent | HttpReply::Closed => {
            let value = Nothing {};
            put(out, &Answer { value, timings })
        }
    }
}

impl Body<'_> {
    pub(super) fn http<T: DeserializeOwned>(
        &self,
        request: impl FnOnce(T) -> HttpRequest,
    ) -> Result<Message, DecodeError> {
        let request = request(self.read()?);
        request.check().map_err(|flaw| self.bad(flaw.to_string()))?;
        Ok(Message::Request {
            id: self.id()?,
            process: None,
            request: Request::Http(Box::new(request)),
        })
    }

    pub(super) fn http_reply<T: DeserializeOwned>(
        &self,
        reply: impl FnOnce(T) -> HttpReply,
    ) -> Result<Message, DecodeError> {
        let Answer { value, timings } = self.read()?;
        let reply = reply(value);
        reply.check().map_err(|flaw| self.bad(flaw.to_string()))?;
        Ok(Message::Response {
            id: self.id()?,
            result: Ok(Reply::Http(reply)),
            timings,
        })
    }
}
