//! HTTP requests of the dialect: an exchange of the executor's, whose body is told as a whole or piece by piece.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use dwell_messages::dialect::{
    Blob, BodyDelta, Fault, Header, HttpAnswer, HttpRequest, Id, MESSAGE_MAX_BYTES, RedirectPolicy,
    encode_notification, encode_response, notification,
};
use dwell_messages::http::{BODY_MAX_BYTES, Redirects, SentHeader};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;
use tokio::sync::OwnedSemaphorePermit;

use super::held::{HTTP_BODIES_MAX_BYTES, Held};
use super::outbox::{Gone, Outbox};
use crate::http_client::{HttpAsk, RemoteExchange, RemoteHttp};

/// Bytes of a body that is told as a whole: what one message carries as base64, with a head.
pub const WHOLE_BODY_MAX_BYTES: usize = (MESSAGE_MAX_BYTES - 1024 * 1024) / 4 * 3;

/// In what steps room for such a body is taken.
const STEP_BYTES: usize = 256 * 1024;

/// Names of the bodies that a connection is told piece by piece.
#[derive(Default)]
pub(super) struct Streams(RefCell<HashSet<String>>);

/// A name that is taken, as long as this is there.
struct Taken {
    name: String,
    streams: Rc<Streams>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.streams.0.borrow_mut().remove(&self.name);
    }
}

impl Streams {
    fn take(self: &Rc<Self>, name: String) -> Result<Taken, Fault> {
        if !self.0.borrow_mut().insert(name.clone()) {
            let text = format!("http/request streamResponse requestId `{name}` is already active");
            return Err(Fault::invalid_params(text));
        }
        Ok(Taken {
            name,
            streams: Rc::clone(self),
        })
    }
}

/// A request that is understood. What it is called is taken, where it matters.
pub(super) struct Asking {
    ask: HttpAsk,
    stream: Option<Taken>,
}

/// Understands a request.
///
/// # Errors
/// Its name is another one's, or its body is too large.
pub(super) fn of(streams: &Rc<Streams>, request: HttpRequest) -> Result<Asking, Fault> {
    let body = request.body_base64.unwrap_or_default().0;
    if body.len() as u64 > BODY_MAX_BYTES {
        let text = format!(
            "http/request body has at most {BODY_MAX_BYTES} bytes, not {}",
            body.len()
        );
        return Err(Fault::invalid_params(text));
    }
    let header = |header: Header| SentHeader {
        name: header.name,
        value: ByteBuf::from(header.value),
        variable: header.value_env_var,
    };
    let ask = HttpAsk {
        method: request.method,
        url: request.url,
        headers: request.headers.into_iter().map(header).collect(),
        body,
        timeout: request.timeout_ms.map(Duration::from_millis),
        redirects: match request.redirect_policy {
            RedirectPolicy::Follow => Redirects::Follow,
            RedirectPolicy::Stop => Redirects::Stop,
        },
    };
    let stream = request
        .stream_response
        .then(|| streams.take(request.request_id))
        .transpose()?;
    Ok(Asking { ask, stream })
}

/// An answer, and what follows it.
pub(super) struct Answered {
    message: Vec<u8>,
    /// Room for what is in it.
    _room: Option<OwnedSemaphorePermit>,
    stream: Option<(Taken, RemoteExchange)>,
}

impl Asking {
    /// The answer: all of it, or its head.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn answer(self, id: &Id, http: &RemoteHttp, held: &Held) -> Result<Answered, Fault> {
        let mut exchange = http.request(self.ask).await.map_err(|error| fault(&error))?;
        let mut answer = HttpAnswer {
            status: exchange.status(),
            headers: told(&exchange),
            body_base64: Blob::default(),
        };
        if let Some(taken) = self.stream {
            return Ok(Answered {
                message: encode_response(id, &answer),
                _room: None,
                stream: Some((taken, exchange)),
            });
        }
        let (mut body, mut room) = (Vec::new(), Room::default());
        while let Some(part) = exchange.next().await.map_err(|error| unread(&error))? {
            if body.len() + part.len() > WHOLE_BODY_MAX_BYTES {
                return Err(too_large("it has more than", WHOLE_BODY_MAX_BYTES));
            }
            room.grow(held, body.len() + part.len())?;
            body.extend_from_slice(&part);
        }
        answer.body_base64 = Blob(body.into());
        Ok(Answered {
            message: encode_response(id, &answer),
            _room: room.permit,
            stream: None,
        })
    }
}

/// Room for a body that grows.
#[derive(Default)]
struct Room {
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn grow(&mut self, held: &Held, bytes: usize) -> Result<(), Fault> {
        while self.bytes < bytes {
            let whose = "those of this connection have more than";
            let more = held
                .body(STEP_BYTES)
                .ok_or_else(|| too_large(whose, HTTP_BODIES_MAX_BYTES))?;
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                permit @ None => *permit = Some(more),
            }
            self.bytes += STEP_BYTES;
        }
        Ok(())
    }
}

impl Answered {
    /// Tells it, and the pieces of a body as fast as they are taken: none is asked for before the one before it has its place
    /// among what waits to be written.
    pub(super) async fn tell(self, outbox: &Outbox) -> Result<(), Gone> {
        outbox.send(self.message).await?;
        let Some((taken, mut exchange)) = self.stream else {
            return Ok(());
        };
        let mut seq = 0;
        loop {
            let (data, error) = match exchange.next().await {
                Ok(data) => (data, None),
                Err(error) => (None, Some(error.message)),
            };
            seq += 1;
            let delta = BodyDelta {
                request_id: taken.name.clone(),
                seq,
                done: data.is_none(),
                delta_base64: Blob(data.unwrap_or_default()),
                error,
            };
            let message = encode_notification(notification::BODY_DELTA, &delta);
            if delta.done {
                // Whoever hears of its end may use its name again.
                drop(taken);
                return outbox.send(message).await;
            }
            outbox.send(message).await?;
        }
    }
}

/// The headers that are text: of others the dialect has no way to say them.
fn told(exchange: &RemoteExchange) -> Vec<Header> {
    let text = |header: &dwell_messages::http::Header| {
        let is_plain = header
            .value
            .iter()
            .all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        let value = is_plain.then(|| String::from_utf8_lossy(&header.value).into_owned())?;
        Some(Header {
            name: header.name.clone(),
            value,
            value_env_var: None,
        })
    };
    exchange.headers().iter().filter_map(text).collect()
}

fn too_large(whose: &str, most: usize) -> Fault {
    Fault::failed(format!(
        "failed to read http/request response body: {whose} {most} bytes: ask for it with streamResponse"
    ))
}

fn unread(error: &WireError) -> Fault {
    Fault::failed(format!(
        "failed to read http/request response body: {}",
        error.message
    ))
}

fn fault(error: &WireError) -> Fault {
    match error.code {
        ErrorCode::BadRequest => Fault::invalid_params(format!("http/request {}", error.message)),
        ErrorCode::UnknownMethod => Fault::unknown_method("http/request"),
        _ => Fault::failed(format!("http/request failed: {}", error.message)),
    }
}
