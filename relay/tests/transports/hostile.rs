//! Peers that want to cost more than they pay.

use std::time::Duration;

use dwell_relay::driver::OPENING_BYTES_MAX;
use dwell_relay::driver::net::{Listener, OPENING_TIMEOUT};
use dwell_relay::driver::websocket::{
    FRAME_MAX_BYTES, MESSAGE_MAX_BYTES, QUIET_FRAMES_MAX, WRITE_BUFFER_MAX_BYTES,
};
use dwell_relay::driver::{ANSWERED_BYTES_MAX, Connection, Listen as _, STRANGERS_BYTES_MAX};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{
    BINARY, BINARY_BEGINS, CLOSE, CONTINUES, PING, Raw, TEXT, frame, frame_head, request, soon,
};

/// Reads until the end or an error.
fn reading(server: Connection) -> JoinHandle<(usize, Option<String>)> {
    tokio::spawn(async move {
        // Whole: the end of its writer would be the end of it.
        let mut server = server;
        let mut total = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match server.reader.read(&mut buffer).await {
                Ok(0) => return (total, None),
                Ok(read) => total += read,
                Err(error) => return (total, Some(error.to_string())),
            }
        }
    })
}

/// T-14: judged on its header, before any of its payload has come.
#[tokio::test]
async fn an_oversize_frame_is_refused_on_its_header() {
    for length in [FRAME_MAX_BYTES + 1, 1 << 40] {
        let (mut raw, server) = Raw::upgraded().await;
        let reading = reading(server);
        raw.send_bytes(&frame_head(BINARY, length)).await;
        assert_eq!(raw.close_code().await, Some(1009), "{length}");
        assert!(soon(reading).await.unwrap().1.is_some());
    }
    // Positive control: one byte less is data.
    let (mut raw, server) = Raw::upgraded().await;
    let reading = reading(server);
    raw.send(BINARY, &vec![7; FRAME_MAX_BYTES]).await.unwrap();
    raw.send(CLOSE, &1000_u16.to_be_bytes()).await.unwrap();
    assert_eq!(soon(reading).await.unwrap(), (FRAME_MAX_BYTES, None));
}

/// A WebSocket collects a message before it hands it on: of whoever has proven nothing that is little.
#[tokio::test]
async fn a_stranger_makes_a_websocket_hold_no_more_than_an_opening_takes() {
    let part = vec![1; STRANGERS_BYTES_MAX / 4];
    for steps in 0..3 {
        let (mut raw, server) = Raw::upgraded_stranger().await;
        let most = match steps {
            0 => STRANGERS_BYTES_MAX,
            1 => {
                server.restraint.answered();
                ANSWERED_BYTES_MAX
            }
            _ => {
                server.restraint.lift();
                MESSAGE_MAX_BYTES
            }
        };
        let reading = reading(server);
        // A message that does not end.
        let mut sent = 0;
        let mut kind = BINARY_BEGINS;
        while sent + part.len() < most.min(512 * 1024) {
            raw.send(kind, &part).await.unwrap();
            kind = CONTINUES;
            sent += part.len();
        }
        if steps < 2 {
            let _ = raw.send(kind, &part).await;
            let _ = raw.send(kind, &part).await;
            assert!(soon(reading).await.unwrap().1.is_some(), "{most}");
        } else {
            // Positive control: whoever is known may.
            drop(raw);
            let (read, why) = soon(reading).await.unwrap();
            assert!(read == 0 && why.is_some_and(|why| why.contains("without a close")));
        }
    }
}

/// T-14: a message of fragments that are each within bounds.
#[tokio::test]
async fn an_oversize_message_is_refused_at_the_fragment_that_makes_it_so() {
    let (mut raw, server) = Raw::upgraded().await;
    let reading = reading(server);
    let part = vec![1; 100_000];
    raw.send(BINARY_BEGINS, &part).await.unwrap();
    for _ in 0..MESSAGE_MAX_BYTES / part.len() {
        raw.send(CONTINUES, &part).await.unwrap();
    }
    assert_eq!(raw.close_code().await, Some(1009));
    assert_eq!(soon(reading).await.unwrap().0, 0, "none of it was data");
}

#[tokio::test]
async fn text_is_refused() {
    let (mut raw, server) = Raw::upgraded().await;
    let reading = reading(server);
    raw.send(TEXT, b"hello").await.unwrap();
    assert_eq!(raw.close_code().await, Some(1003));
    let (_, error) = soon(reading).await.unwrap();
    assert!(error.unwrap().contains("text message"));
}

