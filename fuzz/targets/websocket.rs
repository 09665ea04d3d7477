//! WebSockets without sockets: an upgrade and frames as a stranger may write them, against a second reader written from
//! the RFC and PROTOCOL.md; and both ends of ours over a pipe that takes little at a time.
#![no_main]

use std::io::ErrorKind;
use std::time::Duration;

use dwell_fuzz::{Script, pattern};
use dwell_relay::driver::Connection;
use dwell_relay::driver::fuzzing::{websocket_client, websocket_server};
use dwell_relay::driver::websocket::QUIET_FRAMES_MAX;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::sync::Notify;
use tokio::time::timeout;

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// Of virtual time: whatever waits so long is stuck.
const STUCK: Duration = Duration::from_secs(600);
/// What a server says besides the answers to pings: its half of the upgrade, or a refusal of it, and a close.
const SAID_MAX_BYTES: usize = 1_024;
/// Bytes of one script's frames: what is longer says nothing new, and takes the time of many that are short.
const SCRIPTED_MAX_BYTES: usize = 16 * 1024;

/// How a sequence of frames ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Without a close.
    Cut,
    Closed,
    Refused,
    /// In the middle of what would be refused: some of it is seen on the header, the rest when the frame is whole.
    CutOrRefused,
}

/// What a reader of a client's frames is to make of them.
struct Reference {
    data: Vec<u8>,
    end: End,
    quiet: u32,
}

fn reference(mut bytes: &[u8]) -> Reference {
    let (mut data, mut message) = (Vec::new(), Vec::new());
    let (mut fragmented, mut is_text) = (false, false);
    let (mut quiet, mut quiet_most) = (0, 0);
    let mut end = None;
    while let Some(frame) = Frame::read(&mut bytes) {
        match frame {
            Err(wrong) => end = Some(wrong),
            Ok(frame) => match frame.opcode {
                8 => end = Some(End::Closed),
                9 | 10 => quiet += 1,
                opcode if (opcode == 0) != fragmented => end = Some(End::Refused),
                opcode => {
                    is_text |= opcode == 1;
                    message.extend_from_slice(&frame.payload);
                    fragmented = !frame.last;
                    if frame.last && is_text {
                        end = Some(End::Refused);
                    } else if frame.last && message.is_empty() {
                        quiet += 1;
                    } else if frame.last {
                        data.append(&mut message);
                        quiet = 0;
                    }
                }
            },
        }
        quiet_most = quiet.max(quiet_most);
        if end.is_some() {
            break;
        }
    }
    // A text is refused when it is whole, or when it is none any more.
    let cut = if is_text { End::CutOrRefused } else { End::Cut };
    Reference {
        data,
        end: end.unwrap_or(cut),
        quiet: quiet_most,
    }
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Frame {
    /// The next frame, if it is whole or wrong on its header.
    fn read(bytes: &mut &[u8]) -> Option<Result<Self, End>> {
        let [first, second, ..] = **bytes else { return None };
        let (opcode, short) = (first & 15, usize::from(second & 127));
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let (masked, is_control) = (second & 128 != 0, opcode & 8 != 0);
        let head = 2 + extended + if masked { 4 } else { 0 };
        let numbers = bytes.get(2..head)?;
        let length = match extended {
            0 => short as u64,
            _ => numbers[..extended]
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        };
        let known = matches!(opcode, 0..=2 | 8..=10);
        let control = !is_control || (first & 128 != 0 && length <= 125);
        if length > 128 * 1024 {
            return Some(Err(End::Refused));
        }
        let end = head + length as usize;
        if first & 0b0111_0000 != 0 || !known || !control || !masked {
            let is_whole = bytes.len() >= end;
            return Some(Err(if is_whole { End::Refused } else { End::CutOrRefused }));
        }
        let sealed = bytes.get(head..end)?;
        let mask = &numbers[extended..];
        let payload = sealed
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        *bytes = &bytes[end..];
        Some(Ok(Self {
            last: first & 128 != 0,
            opcode,
            payload,
        }))
    }
}

/// Frames as the script says, mostly as they should be.
fn frames(script: &mut Script<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !script.is_over() {
        let (shape, opcode) = (script.byte(), script.below(16));
        if shape == 0xff {
            bytes.extend_from_slice(script.bytes(16));
            continue;
        }
        // More data than anything else.
        let opcode = [2, 2, 2, 0, 0, 9, 10, 2, 8, 9, 10, 2, 0, 1, 3, 2][opcode];
        let length = usize::from(script.byte())
            * match shape & 14 {
                2 => 40,
                6 | 10 | 14 => 8,
                _ => 1,
            };
        bytes.push(if shape & 1 == 0 { 0x80 } else { 0 } | opcode);
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            _ => bytes.extend([0x80 | 126, (length >> 8) as u8, length as u8]),
        }
        let mask = [shape, 1, 2, 3];
        bytes.extend(mask);
        let payload = pattern(length, u64::from(shape));
        bytes.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        if bytes.len() > SCRIPTED_MAX_BYTES {
            break;
        }
    }
    bytes
}

