//! Floods over connections of their own, and connections that hold on to what they have.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_actors::executor::UNPROVEN_MAX;
use dwell_messages::kinds::OuterKind;
use dwell_relay::first_message::FIRST_MESSAGE_MAX_BYTES;
use dwell_relay::strangers::{PENDING_MAX, Rates};
use dwell_relay::{
    Link, LinkEvent, LinkOptions, OsRandomness, OuterDecoder, Reset, ResetCode, StaticKeypair, encode_outer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::executor::ExecutorProcess;
use crate::messages::{Kind, Opening, hello, keypair, opening, preamble, some};
use crate::{BOUND, HANDSHAKE_P99_MAX, MEMORY_MAX_BYTES, RATE_PER_S, alone, flood_time, p99};

/// Connections of a flood that are open at once.
const FLOODERS: usize = 32;

/// A connection from one of many addresses of this machine.
async fn connect(to: SocketAddr, from: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 1, from)), 0).into())?;
    socket.connect(to).await
}

fn wire(opening: &Opening) -> Vec<u8> {
    let mut out = BytesMut::from(&opening.preamble.encode()[..]);
    encode_outer(
        &mut out,
        OuterKind::Handshake,
        opening.preamble.stream,
        0,
        &opening.message,
    );
    out.to_vec()
}

/// Sends these over and over, as fast as the machine makes connections and no faster than the rate; gives how many.
async fn flood(to: SocketAddr, openings: &[Opening], time: Duration) -> u64 {
    let bytes: Vec<_> = openings.iter().map(wire).collect();
    let (begun, sent) = (Instant::now(), Cell::new(0_u64));
    let one = |number: usize| {
        let (bytes, sent) = (&bytes, &sent);
        async move {
            while begun.elapsed() < time {
                let due = begun.elapsed().as_micros() as u64 * u64::from(RATE_PER_S) / 1_000_000;
                if sent.get() >= due {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let turn = sent.replace(sent.get() + 1);
                let from = u8::try_from(number % 8).unwrap();
                let Ok(mut stream) = connect(to, from).await else {
                    continue;
                };
                let message = &bytes[usize::try_from(turn).unwrap() % bytes.len()];
                let _ = stream.write_all(message).await;
                // Until it is answered: else this side would only fill its own kernel.
                let _ = stream.read(&mut [0; 64]).await;
            }
        }
    };
    let flooders: Vec<_> = (0..FLOODERS).map(one).collect();
    join_all(flooders).await;
    sent.get()
}

async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// One legitimate handshake over a connection of its own, from dialling it to message 2; then it is confirmed.
async fn handshake(executor: &ExecutorProcess, client: &StaticKeypair) -> Result<Duration, ResetCode> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(executor.address).await.unwrap();
    let preamble = preamble(executor.key);
    let mut rng = OsRandomness::new();
    let options = LinkOptions::direct();
    let mut link: Link<()> = Link::dial(begun, client, &preamble, &[], &hello(), options, &mut rng).unwrap();
    let mut out = BytesMut::new();
    let mut decoder = OuterDecoder::new();
    loop {
        let _ = link.poll_transmit(Instant::now(), &mut out, usize::MAX).unwrap();
        stream.write_all(&out).await.unwrap();
        out.clear();
        while let Some(frame) = decoder.next_frame().unwrap() {
            link.handle_frame(Instant::now(), frame).unwrap();
            match link.poll_event() {
                Some(LinkEvent::Established(_)) => {
                    let took = begun.elapsed();
                    let _ = link.poll_transmit(Instant::now(), &mut out, usize::MAX).unwrap();
                    link.close(&Reset::new(ResetCode::Closed));
                    let _ = link.poll_transmit(Instant::now(), &mut out, usize::MAX).unwrap();
                    stream.write_all(&out).await.unwrap();
                    return Ok(took);
                }
                Some(LinkEvent::PeerClosed { reason }) => return Err(reason.code),
                Some(LinkEvent::AuthorizationNeeded { .. } | LinkEvent::Message(_)) | None => {}
            }
        }
        if stream.read_buf(decoder.buffer_mut()).await.unwrap() == 0 {
            return Err(ResetCode::PeerGone);
        }
    }
}