#[tokio::test]
async fn unmasked_reserved_and_unknown_frames_are_refused() {
    for bytes in [
        vec![BINARY, 1, b'x'],
        frame(BINARY | 0x40, b"x"),
        frame(0x83, b"x"),
        frame(0x8b, b"x"),
        frame(CONTINUES | 0x80, b"x"),
        frame(PING & 0x0f, b"x"),
        frame(PING, &[0; 126]),
    ] {
        let (mut raw, server) = Raw::upgraded().await;
        let reading = reading(server);
        raw.send_bytes(&bytes).await;
        assert_eq!(raw.close_code().await, Some(1002), "{bytes:02x?}");
        assert!(soon(reading).await.unwrap().1.is_some());
    }
}

/// T-13: control frames and nothing else.
#[tokio::test]
async fn a_flood_of_pings_or_of_empty_frames_is_closed_and_answered_within_bounds() {
    for kind in [PING, BINARY] {
        let (mut raw, server) = Raw::upgraded().await;
        let reading = reading(server);
        let flood = frame(kind, b"").repeat(20 * QUIET_FRAMES_MAX as usize);
        // The server may have gone before all of it is written.
        drop(raw.socket.write_all(&flood).await);
        let (read, error) = soon(reading).await.unwrap();
        assert_eq!(read, 0);
        assert!(error.unwrap().contains("without data"));
    }
    // Positive control: with data among them as many are fine.
    let (mut raw, server) = Raw::upgraded().await;
    let reading = reading(server);
    for _ in 0..4 {
        let pings = frame(PING, b"").repeat(QUIET_FRAMES_MAX as usize - 1);
        raw.send_bytes(&pings).await;
        raw.send(BINARY, b"x").await.unwrap();
    }
    raw.send(CLOSE, &1000_u16.to_be_bytes()).await.unwrap();
    assert_eq!(raw.close_code().await, Some(1000));
    assert_eq!(soon(reading).await.unwrap(), (4, None));
}

/// T-13: the answer to a flood says why.
#[tokio::test]
async fn a_flood_is_told_that_it_is_one() {
    let (mut raw, server) = Raw::upgraded().await;
    let reading = reading(server);
    let flood = frame(PING, b"").repeat(QUIET_FRAMES_MAX as usize + 1);
    raw.send_bytes(&flood).await;
    assert_eq!(raw.close_code().await, Some(1008));
    assert!(soon(reading).await.unwrap().1.is_some());
}

/// T-13: fragments for ever, each of them empty.
#[tokio::test]
async fn fragments_that_complete_nothing_are_closed() {
    let (mut raw, server) = Raw::upgraded().await;
    let reading = reading(server);
    raw.send(BINARY_BEGINS, b"").await.unwrap();
    let fragments = frame(CONTINUES, b"").repeat(10_000);
    let mut sent = 0;
    while raw.socket.write_all(&fragments).await.is_ok() {
        sent += fragments.len();
        assert!(sent < 64 * MESSAGE_MAX_BYTES, "they are never refused");
    }
    let (read, error) = soon(reading).await.unwrap();
    assert_eq!(read, 0);
    assert!(error.is_some());
}

/// T-13: pings from a peer that reads none of the answers. What does not fit is left out, and the data still comes.
#[tokio::test]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let (mut raw, server) = Raw::upgraded().await;
    let reading = reading(server);
    let mut batch = frame(PING, &[0; 125]).repeat(500);
    batch.extend(frame(BINARY, b"x"));
    for _ in 0..600 {
        soon(raw.socket.write_all(&batch)).await.unwrap();
    }
    raw.send(CLOSE, &1000_u16.to_be_bytes()).await.unwrap();
    assert_eq!(soon(reading).await.unwrap(), (600, None));
    let mut answers = Vec::new();
    drop(soon(raw.socket.read_to_end(&mut answers)).await);
    // Beside what the two kernels hold: each of them a few MiB.
    let asked = 600 * batch.len();
    assert!(
        answers.len() < asked / 2 + WRITE_BUFFER_MAX_BYTES,
        "{} bytes of answers",
        answers.len()
    );
}

