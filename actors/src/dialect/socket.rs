//! The listener and its WebSockets: a thin driver.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dwell_messages::dialect::{FRAME_MAX_BYTES, MESSAGE_MAX_BYTES};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::auth::Auth;
use super::connection::{Connection, FAREWELL, OPENING_TIMEOUT, Origin};
use super::gateway::Gateway;
use super::head::{Answer, Asked, HEAD_MAX_BYTES, end_of, judge, switching};
use super::line::Liveness;
use super::outbox::{Outbox, Outgoing};
use super::task::Task;
use crate::telemetry::wall_unix_ms;

/// Connections of a listener, those without a session included.
pub const CONNECTIONS_MAX: usize = 1_024;
/// How often a client is asked for a word.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A message that is longer goes in so long pieces.
const PIECE_MAX_BYTES: usize = FRAME_MAX_BYTES;
/// What a connection holds back with a socket that takes nothing: one message and a few small ones.
const WRITE_BUFFER_MAX_BYTES: usize = MESSAGE_MAX_BYTES + 1024 * 1024;
/// What is read at a time. Each connection has so much from the start, and most of them are idle.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// How long the kernel waits for a word of a peer that says nothing, and between its questions.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Questions without an answer after which a connection is dead.
const KEEP_ALIVE_TRIES: u32 = 3;
/// How long what was sent may be without an acknowledgement, in milliseconds.
const UNACKNOWLEDGED_MAX_MS: u32 = 30_000;
/// How often a listener that fails is tried again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Takes connections until told to stop.
pub(super) async fn accept(
    listener: TcpListener,
    gateway: Rc<Gateway>,
    auth: Rc<Auth>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &room) => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (gateway, auth, mut stop) = (Rc::clone(&gateway), Rc::clone(&auth), stop.clone());
                tokio::task::spawn_local(async move {
                    tokio::select! {
                        () = serve(stream, peer, gateway, &auth) => {}
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of the JSON dialect could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(room)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn serve(stream: TcpStream, peer: SocketAddr, gateway: Rc<Gateway>, auth: &Auth) {
    if let Err(error) = tune(&stream) {
        tracing::debug!(%error, "a connection of the JSON dialect could not be tuned");
    }
    // What it takes to open is given back before the conversation begins.
    let opened = tokio::time::timeout(OPENING_TIMEOUT, Box::pin(open(stream, auth))).await;
    let Ok(Ok(Some(socket))) = opened else { return };
    converse(socket, Origin::WebSocket(peer.to_string()), gateway).await;
}

/// Small messages at once, and a peer that is gone is found.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let fd = stream.as_fd();
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEP_ALIVE.0)?;
    sockopt::set_tcp_keepintvl(fd, KEEP_ALIVE.1)?;
    sockopt::set_tcp_keepcnt(fd, KEEP_ALIVE_TRIES)?;
    sockopt::set_tcp_user_timeout(fd, UNACKNOWLEDGED_MAX_MS)?;
    Ok(())
}

type Socket = WebSocketStream<TcpStream>;

/// Answers an HTTP request. `None`: it was no WebSocket, and is over.
async fn open(mut stream: TcpStream, auth: &Auth) -> std::io::Result<Option<Socket>> {
    let mut bytes = BytesMut::with_capacity(1_024);
    let end = loop {
        if let Some(end) = end_of(&bytes) {
            break end;
        }
        if bytes.len() > HEAD_MAX_BYTES || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = bytes.split_to(end);
    let answer = match judge(&head) {
        Asked::Plain(answer) => answer,
        Asked::Upgrade { key, authorization } => {
            match auth.admit(authorization.as_deref(), wall_unix_ms() / 1_000) {
                Ok(()) => {
                    let accept = derive_accept_key(key.as_bytes());
                    stream.write_all(&switching(&accept)).await?;
                    let early = bytes.to_vec();
                    let socket =
                        WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config()))
                            .await;
                    return Ok(Some(socket));
                }
                Err(why) => Answer::unauthorized(why),
            }
        }
    };
    stream.write_all(&answer.bytes()).await?;
    stream.shutdown().await?;
    // Whoever still writes is let finish, so that the answer is not lost to a reset.
    let mut rest = [0; 1_024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(None)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(FRAME_MAX_BYTES))
        .accept_unmasked_frames(false)
}

