//! The sockets of the mock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::{Act, Manner, Posting, REQUEST_MAX_BYTES, SEEN_MAX, Seen, Upgrade};
use crate::in_flight::unpoisoned;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a head.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// Serves for ever.
pub(super) async fn listen(listener: TcpListener, manner: Arc<Manner>) {
    let mut connections = JoinSet::new();
    let count = AtomicU32::new(0);
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let Ok((stream, _)) = accepted else { continue };
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                connections.spawn(connection(stream, number, Arc::clone(&manner)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What ends a connection is its client's to find out.
async fn connection(stream: TcpStream, number: u32, manner: Arc<Manner>) {
    let mut first = [0];
    let peeked = stream.peek(&mut first).await;
    if peeked.is_err() || stream.set_nodelay(true).is_err() {
        return;
    }
    let served = if first[0] == b'P' {
        post(stream, number, &manner).await
    } else {
        websocket(stream, number, &manner).await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the mock is over");
    }
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
async fn websocket(stream: TcpStream, number: u32, manner: &Manner) -> io::Result<()> {
    match manner.upgrade {
        Upgrade::Takes | Upgrade::Refuses(_) => {}
        Upgrade::Cuts => return Ok(()),
        Upgrade::Hangs => return std::future::pending().await,
    }
    let mut headers = Vec::new();
    let answer = |request: &Request, response: Response| {
        let named = request.headers().iter();
        headers = named
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let Upgrade::Refuses(status) = manner.upgrade else {
            return Ok(response);
        };
        let mut refused = ErrorResponse::new(None);
        *refused.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
        Err(refused)
    };
    let limits = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(REQUEST_MAX_BYTES))
        .max_frame_size(Some(REQUEST_MAX_BYTES));
    let socket = accept_hdr_async_with_config(stream, answer, Some(limits)).await;
    let mut socket = socket.map_err(io::Error::other)?;
    let mut request = 0;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(io::Error::other)? else {
            continue;
        };
        request += 1;
        let seen = Seen {
            connection: number,
            request,
            is_post: false,
            headers: headers.clone(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        };
        for act in see(manner, seen) {
            if !perform(&mut socket, act).await? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn see(manner: &Manner, seen: Seen) -> Vec<Act> {
    let acts = (manner.play)(&seen);
    let mut all = unpoisoned(&manner.seen);
    if all.len() < SEEN_MAX {
        all.push(seen);
    }
    acts
}

/// Whether the connection goes on.
async fn perform(socket: &mut WebSocketStream<TcpStream>, act: Act) -> io::Result<bool> {
    let message = match act {
        Act::Event(event) => Message::Text(event.to_string().into()),
        Act::Text(text) => Message::Text(text.into()),
        Act::Binary(bytes) => Message::Binary(bytes.into()),
        Act::Ping => Message::Ping(b"still there?".as_slice().into()),
        Act::Pause(pause) => {
            tokio::time::sleep(pause).await;
            return Ok(true);
        }
        Act::Hold(hold) => {
            hold.notified().await;
            return Ok(true);
        }
        Act::Mark(mark) => {
            mark.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
        Act::Close => {
            socket.close(None).await.map_err(io::Error::other)?;
            return Ok(false);
        }
        Act::Cut => return Ok(false),
    };
    socket.send(message).await.map_err(io::Error::other)?;
    Ok(true)
}

async fn post(mut stream: TcpStream, number: u32, manner: &Manner) -> io::Result<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await? == 0 || read.len() > HEAD_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let headers: Vec<_> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
    if length > REQUEST_MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = read.split_off(end);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let seen = Seen {
        connection: number,
        request: 1,
        is_post: true,
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let acts = see(manner, seen);
    if let Posting::Refuses { status, head, body } = &manner.posting {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} No\r\nContent-Length: {length}\r\nConnection: close\r\n{head}\r\n{body}"
        );
        return stream.write_all(answer.as_bytes()).await;
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for act in acts {
        match act {
            Act::Event(event) => {
                let name = event.get("type").and_then(Value::as_str).unwrap_or("message");
                let text = format!("event: {name}\ndata: {event}\n\n");
                stream.write_all(text.as_bytes()).await?;
            }
            Act::Text(text) => stream.write_all(format!("data: {text}\n\n").as_bytes()).await?,
            Act::Binary(bytes) => stream.write_all(&bytes).await?,
            Act::Ping => stream.write_all(b": still there\n\n").await?,
            Act::Pause(pause) => tokio::time::sleep(pause).await,
            Act::Hold(hold) => hold.notified().await,
            Act::Mark(mark) => {
                mark.fetch_add(1, Ordering::Relaxed);
            }
            Act::Close | Act::Cut => break,
        }
    }
    stream.shutdown().await
}
