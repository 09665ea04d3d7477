//! A relay that the test plays: one executor registers, and the test opens streams to it as it likes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};
use dwell_relay::opening::Attestation;
use dwell_relay::registration::Registrar;
use dwell_relay::source::SourceTag;
use dwell_relay::strangers::Vouching;
use dwell_relay::{
    Link, LinkEvent, LinkOptions, OsRandomness, OuterDecoder, OuterFrame, PreambleDecoder, Reset, ResetCode,
    StaticKeypair, encode_outer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::messages::{Opening, hello, preamble};

/// From how many sources a flood comes, by the relay's word.
const SOURCES: u64 = 500;
/// Frames of one stream that wait for the test.
const FRAMES_MAX: usize = 16;

#[derive(Default)]
struct Seen {
    streams: HashMap<StreamId, mpsc::Sender<OuterFrame>>,
    resets: u64,
}

pub(crate) struct FakeRelay {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    seen: Arc<Mutex<Seen>>,
    executor: PublicKey,
}

/// Where an executor can register; `FakeRelay::accept` waits for it.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn frame(stream: &mut TcpStream, decoder: &mut OuterDecoder) -> OuterFrame {
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return frame;
        }
        assert_ne!(stream.read_buf(decoder.buffer_mut()).await.unwrap(), 0);
    }
}

impl FakeRelay {
    /// Registers whoever comes.
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        let identity = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let mut decoder = PreambleDecoder::new();
        let preamble = loop {
            if let Some((preamble, _)) = decoder.decode().unwrap() {
                break preamble;
            }
            assert_ne!(stream.read_buf(decoder.buffer_mut()).await.unwrap(), 0);
        };
        let mut decoder = decoder.into_frames();
        let first = frame(&mut stream, &mut decoder).await;
        let mut rng = OsRandomness::new();
        let (proof, answer) = Registrar::read_first(&identity, &preamble, &first.payload, &mut rng).unwrap();
        let mut out = BytesMut::new();
        encode_outer(&mut out, OuterKind::Handshake, preamble.stream, 0, &answer);
        stream.write_all(&out).await.unwrap();
        let third = frame(&mut stream, &mut decoder).await;
        proof.read(&third.payload).unwrap();
        out.clear();
        encode_outer(
            &mut out,
            OuterKind::Registered,
            preamble.stream,
            0,
            &1_u16.to_be_bytes(),
        );
        stream.write_all(&out).await.unwrap();
        let (reader, writer) = stream.into_split();
        let seen = Arc::default();
        tokio::spawn(read(reader, decoder, Arc::clone(&seen)));
        Self {
            writer: tokio::sync::Mutex::new(writer),
            seen,
            executor: preamble.executor,
        }
    }

    pub(crate) async fn send(&self, bytes: &[u8]) {
        self.writer.lock().await.write_all(bytes).await.unwrap();
    }

    /// Streams that the executor has reset.
    pub(crate) fn resets(&self) -> u64 {
        self.seen.lock().unwrap().resets
    }

    /// Sends these over and over at a rate for some time, from many sources; gives how many. Each is reset at once when
    /// there is but one: else its stream would be taken when it comes again.
    pub(crate) async fn flood(&self, openings: &[Opening], per_s: u32, time: Duration) -> u64 {
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let mut sent = 0_u64;
        let mut out = BytesMut::new();
        while begun.elapsed() < time {
            ticks.tick().await;
            let due = begun.elapsed().min(time).as_micros() as u64 * u64::from(per_s) / 1_000_000;
            out.clear();
            while sent < due {
                let opening = &openings[usize::try_from(sent).unwrap() % openings.len()];
                open(&mut out, opening, Vouching::Unvouched, 1_000 + sent % SOURCES);
                if openings.len() == 1 {
                    reset(&mut out, opening);
                }
                sent += 1;
            }
            self.send(&out).await;
        }
        sent
    }

    /// One legitimate handshake, to message 2 and the record that confirms it; gives how long message 2 took.
    pub(crate) async fn handshake(
        &self,
        client: &StaticKeypair,
        vouching: Vouching,
        source: u64,
    ) -> Result<Duration, ResetCode> {
        let begun = Instant::now();
        let preamble = preamble(self.executor);
        let mut rng = OsRandomness::new();
        let options = LinkOptions::relayed();
        let mut link: Link<()> =
            Link::dial(begun, client, &preamble, &[], &hello(), options, &mut rng).unwrap();
        let mut out = BytesMut::new();
        let _ = link.poll_transmit(begun, &mut out, usize::MAX).unwrap();
        let mut decoder = OuterDecoder::new();
        decoder.feed(out.split_off(64));
        let message = decoder.next_frame().unwrap().unwrap().payload.to_vec();
        let (tell, mut frames) = mpsc::channel(FRAMES_MAX);
        self.seen.lock().unwrap().streams.insert(preamble.stream, tell);
        out.clear();
        open(&mut out, &Opening { preamble, message }, vouching, source);
        self.send(&out).await;
        let answer = frames.recv().await.unwrap();
        link.handle_frame(Instant::now(), answer).unwrap();
        let outcome = match link.poll_event().unwrap() {
            LinkEvent::Established(_) => Ok(begun.elapsed()),
            LinkEvent::PeerClosed { reason } => Err(reason.code),
            other @ (LinkEvent::AuthorizationNeeded { .. } | LinkEvent::Message(_)) => panic!("{other:?}"),
        };
        if outcome.is_ok() {
            // The record that confirms it, and its end.
            out.clear();
            let _ = link.poll_transmit(Instant::now(), &mut out, usize::MAX).unwrap();
            link.close(&Reset::new(ResetCode::Closed));
            let _ = link.poll_transmit(Instant::now(), &mut out, usize::MAX).unwrap();
            self.send(&out).await;
        }
        self.seen.lock().unwrap().streams.remove(&preamble.stream);
        outcome
    }
}

/// An OPEN frame.
pub(crate) fn open(out: &mut BytesMut, opening: &Opening, vouching: Vouching, source: u64) {
    let attestation = Attestation {
        vouching,
        source: SourceTag(source.to_be_bytes()),
    };
    let payload = [
        &opening.preamble.encode()[..],
        &attestation.encode(),
        &opening.message,
    ]
    .concat();
    encode_outer(out, OuterKind::Open, opening.preamble.stream, 0, &payload);
}

/// The end of a stream.
pub(crate) fn reset(out: &mut BytesMut, opening: &Opening) {
    let mut payload = BytesMut::new();
    Reset::new(ResetCode::Closed).encode(&mut payload);
    encode_outer(out, OuterKind::Reset, opening.preamble.stream, 0, &payload);
}

async fn read(mut reader: OwnedReadHalf, mut decoder: OuterDecoder, seen: Arc<Mutex<Seen>>) {
    loop {
        while let Some(frame) = decoder.next_frame().unwrap() {
            let mut seen = seen.lock().unwrap();
            seen.resets += u64::from(frame.kind == OuterKind::Reset);
            if let Some(to) = seen.streams.get(&frame.stream) {
                let _ = to.try_send(frame);
            }
        }
        match reader.read_buf(decoder.buffer_mut()).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