/// What a server reads of a client that says `bytes` and goes, and how much it says itself. One that asks first waits for
/// the answer.
async fn serve(request: &[u8], bytes: &[u8]) -> (Vec<u8>, Result<(), ErrorKind>, usize) {
    let (client, server) = duplex(8 * 1024);
    let (mut reader, mut writer) = tokio::io::split(client);
    let answered = Notify::new();
    let say = async {
        if !request.is_empty() {
            writer.write_all(request).await.expect("the server reads it");
            answered.notified().await;
        }
        // A server that has refused does not listen to the end.
        if writer.write_all(bytes).await.is_ok() {
            drop(writer.shutdown().await);
        }
    };
    let listen = async {
        let mut said = Vec::new();
        while reader.read_buf(&mut said).await.is_ok_and(|count| count > 0) {
            answered.notify_one();
        }
        said.len()
    };
    let take = async {
        let mut data = Vec::new();
        let outcome = match websocket_server(server).await {
            Ok(mut connection) => connection.reader.read_to_end(&mut data).await.map(drop),
            Err(error) => Err(error),
        };
        (data, outcome.map_err(|error| error.kind()))
    };
    let ((), said, (data, outcome)) = tokio::join!(say, listen, take);
    (data, outcome, said)
}

async fn check_strangers(upgraded: bool, bytes: &[u8]) {
    let request = if upgraded { REQUEST } else { b"" };
    let (data, outcome, said) = serve(request, bytes).await;
    assert!(data.len() <= bytes.len(), "no more comes out than went in");
    assert!(
        said <= SAID_MAX_BYTES + bytes.len(),
        "{said} bytes in answer to {}",
        bytes.len()
    );
    if let Err(kind) = outcome {
        use ErrorKind::{BrokenPipe, InvalidData, UnexpectedEof};
        assert!(
            matches!(kind, InvalidData | UnexpectedEof | BrokenPipe),
            "{kind:?}"
        );
    }
    if !upgraded {
        return;
    }
    let expected = reference(bytes);
    if expected.quiet > QUIET_FRAMES_MAX {
        assert!(expected.data.starts_with(&data));
        return;
    }
    assert!(
        data == expected.data,
        "{} bytes came and {} were sent",
        data.len(),
        expected.data.len()
    );
    match expected.end {
        End::Cut => assert_eq!(outcome, Err(ErrorKind::UnexpectedEof), "an end without a close"),
        End::CutOrRefused => {
            assert!(matches!(
                outcome,
                Err(ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
            ));
        }
        End::Refused => assert_eq!(outcome, Err(ErrorKind::InvalidData)),
        // A close may be malformed itself.
        End::Closed => assert!(
            matches!(outcome, Ok(()) | Err(ErrorKind::InvalidData)),
            "{outcome:?}"
        ),
    }
}

/// One direction: what is written is read, whatever the pieces.
async fn cross(from: &mut Connection, to: &mut Connection, bytes: &[u8], pieces: Vec<&[u8]>) {
    let say = async {
        for piece in pieces {
            from.writer.write_all(piece).await.expect("the other end reads");
        }
        from.writer.flush().await.expect("the other end reads");
    };
    let take = async {
        let mut read = vec![0; bytes.len()];
        to.reader
            .read_exact(&mut read)
            .await
            .expect("the other end writes");
        assert!(read == bytes, "other bytes came out than went in");
    };
    tokio::join!(say, take);
}

async fn check_pair(script: &mut Script<'_>) {
    // A server gives up a request that comes in crumbs, as the library has it.
    let (one, other) = duplex(64 + usize::from(script.byte()) * 64);
    let (client, server) = tokio::join!(websocket_client("ws://h:1/x", one), websocket_server(other));
    let (mut client, mut server) = (
        client.expect("an honest upgrade"),
        server.expect("an honest upgrade"),
    );
    for _ in 0..8 {
        if script.is_over() {
            break;
        }
        let bytes = pattern(usize::from(script.u16() & 0x0fff), 1);
        let pieces = script.pieces(&bytes, 16);
        if script.flag() {
            cross(&mut client, &mut server, &bytes, pieces).await;
        } else {
            cross(&mut server, &mut client, &bytes, pieces).await;
        }
    }
    let close = async { drop(client.writer.shutdown().await) };
    let end = async { server.reader.read_u8().await.map_err(|error| error.kind()) };
    let ((), end) = tokio::join!(close, end);
    assert_eq!(
        end,
        Err(ErrorKind::UnexpectedEof),
        "a close is the end of what is read"
    );
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without drivers can be made");
    let mut script = Script::new(data);
    let case = async {
        match script.below(8) {
            0 => check_strangers(false, script.rest()).await,
            1 => check_strangers(true, script.rest()).await,
            2..=6 => {
                let bytes = frames(&mut script);
                check_strangers(true, &bytes).await;
            }
            _ => check_pair(&mut script).await,
        }
    };
    runtime.block_on(async { timeout(STUCK, case).await.expect("it comes to an end") });
});
