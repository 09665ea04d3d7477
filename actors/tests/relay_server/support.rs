//! A harness and an executor, each a transport and a link's core; the executor echoes, and floods when told to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_actors::relay_server::{RelayBuilder, RelayHandle};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};
use dwell_relay::driver::{Connection, WRITE_STALL_TIMEOUT, tcp, write_all};
use dwell_relay::opening::split_open;
use dwell_relay::registration::{RegisteredExecutor, Registrant, RegistrationError};
use dwell_relay::{
    Dialer, Incoming, Lane, Link, LinkEvent, LinkOptions, OsRandomness, OuterDecoder, OuterFrame, Outgoing,
    Preamble, Reset, StaticKeypair,
};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Size of one message of a flood.
pub(crate) const FLOOD_MESSAGE_BYTES: usize = 64 * 1024;
/// What an executor keeps queued of a flood.
const FLOOD_QUEUED_BYTES: usize = 1024 * 1024;
const TRANSMIT_BYTES: usize = 128 * 1024;

pub(crate) fn keypair() -> StaticKeypair {
    StaticKeypair::generate(&mut OsRandomness::new()).unwrap()
}

pub(crate) fn fresh_stream() -> StreamId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    StreamId(id)
}

pub(crate) async fn serve(builder: RelayBuilder) -> RelayHandle {
    builder.listen("127.0.0.1:0").serve().await.unwrap()
}

pub(crate) async fn dial(relay: &RelayHandle) -> Wire {
    Wire::new(tcp::connect(relay.local_addr()).await.unwrap())
}

/// A transport that frames are read from.
pub(crate) struct Wire {
    connection: Connection,
    decoder: OuterDecoder,
}