#[test]
fn floods_over_connections_of_their_own_cost_what_the_buckets_allow_and_keep_no_known_client_out() {
    alone(async {
        let client = keypair();
        let mut executor = ExecutorProcess::start(client.public(), None, true);
        handshake(&executor, &client).await.unwrap();
        for kind in [Kind::WrongMac, Kind::Strangers, Kind::Replay] {
            let openings = some(kind, &client, executor.key);
            let before = executor.counts();
            let (cpu, begun, time) = (executor.cpu_s(), Instant::now(), flood_time());
            let honest = async {
                let mut ticks = tokio::time::interval(Duration::from_millis(100));
                let (mut times, mut refused) = (Vec::new(), 0);
                while begun.elapsed() < time {
                    ticks.tick().await;
                    match handshake(&executor, &client).await {
                        Ok(took) => times.push(took),
                        Err(_) => refused += 1,
                    }
                }
                (times, refused)
            };
            let (sent, (times, refused)) = tokio::join!(flood(executor.address, &openings, time), honest);
            let lasted = begun.elapsed();
            let share = (executor.cpu_s() - cpu) / lasted.as_secs_f64();
            let after = executor.counts();
            let (admitted, legitimate) = (after.admitted - before.admitted, times.len() as u64);
            println!(
                "{kind:?} directly: {sent} sent in {lasted:?}, {admitted} looked into, {legitimate} of legitimate \
                 handshakes, {:.1} % of a core, legitimate handshakes {} in (p99 {:?}) and {refused} refused",
                share * 100.0,
                times.len(),
                p99(&times)
            );
            assert_eq!(refused, 0, "{kind:?}");
            assert!(p99(&times) < HANDSHAKE_P99_MAX, "{kind:?}");
            let rates = Rates::EXECUTOR.strangers;
            let most =
                u64::from(rates.burst) + (f64::from(rates.per_s) * (lasted.as_secs_f64() + 0.1)) as u64;
            match kind {
                Kind::WrongMac => assert_eq!(admitted, legitimate, "only legitimate ones"),
                Kind::Strangers => assert!(admitted <= legitimate + most, "{admitted} of {most}"),
                Kind::Replay => assert_eq!(admitted, legitimate + 1, "the recorded one, once"),
            }
        }
    });
}

/// What can be made to be held: connections whose message 1 is all but complete, and handshakes that were answered and
/// are followed by all but one byte of a record.
async fn hold(executor: &ExecutorProcess, client: &StaticKeypair, connections: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for number in 0..connections {
        let from = u8::try_from(number % 200).unwrap();
        let mut stream = connect(executor.address, from).await.unwrap();
        let mut out = BytesMut::from(&preamble(executor.key).encode()[..]);
        let stream_id = preamble(executor.key).stream;
        let message = vec![0x5a; FIRST_MESSAGE_MAX_BYTES];
        encode_outer(&mut out, OuterKind::Handshake, stream_id, 0, &message);
        let _ = stream.write_all(&out[..out.len() - 1]).await;
        held.push(stream);
    }
    for number in 0..2 * PENDING_MAX {
        let from = 200 + u8::try_from(number % 8).unwrap();
        let mut stream = connect(executor.address, from).await.unwrap();
        let opening = opening(client, executor.key);
        let _ = stream.write_all(&wire(&opening)).await;
        let _ = stream.read(&mut [0; 4096]).await;
        let mut out = BytesMut::new();
        encode_outer(
            &mut out,
            OuterKind::Data,
            opening.preamble.stream,
            0,
            &[0x5a; 32 * 1024],
        );
        let _ = stream.write_all(&out[..out.len() - 1]).await;
        held.push(stream);
    }
    held
}

#[test]
fn all_memory_before_authentication_is_bounded() {
    alone(async {
        let client = keypair();
        let mut executor = ExecutorProcess::start(client.public(), None, true);
        // What a process takes once, and the allocator keeps, is no part of it.
        for _ in 0..20 {
            handshake(&executor, &client).await.unwrap();
        }
        let before = executor.reset_memory();
        let held = hold(&executor, &client, 2_000).await;
        let counts = executor.counts();
        assert!(counts.connections <= UNPROVEN_MAX as u64, "{counts:?}");
        assert!(
            counts.connections > UNPROVEN_MAX as u64 / 2,
            "they are held: {counts:?}"
        );
        assert!(counts.pending <= PENDING_MAX as u64, "{counts:?}");
        let grown = executor.memory_peak().saturating_sub(before);
        println!(
            "2,000 connections before authentication: {} KiB at the most",
            grown / 1024
        );
        assert!(grown <= MEMORY_MAX_BYTES, "{grown} bytes");
        // Whoever is served still gets in, from an address that holds nothing.
        tokio::time::timeout(BOUND, handshake(&executor, &client))
            .await
            .unwrap()
            .unwrap();
        drop(held);
    });
}
