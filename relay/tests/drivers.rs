//! Drivers: bytes go through, names resolve, and a peer that takes nothing holds nobody for ever.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_relay::driver::{
    Connection, Dial, Listen, WRITE_STALL_TIMEOUT, WriteError, memory, tcp, write_all, write_frames,
};
use dwell_relay::{
    Lane, Link, LinkEvent, LinkOptions, OsRandomness, OuterDecoder, PreambleDecoder, StaticKeypair,
    encode_outer,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use support::{harness_preamble, message, pattern};

async fn write_link(link: &mut Link<u32>, writer: &mut (dyn AsyncWrite + Send + Unpin)) {
    let mut out = BytesMut::new();
    let _ = link.poll_transmit(Instant::now(), &mut out, 256 * 1024).unwrap();
    write_all(writer, &out, WRITE_STALL_TIMEOUT).await.unwrap();
}

/// The executor's side of one connection: serves whoever comes and sends every message back.
async fn echo(mut connection: Connection, identity: Arc<StaticKeypair>) {
    let mut first = PreambleDecoder::new();
    let preamble = loop {
        if let Some((preamble, _)) = first.decode().unwrap() {
            break preamble;
        }
        assert!(connection.reader.read_buf(first.buffer_mut()).await.unwrap() > 0);
    };
    let mut frames = first.into_frames();
    // A side that only reads when it has written everything would stop the other, which does the same.
    let (arrived, mut arrivals) = tokio::sync::mpsc::channel(1024);
    let mut reader = connection.reader;
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(16 * 1024);
            match reader.read_buf(&mut buffer).await {
                Ok(read) if read > 0 && arrived.send(buffer.split()).await.is_ok() => {}
                Ok(_) | Err(_) => return,
            }
        }
    });
    let now = Instant::now();
    let mut link: Link<u32> = Link::answer(
        now,
        identity,
        &preamble,
        LinkOptions::direct(),
        &mut OsRandomness::new(),
    )
    .unwrap();
    loop {
        while let Some(frame) = frames.next_frame().unwrap() {
            link.handle_frame(Instant::now(), frame).unwrap();
            while let Some(event) = link.poll_event() {
                match event {
                    LinkEvent::AuthorizationNeeded { .. } => link.welcome(b"").unwrap(),
                    LinkEvent::Message(received) => {
                        link.enqueue(message(received.lane, received.channel, received.bytes))
                            .unwrap();
                    }
                    LinkEvent::Established(_) | LinkEvent::PeerClosed { .. } => {}
                }
            }
        }
        while link.can_transmit() {
            write_link(&mut link, &mut connection.writer).await;
        }
        match arrivals.recv().await {
            Some(bytes) => frames.feed(bytes),
            None => return,
        }
    }
}

/// Dials, sends a mebibyte and some small messages, and waits for all of them to come back.
async fn echoes_through(mut connection: Connection, identity: Arc<StaticKeypair>) {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let preamble = harness_preamble(identity.public());
    let mut link: Link<u32> = Link::dial(
        Instant::now(),
        &client,
        &preamble,
        &[],
        b"",
        LinkOptions::direct(),
        &mut OsRandomness::new(),
    )
    .unwrap();
    let sent: Vec<Bytes> = (0..12)
        .map(|seed| pattern(1 + 90_000 * (seed as usize % 3), seed))
        .collect();
    for bytes in &sent {
        link.enqueue(message(Lane::Bulk, 1, bytes.clone())).unwrap();
    }
    let mut frames = OuterDecoder::new();
    let mut received = Vec::new();
    while received.len() < sent.len() {
        while link.can_transmit() {
            write_link(&mut link, &mut connection.writer).await;
        }
        assert!(connection.reader.read_buf(frames.buffer_mut()).await.unwrap() > 0);
        while let Some(frame) = frames.next_frame().unwrap() {
            link.handle_frame(Instant::now(), frame).unwrap();
            while let Some(event) = link.poll_event() {
                if let LinkEvent::Message(message) = event {
                    received.push(message.bytes);
                }
            }
        }
    }
    assert_eq!(received, sent);
}