impl Wire {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            decoder: OuterDecoder::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        write_all(&mut self.connection.writer, bytes, WRITE_STALL_TIMEOUT)
            .await
            .unwrap();
    }

    /// The next frame, or `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<OuterFrame> {
        timeout(PATIENCE, async {
            loop {
                if let Some(frame) = self.decoder.next_frame().unwrap() {
                    return Some(frame);
                }
                match self.connection.reader.read_buf(self.decoder.buffer_mut()).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
        .expect("a frame or the end comes in time")
    }

    /// Waits for the end, whatever comes before.
    pub(crate) async fn end(&mut self) {
        while self.frame().await.is_some() {}
    }

    pub(crate) async fn register(
        &mut self,
        identity: &StaticKeypair,
    ) -> Result<RegisteredExecutor, RegistrationError> {
        let preamble = Preamble::new(Dialer::Executor, identity.public(), fresh_stream(), &[]).unwrap();
        let (waiting, first) = Registrant::start(identity, &preamble, &[], &mut OsRandomness::new())?;
        self.write(&first).await;
        let answer = self.frame().await.expect("the relay answers");
        let (waiting, proof) = waiting.handle_frame(&answer)?;
        self.write(&proof).await;
        let verdict = self.frame().await.expect("the relay decides");
        waiting.handle_frame(&verdict)
    }
}

/// A dialling end.
pub(crate) struct Harness {
    pub(crate) wire: Wire,
    pub(crate) link: Link<()>,
}

impl Harness {
    /// Dials through the relay and waits for the link. The error is the reset that came instead.
    pub(crate) async fn connect(wire: Wire, executor: PublicKey, token: &[u8]) -> Result<Self, Reset> {
        let preamble = Preamble::new(Dialer::Harness, executor, fresh_stream(), token).unwrap();
        let link = Link::dial(
            Instant::now(),
            &keypair(),
            &preamble,
            token,
            b"hello",
            LinkOptions::relayed(),
            &mut OsRandomness::new(),
        )
        .unwrap();
        let mut this = Self { wire, link };
        match this.event().await {
            LinkEvent::Established(_) => Ok(this),
            LinkEvent::PeerClosed { reason } => Err(reason),
            other @ (LinkEvent::Message(_) | LinkEvent::AuthorizationNeeded { .. }) => panic!("{other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) {
        self.link.enqueue(message(Lane::Control, bytes.into())).unwrap();
        self.flush().await;
    }

    /// Writes all that the window allows: the relay grants no more before half of it is used.
    async fn flush(&mut self) {
        let mut out = BytesMut::new();
        loop {
            let _ = self
                .link
                .poll_transmit(Instant::now(), &mut out, TRANSMIT_BYTES)
                .unwrap();
            if out.is_empty() {
                return;
            }
            self.wire.write(&out.split()).await;
        }
    }

    pub(crate) async fn event(&mut self) -> LinkEvent {
        loop {
            if let Some(event) = self.link.poll_event() {
                return event;
            }
            self.flush().await;
            let frame = self.wire.frame().await.expect("the link is not over");
            self.link.handle_frame(Instant::now(), frame).unwrap();
        }
    }

    pub(crate) async fn message(&mut self) -> Incoming {
        match self.event().await {
            LinkEvent::Message(message) => message,
            other @ (LinkEvent::Established(_)
            | LinkEvent::PeerClosed { .. }
            | LinkEvent::AuthorizationNeeded { .. }) => panic!("{other:?}"),
        }
    }

    pub(crate) async fn echo(&mut self, text: &str) {
        self.send(text.to_owned()).await;
        assert_eq!(self.message().await.bytes, text);
    }

    /// Takes a whole flood and checks every byte of it.
    pub(crate) async fn take_flood(&mut self, messages: usize) {
        for number in 0..messages {
            assert!(
                self.message().await.bytes == flood_message(number),
                "message {number} is intact and in its place"
            );
        }
    }
}

fn message(lane: Lane, bytes: Bytes) -> Outgoing<()> {
    Outgoing {
        lane,
        channel: 1,
        bytes,
        trailer: None,
        token: (),
    }
}

fn flood_message(number: usize) -> Vec<u8> {
    let seed = (number as u8).wrapping_mul(31);
    (0..FLOOD_MESSAGE_BYTES)
        .map(|index| (index as u8).wrapping_add((index >> 8) as u8) ^ seed)
        .collect()
}

/// Asks an executor for a flood of that many messages.
pub(crate) fn flood_request(messages: usize) -> String {
    format!("flood {messages}")
}

struct Served {
    link: Link<()>,
    flood: std::ops::Range<usize>,
}

/// A registered executor that runs as a task until its connection ends.
pub(crate) struct Executor {
    pub(crate) key: PublicKey,
    /// Messages of floods that no window has let go yet.
    pub(crate) held_back: Arc<AtomicUsize>,
    pub(crate) task: JoinHandle<()>,
}

impl Executor {
    pub(crate) async fn start(mut wire: Wire, identity: StaticKeypair) -> Self {
        wire.register(&identity).await.unwrap();
        let held_back = Arc::new(AtomicUsize::new(0));
        Self {
            key: identity.public(),
            task: tokio::spawn(run(wire, Arc::new(identity), Arc::clone(&held_back))),
            held_back,
        }
    }
}

async fn run(mut wire: Wire, identity: Arc<StaticKeypair>, held_back: Arc<AtomicUsize>) {
    let mut links: HashMap<StreamId, Served> = HashMap::new();
    loop {
        let mut wrote = false;
        for served in links.values_mut() {
            wrote |= transmit(&mut wire, served).await;
        }
        held_back.store(
            links.values().map(|served| served.flood.len()).sum(),
            Ordering::SeqCst,
        );
        // What no window holds back goes on between the frames that come.
        let frame = match timeout(
            if wrote { Duration::ZERO } else { Duration::MAX },
            next(&mut wire),
        )
        .await
        {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(_) => continue,
        };
        if frame.kind == OuterKind::Open {
            let (preamble, _, _) = split_open(frame.payload.clone()).unwrap();
            let rng = &mut OsRandomness::new();
            let options = LinkOptions::relayed();
            let link = Link::answer(Instant::now(), Arc::clone(&identity), &preamble, options, rng).unwrap();
            links.insert(frame.stream, Served { link, flood: 0..0 });
        }
        if let Some(served) = links.get_mut(&frame.stream) {
            served.link.handle_frame(Instant::now(), frame).unwrap();
            take_events(served);
        }
        links.retain(|_, served| !served.link.is_over());
    }
}

async fn next(wire: &mut Wire) -> Option<OuterFrame> {
    loop {
        if let Some(frame) = wire.decoder.next_frame().unwrap() {
            return Some(frame);
        }
        match wire.connection.reader.read_buf(wire.decoder.buffer_mut()).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn can_go_on(served: &Served) -> bool {
    !served.flood.is_empty() && served.link.queued_bytes(Lane::Bulk) < FLOOD_QUEUED_BYTES
}

/// Whether anything left.
async fn transmit(wire: &mut Wire, served: &mut Served) -> bool {
    while can_go_on(served) {
        let number = served.flood.next().unwrap();
        served
            .link
            .enqueue(message(Lane::Bulk, flood_message(number).into()))
            .unwrap();
    }
    let mut out = BytesMut::new();
    let _ = served
        .link
        .poll_transmit(Instant::now(), &mut out, TRANSMIT_BYTES)
        .unwrap();
    if out.is_empty() {
        return false;
    }
    // The relay ends while an executor writes, in some tests.
    write_all(&mut wire.connection.writer, &out, WRITE_STALL_TIMEOUT)
        .await
        .is_ok()
}

fn take_events(served: &mut Served) {
    while let Some(event) = served.link.poll_event() {
        match event {
            LinkEvent::AuthorizationNeeded { .. } => served.link.welcome(b"welcome").unwrap(),
            LinkEvent::Message(incoming) => {
                let text = std::str::from_utf8(&incoming.bytes).unwrap_or_default();
                match text.strip_prefix("flood ") {
                    Some(messages) => served.flood = 0..messages.parse().unwrap(),
                    None => served
                        .link
                        .enqueue(message(Lane::Control, incoming.bytes))
                        .unwrap(),
                }
            }
            LinkEvent::Established(_) | LinkEvent::PeerClosed { .. } => {}
        }
    }
}
