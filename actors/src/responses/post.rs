//! A request as a POST that is answered with server-sent events: where there is no WebSocket. A connection each.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use dwell_messages::TraceContext;

use super::answer::refused;
use super::config::Config;
use super::dial::Stream;
use super::error::{Bounded, ResponsesError};
use super::socket::{MESSAGE_MAX_BYTES, Received};
use super::sse::{SseError, SseParser};

/// Bytes read of an answer that is no stream of events.
const ERROR_MAX_BYTES: usize = 64 * 1024;
/// What ends a stream of events of older servers.
const DONE: &str = "[DONE]";

/// A response on its way.
pub(super) struct Events {
    body: Incoming,
    parser: SseParser,
    ended: bool,
    /// Ends with it.
    _connection: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Posts a body and reads the head of what comes back. Deadlines are the caller's.
///
/// # Errors
/// `Interrupted` when the connection is lost on the way; else what the status and the server's words say.
pub(super) async fn post(
    stream: Stream,
    config: &Config,
    context: &TraceContext,
    body: String,
) -> Result<Events, ResponsesError> {
    let lost = |_: hyper::Error| ResponsesError::Interrupted;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(lost)?;
    let connection = AbortOnDrop(tokio::task::spawn_local(async move {
        // What is wrong with it is told by the response too.
        drop(connection.await);
    }));
    let mut request = hyper::Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = config
        .endpoint
        .path()
        .parse()
        .map_err(|_| ResponsesError::Malformed {
            what: "the endpoint's path is none",
        })?;
    let headers = request.headers_mut();
    headers.extend(config.headers());
    set(headers, HOST, &config.endpoint.authority());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if context.is_valid() {
        set(
            headers,
            HeaderName::from_static("traceparent"),
            &context.to_traceparent(),
        );
        if let Some(state) = &context.state {
            set(headers, HeaderName::from_static("tracestate"), state.as_str());
        }
    }
    let response = sender.send_request(request).await.map_err(lost)?;
    if response.status() != StatusCode::OK {
        return Err(told(response).await);
    }
    Ok(Events {
        body: response.into_body(),
        parser: SseParser::new(MESSAGE_MAX_BYTES),
        ended: false,
        _connection: connection,
    })
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What an answer that is no stream of events says.
async fn told(response: Response<Incoming>) -> ResponsesError {
    let status = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER);
    let after = after
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    if status == 429 {
        return ResponsesError::RateLimited { retry_after: after };
    }
    if let Some(error) = ResponsesError::of_status(Some(status)) {
        return error;
    }
    let body = Limited::new(response.into_body(), ERROR_MAX_BYTES)
        .collect()
        .await;
    let body: Option<Value> = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    match body.as_ref().and_then(|body| body.get("error")) {
        Some(error) => refused(Some(error), None),
        None => ResponsesError::Status { status },
    }
}

impl Events {
    /// The next event's data. Cancellation safe.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            match self.parser.next_event() {
                Ok(Some(text)) if text == DONE => continue,
                Ok(Some(text)) => return Received::Text(text),
                Ok(None) if self.ended => return Received::Lost,
                Ok(None) => {}
                Err(SseError::TooLarge(max)) => {
                    return Received::Wrong(ResponsesError::TooLarge {
                        what: Bounded::Message,
                        max,
                    });
                }
                Err(SseError::NotText) => {
                    return Received::Wrong(ResponsesError::Malformed {
                        what: "an event is not UTF-8",
                    });
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.parser.push(data);
                    }
                }
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}
