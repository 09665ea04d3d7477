//! What goes in comes out, however it is cut.

use std::io::IoSlice;
use std::time::Duration;

use dwell_relay::driver::{Connection, WRITE_STALL_TIMEOUT, write_all, write_frames};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    BINARY, BINARY_BEGINS, CLOSE, CONTINUES, PING, PONG, Raw, SCHEMES, pair, pattern, soon,
};

async fn read_all(mut connection: Connection, length: usize) -> Vec<u8> {
    let mut received = vec![0; length];
    connection.reader.read_exact(&mut received).await.unwrap();
    received
}

#[tokio::test]
async fn single_bytes_come_through_both_ways_on_every_transport() {
    for scheme in SCHEMES {
        let (mut one, mut other) = pair(scheme).await;
        for byte in pattern(300) {
            for (from, to) in [(&mut one, &mut other)] {
                from.writer.write_all(&[byte]).await.unwrap();
                assert_eq!(soon(to.reader.read_u8()).await.unwrap(), byte, "{scheme}");
                to.writer.write_all(&[!byte]).await.unwrap();
                assert_eq!(soon(from.reader.read_u8()).await.unwrap(), !byte, "{scheme}");
            }
        }
    }
}

#[tokio::test]
async fn mebibytes_come_through_whole_and_in_order_both_ways_at_once() {
    for scheme in SCHEMES {
        let (one, other) = pair(scheme).await;
        let sent = pattern(5_000_003);
        let ends = [one, other].map(|connection| {
            let sent = sent.clone();
            tokio::spawn(async move {
                let Connection {
                    mut reader,
                    mut writer,
                    ..
                } = connection;
                let writing = async {
                    write_all(&mut writer, &sent, WRITE_STALL_TIMEOUT).await.unwrap();
                };
                let mut received = vec![0; sent.len()];
                let (read, ()) = tokio::join!(reader.read_exact(&mut received), writing);
                read.unwrap();
                assert!(received == sent);
            })
        });
        for end in ends {
            soon(end).await.unwrap();
        }
    }
}

#[tokio::test]
async fn small_frames_written_together_share_a_message() {
    let (mut raw, mut server) = Raw::upgraded().await;
    let mut frames: std::collections::VecDeque<_> = (0..50_u8)
        .map(|number| bytes::Bytes::from(vec![number; 100]))
        .collect();
    let written = write_frames(&mut server.writer, &mut frames, WRITE_STALL_TIMEOUT, |_| {})
        .await
        .unwrap();
    assert_eq!(written, 5_000);
    let (opcode, payload) = raw.next().await.unwrap();
    assert_eq!((opcode, payload.len()), (BINARY & 0x0f, 5_000));
    // And no message is longer than what may no longer be overtaken.
    let large = pattern(100_000);
    let slices = [IoSlice::new(&large), IoSlice::new(&large)];
    let first = server.writer.write_vectored(&slices).await.unwrap();
    assert_eq!(first, dwell_relay::driver::websocket::SENT_MESSAGE_MAX_BYTES);
}

#[tokio::test]
async fn fragments_and_pings_between_them_change_nothing() {
    let (mut raw, mut server) = Raw::upgraded().await;
    raw.send(BINARY_BEGINS, b"ab").await.unwrap();
    raw.send(PING, b"there?").await.unwrap();
    raw.send(CONTINUES, b"").await.unwrap();
    raw.send(CONTINUES | 0x80, b"cd").await.unwrap();
    raw.send(BINARY, b"").await.unwrap();
    raw.send(BINARY, b"ef").await.unwrap();
    let mut received = [0; 6];
    soon(server.reader.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"abcdef");
    assert_eq!(raw.next().await, Some((PONG & 0x0f, b"there?".to_vec())));
}

#[tokio::test]
async fn frames_cut_into_single_bytes_are_put_together() {
    let (mut raw, mut server) = Raw::upgraded().await;
    let sent = pattern(200);
    for byte in crate::support::frame(BINARY, &sent) {
        raw.send_bytes(&[byte]).await;
    }
    let mut received = vec![0; sent.len()];
    soon(server.reader.read_exact(&mut received)).await.unwrap();
    assert_eq!(received, sent);
}

/// T-16: a close with data before it.
#[tokio::test]
async fn a_close_ends_the_bytes_after_those_that_came_before_it_and_is_answered() {
    let (mut raw, mut server) = Raw::upgraded().await;
    raw.send(BINARY, b"last words").await.unwrap();
    raw.send(CLOSE, &1000_u16.to_be_bytes()).await.unwrap();
    let mut received = Vec::new();
    soon(server.reader.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"last words");
    assert_eq!(raw.close_code().await, Some(1000));
    let refused = soon(server.writer.write_all(b"too late")).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::BrokenPipe, "{refused}");
}

#[tokio::test]
async fn shutting_down_is_the_end_for_the_other_side_and_so_is_dropping() {
    for scheme in SCHEMES {
        for orderly in [true, false] {
            let (mut one, other) = pair(scheme).await;
            let sent = pattern(70_000);
            let expected = sent.clone();
            let reading = tokio::spawn(async move {
                let mut other = other;
                let mut received = Vec::new();
                other.reader.read_to_end(&mut received).await.unwrap();
                received
            });
            write_all(&mut one.writer, &sent, WRITE_STALL_TIMEOUT)
                .await
                .unwrap();
            if orderly {
                one.writer.shutdown().await.unwrap();
            }
            drop(one.writer);
            assert!(soon(reading).await.unwrap() == expected, "{scheme} {orderly}");
        }
    }
}

#[tokio::test]
async fn a_cut_connection_is_an_error_and_no_orderly_end() {
    let (mut raw, mut server) = Raw::upgraded().await;
    raw.send(BINARY, b"x").await.unwrap();
    drop(raw);
    let mut received = Vec::new();
    let cut = soon(server.reader.read_to_end(&mut received)).await.unwrap_err();
    assert_eq!(received, b"x");
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof, "{cut}");
}

#[tokio::test]
async fn a_reader_is_woken_by_bytes_that_come_later() {
    for scheme in SCHEMES {
        let (mut one, other) = pair(scheme).await;
        let reading = tokio::spawn(read_all(other, 4));
        tokio::time::sleep(Duration::from_millis(20)).await;
        one.writer.write_all(b"late").await.unwrap();
        assert_eq!(soon(reading).await.unwrap(), b"late", "{scheme}");
    }
}
