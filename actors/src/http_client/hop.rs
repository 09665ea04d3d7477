//! One request over a connection of its own, and the requests that a redirect makes of it.

use dwell_messages::{ErrorCode, WireError};
use dwell_relay::driver::tls::Trust;
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::{Body as _, Incoming};
use hyper::header::{HOST, HeaderMap, HeaderValue, LOCATION};
use hyper_util::rt::TokioIo;

use bytes::Bytes;

use super::READ_AHEAD_MAX_BYTES;
use super::request::{Sending, Then};
use crate::dial_out::{Protection, dial};

/// An answer whose body has not come yet. Dropping it closes its connection.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) followed: u32,
    body: Incoming,
    _connection: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What failed, with all its causes: a client has nothing but this text to go by.
fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> WireError {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    WireError::new(ErrorCode::HttpFailed, text)
}

/// Makes a request, and those that its redirects ask for, up to a head that is the answer. Cancellation safe: nothing of it
/// goes on.
///
/// # Errors
/// `HttpFailed` says where it ended.
pub(super) async fn follow(mut sending: Sending, trust: &Trust) -> Result<Answer, WireError> {
    loop {
        let (response, connection) = send(&sending, trust).await?;
        match sending.then(response.status(), response.headers().get(LOCATION))? {
            Then::Again(next) => sending = *next,
            Then::Answer => {
                let (head, body) = response.into_parts();
                return Ok(Answer {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    followed: sending.followed(),
                    body,
                    _connection: connection,
                });
            }
        }
    }
}

async fn send(sending: &Sending, trust: &Trust) -> Result<(Response<Incoming>, AbortOnDrop), WireError> {
    let (host, port) = sending.address()?;
    let protection = if sending.is_secure() {
        Protection::Tls(trust)
    } else {
        Protection::Clear
    };
    let stream = dial(&host, port, protection)
        .await
        .map_err(|error| failed("no connection to the server", &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(READ_AHEAD_MAX_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed("no HTTP with the server", &error))?;
    let connection = AbortOnDrop(tokio::task::spawn_local(async move {
        // What is wrong with it is told by the response too.
        drop(connection.await);
    }));
    let (path, authority) = sending.target();
    let invalid = |_| WireError::new(ErrorCode::BadRequest, "url is invalid: it cannot be sent");
    let mut request = hyper::Request::new(Full::new(sending.body.clone()));
    *request.method_mut() = sending.method.clone();
    *request.uri_mut() = path.parse().map_err(invalid)?;
    *request.headers_mut() = sending.headers.clone();
    let host = HeaderValue::from_str(authority)
        .map_err(|_| WireError::new(ErrorCode::BadRequest, "url is invalid: its host cannot be sent"))?;
    request.headers_mut().entry(HOST).or_insert(host);
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| failed("the server did not answer", &error))?;
    Ok((response, connection))
}

impl Answer {
    /// The next piece of the body; `None` behind the last. Cancellation safe.
    ///
    /// # Errors
    /// `HttpFailed`: it is not whole.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers are nobody's here.
                    Ok(_) | Err(_) => {}
                },
                Some(Err(error)) => return Err(failed("the body is not whole", &error)),
            }
        }
    }

    /// Whether it is known that nothing follows.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }
}
