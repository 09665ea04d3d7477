//! Peers that take nothing, and writers that look in once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dwell_relay::driver::{Connection, KEEP_ALIVE_INTERVAL, WRITE_STALL_TIMEOUT, WriteError, write_all};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::support::{BINARY, PING, PONG, Raw, pair, pattern, soon};

const HELD_BACK: [&str; 3] = ["tls", "ws", "wss"];

/// Writes as an actor's turn does, until nothing more is taken.
fn fill(writer: &mut (dyn AsyncWrite + Send + Unpin), bytes: &[u8]) -> usize {
    let mut nobody = Context::from_waker(Waker::noop());
    let mut taken = 0;
    while taken < bytes.len() {
        match Pin::new(&mut *writer).poll_write(&mut nobody, &bytes[taken..]) {
            Poll::Ready(written) => taken += written.unwrap(),
            Poll::Pending => break,
        }
    }
    taken
}

/// T-21: a consumer that takes nothing for ten minutes. The connection is given up when its time is over, and its
/// reader hears of it.
#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up_at_the_deadline() {
    for scheme in HELD_BACK {
        let (mut one, _other) = pair(scheme).await;
        let much = pattern(64 * 1024 * 1024);
        // The kernel's buffers grow for a while.
        let mut taken = 0;
        for _ in 0..200 {
            taken += fill(&mut one.writer, &much[taken..]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(taken < much.len(), "{scheme}: it is stuck");
        tokio::time::pause();
        let begun = Instant::now();
        // Longer than the transport's own: it is the transport that gives up.
        let error = write_all(&mut one.writer, &much, 20 * WRITE_STALL_TIMEOUT)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, WriteError::Io(error) if error.kind() == io::ErrorKind::TimedOut),
            "{error}"
        );
        assert!(begun.elapsed() <= WRITE_STALL_TIMEOUT + Duration::from_secs(1));
        let heard = one.reader.read_u8().await.unwrap_err();
        assert_eq!(heard.kind(), io::ErrorKind::TimedOut, "{heard}");
        assert!(heard.to_string().contains("took no byte"), "{heard}");
        tokio::time::resume();
    }
}

/// T-21: what nobody reads is not kept, whatever is offered.
#[tokio::test]
async fn a_stuck_connection_takes_no_more_than_the_kernel_and_a_message() {
    let (mut bare, _peer) = pair("tcp").await;
    let much = pattern(64 * 1024 * 1024);
    let mut kernel = 0;
    for _ in 0..200 {
        kernel += fill(&mut bare.writer, &much[kernel..]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for scheme in HELD_BACK {
        let (mut one, _other) = pair(scheme).await;
        let mut taken = 0;
        for _ in 0..200 {
            taken += fill(&mut one.writer, &much[taken..]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(
            taken < 2 * kernel + 512 * 1024,
            "{scheme}: {taken} bytes and {kernel} on TCP"
        );
    }
}

#[tokio::test]
async fn what_a_turn_wrote_leaves_without_anybody_looking_in_again() {
    for scheme in HELD_BACK {
        let (mut one, mut other) = pair(scheme).await;
        let much = pattern(64 * 1024 * 1024);
        let mut taken = 0;
        for _ in 0..50 {
            taken += fill(&mut one.writer, &much[taken..]);
            tokio::task::yield_now().await;
        }
        assert!(taken > 0);
        // Nobody polls this writer any more.
        let mut received = vec![0; taken];
        soon(other.reader.read_exact(&mut received)).await.unwrap();
        assert!(received == much[..taken], "{scheme}");
    }
}

#[tokio::test]
async fn a_task_that_waits_after_a_turn_was_refused_is_woken() {
    for scheme in HELD_BACK {
        let (mut one, mut other) = pair(scheme).await;
        let much = pattern(24 * 1024 * 1024);
        let mut taken = 0;
        for _ in 0..50 {
            taken += fill(&mut one.writer, &much[taken..]);
            tokio::task::yield_now().await;
        }
        let Connection {
            mut writer,
            reader: _reader,
            ..
        } = one;
        let rest = much[taken..].to_vec();
        let writing = tokio::spawn(async move {
            write_all(&mut writer, &rest, WRITE_STALL_TIMEOUT).await.unwrap();
            // And a turn in between takes the waker of nobody else.
            fill(&mut writer, b"turn");
            writer
        });
        let mut received = vec![0; much.len() + 4];
        soon(other.reader.read_exact(&mut received)).await.unwrap();
        assert!(
            received[..much.len()] == much[..] && received.ends_with(b"turn"),
            "{scheme}"
        );
        drop(soon(writing).await.unwrap());
    }
}

#[tokio::test]
async fn a_dropped_connection_delivers_what_it_took_and_then_ends() {
    for scheme in HELD_BACK {
        let (mut one, mut other) = pair(scheme).await;
        let sent = pattern(300_000);
        let reading = tokio::spawn(async move {
            let mut received = Vec::new();
            other.reader.read_to_end(&mut received).await.map(|_| received)
        });
        one.writer.write_all(&sent).await.unwrap();
        drop(one);
        assert!(soon(reading).await.unwrap().unwrap() == sent, "{scheme}");
    }
}

#[tokio::test]
async fn a_shutdown_towards_a_peer_that_takes_nothing_ends_at_the_deadline() {
    for scheme in HELD_BACK {
        let (mut one, _other) = pair(scheme).await;
        let much = pattern(64 * 1024 * 1024);
        let mut taken = 0;
        for _ in 0..200 {
            taken += fill(&mut one.writer, &much[taken..]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::pause();
        let begun = Instant::now();
        let ended = one.writer.shutdown().await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut, "{scheme}: {ended}");
        assert!(begun.elapsed() <= WRITE_STALL_TIMEOUT + Duration::from_secs(1));
        tokio::time::resume();
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_websocket_is_pinged_before_a_proxy_would_end_it() {
    let (mut raw, mut server) = Raw::upgraded().await;
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(raw.next().await, Some((PING & 0x0f, Vec::new())));
        assert!(begun.elapsed() <= KEEP_ALIVE_INTERVAL + Duration::from_secs(1));
        raw.send(PONG, b"").await.unwrap();
    }
    raw.send(BINARY, b"x").await.unwrap();
    assert_eq!(soon(server.reader.read_u8()).await.unwrap(), b'x');
}
