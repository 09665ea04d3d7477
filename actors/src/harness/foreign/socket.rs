//! The connection to a server of the JSON dialect: a thin driver.

use std::time::Duration;

use bytes::Bytes;
use dwell_messages::dialect::{
    Fault, INITIALIZED, Id, Incoming, Initialize, Initialized, MESSAGE_MAX_BYTES, encode_notification,
    encode_request,
};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use super::{Left, Place};
use crate::telemetry::Tick;

/// How long a connection may take to be there, and then the session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(10);
/// Who asks, by its own word.
const CLIENT_NAME: &str = "dwell";
/// What is read at a time.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Nobody answers, or not as a WebSocket.
    #[error("{0}")]
    Dial(std::io::Error),
    /// The server says no.
    #[error("{0}")]
    Refused(Fault),
    /// What answers there is no server of the dialect.
    #[error("it is no server of the JSON dialect: {0}")]
    Strange(String),
}

type Connection = WebSocketStream<TcpStream>;

pub(crate) struct Socket(Connection);
pub(super) struct Sink(SplitSink<Connection, Message>);
pub(super) struct Stream(SplitStream<Connection>);

/// What is written.
pub(super) enum Out {
    Text(Vec<u8>, Option<Left>),
    Ping,
}

/// A WebSocket there.
pub(super) async fn dial(place: &Place) -> Result<Socket, OpenError> {
    let late = |_| OpenError::Dial(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(CONNECT_TIMEOUT, upgrade(place))
        .await
        .map_err(late)?
}

async fn upgrade(place: &Place) -> Result<Socket, OpenError> {
    let invalid = |text: &str| OpenError::Dial(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    let mut request = place
        .url
        .as_str()
        .into_client_request()
        .map_err(|_| invalid("write ws://host:port"))?;
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned());
    let authority = authority
        .filter(|_| request.uri().scheme_str() == Some("ws"))
        .filter(|authority| request.uri().port().is_some() && !authority.contains('@'))
        .ok_or_else(|| invalid("write ws://host:port"))?;
    if let Some(token) = &place.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| invalid("the token cannot be part of an HTTP header"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let stream = TcpStream::connect(&authority).await.map_err(OpenError::Dial)?;
    stream.set_nodelay(true).map_err(OpenError::Dial)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MESSAGE_MAX_BYTES)
        // A stock server never divides a message.
        .max_frame_size(Some(MESSAGE_MAX_BYTES))
        .max_message_size(Some(MESSAGE_MAX_BYTES));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(error) => Err(OpenError::Strange(error.to_string())),
    }
}

impl Socket {
    /// Begins a session, or takes one up.
    pub(super) async fn initialize(&mut self, resume: Option<&str>) -> Result<Initialized, OpenError> {
        let late = |_| OpenError::Dial(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(INITIALIZE_TIMEOUT, self.shake_hands(resume))
            .await
            .map_err(late)?
    }

    async fn shake_hands(&mut self, resume: Option<&str>) -> Result<Initialized, OpenError> {
        let strange = |error: &dyn std::fmt::Display| OpenError::Strange(error.to_string());
        let ask = Initialize {
            client_name: CLIENT_NAME.into(),
            resume_session_id: resume.map(str::to_owned),
        };
        let id = Id::Number(1);
        let message = encode_request(&id, "initialize", &ask, None);
        self.send(message).await?;
        loop {
            let message = self.0.next().await;
            let message = match message {
                Some(Ok(Message::Text(text))) => Bytes::from(text),
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_))) | None => return Err(strange(&"it closed the connection")),
                Some(Err(error)) => return Err(strange(&error)),
            };
            match Incoming::decode(&message).map_err(|malformed| strange(&malformed.0))? {
                Incoming::Response { id: answered, result } if answered == id => {
                    let begun = serde_json::from_value(result).map_err(|error| strange(&error))?;
                    let known = encode_notification(INITIALIZED, &serde_json::Map::new());
                    self.send(known).await?;
                    return Ok(begun);
                }
                Incoming::Error { error, .. } => return Err(OpenError::Refused(error)),
                // Of processes of a session that is taken up: what is missed now is read.
                Incoming::Notification { .. } | Incoming::Response { .. } | Incoming::Request { .. } => {}
            }
        }
    }

    async fn send(&mut self, message: Vec<u8>) -> Result<(), OpenError> {
        let text = String::from_utf8(message).map_err(|_| OpenError::Strange("not UTF-8".into()))?;
        let sent = self.0.send(Message::text(text)).await;
        sent.map_err(|error| OpenError::Strange(error.to_string()))
    }

    pub(super) fn split(self) -> (Sink, Stream) {
        let (sink, stream) = self.0.split();
        (Sink(sink), Stream(stream))
    }
}

impl Sink {
    pub(super) async fn send(&mut self, out: Out) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        match out {
            Out::Ping => self.0.send(Message::Ping(Bytes::new())).await,
            Out::Text(bytes, left) => {
                let Ok(text) = String::from_utf8(bytes) else {
                    return Ok(());
                };
                if let Some(stamps) = left.as_ref().and_then(|left| left.stamps.as_ref()) {
                    stamps.written(Tick::now());
                }
                let sent = self.0.send(Message::text(text)).await;
                // Its room is given back when it has left.
                drop(left);
                sent
            }
        }
    }

    pub(super) async fn close(mut self) {
        // A connection that takes no close needs none.
        drop(self.0.close().await);
    }
}

impl Stream {
    /// The next message; nothing where it was only a word. Cancellation safe.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Ok(Some(text.into())),
            Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes)),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
            Some(Ok(Message::Close(_))) | None => Err("the other end closed it".into()),
            Some(Err(error)) => Err(error.to_string()),
        }
    }
}