/// One WebSocket, to its end.
async fn converse(socket: Socket, origin: Origin, gateway: Rc<Gateway>) {
    let (sink, stream) = socket.split();
    let (outbox, outgoing) = Outbox::new();
    let liveness = Rc::<Liveness>::default();
    let writer = Task::spawn(write(sink, outgoing, Rc::clone(&liveness)));
    let connection = Connection::new(gateway, origin, outbox, Rc::clone(&liveness));
    tokio::select! {
        // What was answered before is still said.
        () = read(stream, connection, &liveness) => writer.finish(FAREWELL).await,
        () = liveness.evicted() => {}
    }
}

async fn read(mut stream: SplitStream<Socket>, mut connection: Connection, liveness: &Liveness) {
    // One that upgrades and then says nothing has as little time as one that says nothing at all.
    let opening = tokio::time::sleep(OPENING_TIMEOUT);
    tokio::pin!(opening);
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = &mut opening, if !connection.has_begun() => return,
        };
        let Some(message) = message else { return };
        if message.is_ok() {
            liveness.heard();
        }
        // In a box of its own: an idle connection keeps no room for what a request may take.
        let handled = match message {
            Ok(Message::Text(text)) => Box::pin(connection.handle(text.as_bytes())).await,
            Ok(Message::Binary(bytes)) => Box::pin(connection.handle(&bytes)).await,
            // The answers to these are the library's.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "a connection of the JSON dialect broke");
                return;
            }
        };
        if handled.is_err() {
            return;
        }
    }
}

async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut outgoing: tokio::sync::mpsc::Receiver<Box<Outgoing>>,
    liveness: Rc<Liveness>,
) {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => batch(&mut sink, message, &mut outgoing).await,
                None => return,
            },
            () = liveness.asked() => sink.send(Message::Ping(Bytes::new())).await,
            _ = pings.tick() => sink.send(Message::Ping(Bytes::new())).await,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a connection of the JSON dialect takes nothing any more");
            // Its reader is told by the socket itself, or by whoever wants the session.
            return;
        }
    }
}

type Sent = Result<(), tokio_tungstenite::tungstenite::Error>;

/// Everything that waits, in one write where the kernel takes it.
async fn batch(
    sink: &mut SplitSink<Socket, Message>,
    first: Box<Outgoing>,
    outgoing: &mut tokio::sync::mpsc::Receiver<Box<Outgoing>>,
) -> Sent {
    // Their room is given back when they have left.
    let mut left = Vec::new();
    let mut next = Some(first);
    while let Some(mut message) = next {
        feed(sink, std::mem::take(&mut message.bytes)).await?;
        left.push(message);
        next = outgoing.try_recv().ok();
    }
    sink.flush().await
}

/// One message, in pieces where it is longer than a client reads at once.
async fn feed(sink: &mut SplitSink<Socket, Message>, bytes: Vec<u8>) -> Sent {
    let bytes = Bytes::from(bytes);
    if bytes.len() <= PIECE_MAX_BYTES {
        return match Utf8Bytes::try_from(bytes) {
            Ok(text) => sink.feed(Message::Text(text)).await,
            Err(_) => Ok(()),
        };
    }
    let mut rest = bytes;
    let mut kind = Data::Text;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE_MAX_BYTES));
        let frame = Frame::message(piece, OpCode::Data(kind), rest.is_empty());
        sink.feed(Message::Frame(frame)).await?;
        kind = Data::Continue;
    }
    Ok(())
}
