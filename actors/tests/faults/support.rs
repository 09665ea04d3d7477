//! Three roles in one process, and what talks to them without being one.
//!
//! Sessions here end with their links, so that a fault shows as what it is; those that go on are in `tests/links`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, ConnectError, Finished, Harness, Run, RunError, RunEvent, Target};
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{ExitStatus, PublicKey, StreamId};
use dwell_relay::handshake::Initiator;
use dwell_relay::{Dialer, OsRandomness, OuterDecoder, OuterFrame, Preamble, StaticKeypair, encode_outer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

/// The longest anything here may take.
pub(crate) const BOUND: Duration = Duration::from_secs(25);

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

pub(crate) fn keypair() -> StaticKeypair {
    StaticKeypair::generate(&mut OsRandomness::new()).unwrap()
}

pub(crate) fn copy(pair: &StaticKeypair) -> StaticKeypair {
    StaticKeypair::from_private(Zeroizing::new(*pair.expose_private()))
}

/// A relay, an executor registered with it that listens too, and the key it serves.
pub(crate) struct Roles {
    pub(crate) relay: RelayHandle,
    pub(crate) relay_key: StaticKeypair,
    pub(crate) executor: ExecutorHandle,
    pub(crate) client: StaticKeypair,
}

impl Roles {
    pub(crate) async fn start() -> Self {
        let (client, relay_key) = (keypair(), keypair());
        let relay = Relay::builder()
            .listen("127.0.0.1:0")
            .identity(copy(&relay_key))
            .serve()
            .await
            .unwrap();
        let executor = Executor::builder()
            .relay(relay.local_addr())
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .detached_life(Duration::ZERO)
            .serve()
            .await
            .unwrap();
        bounded("registering", executor.registered()).await.unwrap();
        Self {
            relay,
            relay_key,
            executor,
            client,
        }
    }

    pub(crate) fn relay_address(&self) -> SocketAddr {
        self.relay.local_addr().parse().unwrap()
    }

    pub(crate) fn direct_address(&self) -> SocketAddr {
        self.executor.local_addr().unwrap().parse().unwrap()
    }

    pub(crate) fn through_relay(&self) -> Target {
        Target::relay(self.relay.local_addr(), self.executor.public_key())
    }

    pub(crate) fn direct(&self) -> Target {
        Target::direct(self.executor.local_addr().unwrap(), self.executor.public_key())
    }

    pub(crate) fn through(&self, address: SocketAddr) -> Target {
        Target::relay(address.to_string(), self.executor.public_key())
    }

    pub(crate) async fn connect(&self, target: Target) -> Result<Harness, ConnectError> {
        connect_as(&self.client, target).await
    }

    pub(crate) async fn harness(&self) -> Harness {
        self.connect(self.through_relay()).await.unwrap()
    }
}

pub(crate) async fn connect_as(client: &StaticKeypair, target: Target) -> Result<Harness, ConnectError> {
    bounded(
        "connecting",
        Harness::builder()
            .identity(copy(client))
            .resume_for(Duration::ZERO)
            .connect(target),
    )
    .await
}

pub(crate) async fn wait(run: Run) -> Result<Finished, RunError> {
    bounded("a run", run.wait()).await
}

pub(crate) fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

/// The other sessions go on.
pub(crate) async fn assert_works(harness: &Harness) {
    let finished = wait(harness.exec(shell("echo fine"))).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    assert_eq!(finished.stdout.to_text(), "fine\n");
}

/// Its process id, once it runs.
pub(crate) async fn started(run: &mut Run) -> u32 {
    match bounded("a start", run.next()).await {
        Some(RunEvent::Started { pid, .. }) => pid,
        other => panic!("expected a start, not {other:?}"),
    }
}

/// Reads standard output until it holds this text.
pub(crate) async fn output_until(run: &mut Run, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        match bounded("output", run.next()).await {
            Some(RunEvent::Stdout(data)) => text.push_str(&String::from_utf8_lossy(&data)),
            Some(RunEvent::Started { .. } | RunEvent::Stderr(_)) => {}
            other => panic!("{other:?} came before {wanted:?}; so far {text:?}"),
        }
    }
    text
}

/// A harness's first bytes: preamble, then message 1 of a client with this key. As an executor-direct link sends them.
pub(crate) fn opening(client: &StaticKeypair, executor: PublicKey, stream: StreamId) -> Vec<u8> {
    let preamble = Preamble::new(Dialer::Harness, executor, stream, &[]).unwrap();
    let hello = dwell_messages::Hello {
        timestamp_ms: 1,
        authorization: serde_bytes::ByteBuf::new(),
    };
    let (_, message) = Initiator::start(
        client,
        executor,
        &preamble.encode(),
        &hello.encode().unwrap(),
        &mut OsRandomness::new(),
    )
    .unwrap();
    frame_behind(&preamble, &message)
}

/// A preamble and one handshake frame.
pub(crate) fn frame_behind(preamble: &Preamble, message: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::from(&preamble.encode()[..]);
    encode_outer(&mut out, OuterKind::Handshake, preamble.stream, 0, message);
    out.to_vec()
}

/// Sends bytes and gives what comes back until the other end closes, or until a frame other than a window came.
pub(crate) async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    bounded("an answer", async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A reset while we still write is an answer too.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return answer,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
            if frames(&answer)
                .iter()
                .any(|frame| matches!(frame.kind, OuterKind::Reset | OuterKind::Refused))
            {
                return answer;
            }
        }
    })
    .await
}

/// The whole frames at the front of some bytes.
pub(crate) fn frames(bytes: &[u8]) -> Vec<OuterFrame> {
    let mut decoder = OuterDecoder::new();
    decoder.buffer_mut().extend_from_slice(bytes);
    let mut found = Vec::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        found.push(frame);
    }
    found
}

/// A server that answers the first bytes of everyone with these and keeps the connection open, or closes it.
pub(crate) async fn fake_server(answer: Vec<u8>, close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut opening = [0; 4096];
            if stream.read(&mut opening).await.is_err() {
                continue;
            }
            let stream_id: [u8; 16] = opening[48..64].try_into().unwrap();
            let _ = stream.write_all(&addressed(&answer, stream_id)).await;
            if !close {
                held.push(stream);
            }
        }
    });
    address
}

/// The stream id that stands for whatever the harness draws.
pub(crate) const ANY_STREAM: [u8; 16] = *b"any-stream-here!";

fn addressed(answer: &[u8], stream: [u8; 16]) -> Vec<u8> {
    let mut bytes = answer.to_vec();
    if let Some(at) = bytes.windows(16).position(|window| window == ANY_STREAM) {
        bytes[at..at + 16].copy_from_slice(&stream);
    }
    bytes
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