async fn echo_over(dialled: Connection, accepted: Connection) {
    let identity = Arc::new(StaticKeypair::generate(&mut OsRandomness::new()).unwrap());
    let server = tokio::spawn(echo(accepted, identity.clone()));
    tokio::time::timeout(Duration::from_secs(30), echoes_through(dialled, identity))
        .await
        .unwrap();
    server.abort();
}

#[tokio::test]
async fn a_link_works_over_memory() {
    let (one, other) = memory::pair();
    echo_over(one, other).await;
}

#[tokio::test]
async fn a_link_works_over_a_named_hub() {
    let hub = memory::Hub::new();
    let mut listener = hub.listen("executor").unwrap();
    assert!(listener.is_loopback());
    let dial: &dyn Dial = &hub;
    let dialled = dial.dial("executor").await.unwrap();
    let accepted = listener.accept().await.unwrap();
    echo_over(dialled, accepted).await;
}

#[tokio::test]
async fn a_link_works_over_tcp() {
    let mut listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
    assert!(listener.is_loopback());
    let address = listener.address();
    let dial: &dyn Dial = &tcp::TcpDial;
    let (dialled, accepted) = tokio::join!(dial.dial(&address), listener.accept());
    echo_over(dialled.unwrap(), accepted.unwrap()).await;
}

#[tokio::test]
async fn a_hub_refuses_unknown_names_and_names_in_use_and_frees_them() {
    let hub = memory::Hub::new();
    let refused = hub.connect("nobody").await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let listener = hub.listen("relay").unwrap();
    assert_eq!(hub.listen("relay").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    assert_eq!(
        hub.connect("relay").await.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    assert!(hub.listen("relay").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up() {
    let (mut one, _other) = memory::pair();
    let too_much = vec![0; memory::PIPE_BYTES + 1];
    let error = write_all(&mut one.writer, &too_much, Duration::from_secs(2))
        .await
        .unwrap_err();
    assert!(matches!(error, WriteError::Stalled { .. }), "{error}");
    // Positive control: as long as it takes something, any amount goes through.
    let (mut one, mut other) = memory::pair();
    let reader = tokio::spawn(async move {
        let mut total = 0;
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read) = other.reader.read(&mut buffer).await {
            total += read;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if read == 0 {
                break;
            }
        }
        total
    });
    let much = vec![0; 4 * memory::PIPE_BYTES];
    write_all(&mut one.writer, &much, Duration::from_secs(2))
        .await
        .unwrap();
    one.writer.shutdown().await.unwrap();
    drop(one);
    assert_eq!(reader.await.unwrap(), much.len());
}

#[tokio::test]
async fn frames_are_written_whole_and_in_order_and_counted_as_they_leave() {
    for over_tcp in [false, true] {
        let (mut one, mut other) = if over_tcp {
            let mut listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
            let (one, other) = tokio::join!(tcp::connect(listener.local_addr()), listener.accept());
            (one.unwrap(), other.unwrap())
        } else {
            memory::pair()
        };
        let mut frames = VecDeque::new();
        let mut expected = BytesMut::new();
        for number in 0..300_usize {
            let mut frame = BytesMut::new();
            let payload = pattern(16 + number * 100, number as u64);
            encode_outer(
                &mut frame,
                dwell_messages::kinds::OuterKind::Data,
                support::STREAM,
                0,
                &payload,
            );
            expected.extend_from_slice(&frame);
            frames.push_back(frame.freeze());
        }
        let total = expected.len();
        let reader = tokio::spawn(async move {
            let mut received = vec![0; total];
            other.reader.read_exact(&mut received).await.unwrap();
            received
        });
        let mut counted = 0;
        let written = write_frames(&mut one.writer, &mut frames, WRITE_STALL_TIMEOUT, |step| {
            counted += step
        })
        .await
        .unwrap();
        assert_eq!((written, counted), (total, total));
        assert!(frames.is_empty());
        assert_eq!(reader.await.unwrap(), expected);
    }
}