/// T-12: one byte a second, of an upgrade or of TLS, or nothing at all.
#[tokio::test(start_paused = true)]
async fn a_slow_opening_is_dropped_at_its_deadline() {
    let authority = crate::support::Authority::new();
    for opening in [
        request("x", ""),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0],
        vec![],
    ] {
        let mut listener = Listener::bind("127.0.0.1:0", Some(authority.certificate()))
            .await
            .unwrap();
        let mut raw = Raw::connect(&listener.address()).await;
        let begun = Instant::now();
        let slow = async {
            for byte in &opening {
                if raw.socket.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let dropped = tokio::select! {
            accepted = listener.accept() => accepted.unwrap_err(),
            () = slow => unreachable!("it never ends"),
        };
        assert_eq!(dropped.kind(), std::io::ErrorKind::ConnectionAborted, "{dropped}");
        let took = begun.elapsed();
        assert!(
            took >= OPENING_TIMEOUT && took < OPENING_TIMEOUT + Duration::from_secs(1),
            "{took:?}"
        );
    }
}

/// T-12: while some are slow, others get in.
#[tokio::test]
async fn slow_openings_keep_nobody_out_and_the_oldest_makes_room() {
    let mut listener = Listener::bind("127.0.0.1:0", None).await.unwrap().openings_max(4);
    let address = listener.address();
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::connect(&address).await;
        raw.send_bytes(b"GET /").await;
        slow.push(raw);
    }
    let url = format!("ws://{address}/");
    let trust = dwell_relay::driver::tls::Trust::default();
    let (dialled, accepted) =
        soon(async { tokio::join!(dwell_relay::driver::net::dial(&url, &trust), listener.accept()) }).await;
    drop((dialled.unwrap(), accepted.unwrap()));
    assert!(listener.openings() <= 4, "{}", listener.openings());
    // The oldest of them were closed.
    assert_eq!(soon(slow[0].socket.read(&mut [0])).await.unwrap_or(0), 0);
}

/// An opening ends at its bound: one byte of it more is refused at once, and one that stays below is not.
#[tokio::test]
async fn an_opening_may_send_so_much_and_no_more() {
    let authority = crate::support::Authority::new();
    let upgrade = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nX-Filler: ";
        format!("{start}{}", "y".repeat(bytes - start.len())).into_bytes()
    };
    // A handshake message that announces more than comes, in one record.
    let hello = |bytes: usize| {
        let record = u16::try_from(bytes - 5).unwrap().to_be_bytes();
        let mut hello = [&[0x16, 3, 1], &record[..], &[1, 0, 0xff, 0]].concat();
        hello.resize(bytes, 0);
        hello
    };
    for opening in [upgrade as fn(usize) -> Vec<u8>, hello] {
        for (bytes, refused) in [(OPENING_BYTES_MAX, false), (OPENING_BYTES_MAX + 1, true)] {
            let mut listener = Listener::bind("127.0.0.1:0", Some(authority.certificate()))
                .await
                .unwrap();
            let mut raw = Raw::connect(&listener.address()).await;
            raw.socket.write_all(&opening(bytes)).await.unwrap();
            // With the end of what it sends, the one that may go on has come to an end as well, but for another reason.
            raw.socket.shutdown().await.unwrap();
            let error = soon(listener.accept()).await.unwrap_err();
            assert_eq!(
                error.to_string().contains("more than an opening takes"),
                refused,
                "{bytes}: {error}"
            );
        }
    }
}

/// T-13: a header of 16 MiB.
#[tokio::test]
async fn an_endless_header_is_refused() {
    let mut listener = Listener::bind("127.0.0.1:0", None).await.unwrap();
    let mut raw = Raw::connect(&listener.address()).await;
    let flood = async {
        let line = format!("X-Filler: {}\r\n", "y".repeat(8_000));
        raw.send_bytes(b"GET / HTTP/1.1\r\n").await;
        for sent in 0..2_048 {
            if raw.socket.write_all(line.as_bytes()).await.is_err() {
                return sent;
            }
        }
        2_048
    };
    let accept = listener.accept();
    let (sent, refused) = soon(async { tokio::join!(flood, accept) }).await;
    assert!(sent < 2_048, "it was refused before the end");
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn what_asks_for_something_else_than_a_websocket_is_refused() {
    let with_origin = request("x", "Origin: https://evil.example\r\n");
    let plain = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let garbage = b"GARBAGE\r\n\r\n".to_vec();
    for asked in [with_origin, plain, garbage] {
        let mut listener = Listener::bind("127.0.0.1:0", None).await.unwrap();
        let mut raw = Raw::connect(&listener.address()).await;
        raw.send_bytes(&asked).await;
        let refused = soon(listener.accept()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionAborted);
        let head = raw.head().await;
        assert!(!head.contains("101"), "{head}");
        if asked.windows(6).any(|six| six == b"Origin") {
            assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        }
    }
}

/// T-16: the end of a connection in the middle of its opening.
#[tokio::test]
async fn an_opening_that_ends_early_is_over_at_once() {
    let authority = crate::support::Authority::new();
    for part in [&b"GET / HT"[..], &[0x16, 3, 1, 0, 200, 1], b""] {
        let mut listener = Listener::bind("127.0.0.1:0", Some(authority.certificate()))
            .await
            .unwrap();
        let mut raw = Raw::connect(&listener.address()).await;
        raw.send_bytes(part).await;
        raw.socket.shutdown().await.unwrap();
        let ended = soon(listener.accept()).await.unwrap_err();
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionAborted, "{ended}");
    }
}
