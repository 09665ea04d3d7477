//! The model's WebSocket, all of its library's limits set.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::StatusCode;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::config::Config;
use super::dial::Stream;
use super::error::{Bounded, ResponsesError};
use super::request::REQUEST_MAX_BYTES;
use super::retry::Failure;

/// Bytes of one message of the server: the last one of a response has all of it once more.
pub const MESSAGE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes one read may bring.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Answers to pings, beside the one request that may wait.
const CONTROL_BYTES: usize = 64 * 1024;

/// An open WebSocket.
pub(super) struct Socket(WebSocketStream<Stream>);

/// What came.
#[derive(Debug)]
pub(super) enum Received {
    /// A message.
    Text(String),
    /// The other end closed, or the connection is gone.
    Lost,
    /// Something that ends the connection from this side.
    Wrong(ResponsesError),
}

/// Asks for a WebSocket. The deadline is the caller's.
///
/// # Errors
/// That there is none, and how that was said.
pub(super) async fn upgrade(stream: Stream, config: &Config) -> Result<Socket, Failure> {
    let mut request = config
        .endpoint
        .ws_url()
        .into_client_request()
        .map_err(|_| Failure::UpgradeFailed)?;
    request.headers_mut().extend(config.headers());
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(REQUEST_MAX_BYTES + CONTROL_BYTES)
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES))
        .accept_unmasked_frames(false);
    match client_async_with_config(request, stream, Some(limits)).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(SocketError::Http(response)) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
            Err(Failure::UpgradeRefused(response.status().as_u16()))
        }
        Err(_) => Err(Failure::UpgradeFailed),
    }
}

impl Socket {
    /// Writes one message, to the last byte.
    pub(super) async fn send(&mut self, text: String) -> Result<(), Failure> {
        let sent = self.0.send(Message::Text(text.into())).await;
        sent.map_err(|_| Failure::LostBeforeContent)
    }

    /// Says that it is over, and waits until that has left. The deadline is the caller's.
    pub(super) async fn close(mut self) {
        // A connection that takes no close needs none.
        drop(self.0.close(None).await);
    }

    /// The next message. Pings are answered on the way. Cancellation safe.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => Received::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => text_of(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_))) | None => Received::Lost,
                Some(Err(SocketError::Capacity(CapacityError::MessageTooLong { .. }))) => {
                    Received::Wrong(ResponsesError::TooLarge {
                        what: Bounded::Message,
                        max: MESSAGE_MAX_BYTES,
                    })
                }
                Some(Err(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                    Received::Lost
                }
                Some(Err(SocketError::Protocol(_) | SocketError::Utf8(_) | SocketError::AttackAttempt)) => {
                    Received::Wrong(ResponsesError::Malformed {
                        what: "the WebSocket protocol is broken",
                    })
                }
                Some(Err(_)) => Received::Lost,
            };
        }
    }
}

/// Some servers send their JSON as bytes.
fn text_of(bytes: Bytes) -> Received {
    match String::from_utf8(bytes.into()) {
        Ok(text) => Received::Text(text),
        Err(_) => Received::Wrong(ResponsesError::Malformed {
            what: "a message is not UTF-8",
        }),
    }
}
