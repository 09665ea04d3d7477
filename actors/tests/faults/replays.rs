//! What was said once and is said again, by somebody who recorded it; and what belongs to somebody else. None of it does
//! anything.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, Harness, RunError, RunEvent, Target};
use dwell_actors::relay_server::Relay;
use dwell_messages::process::Start;
use dwell_messages::{
    Envelope, ErrorCode, Hello, Message, Pong, ProcessId, PublicKey, Request, RequestId, Resume,
    ResumeRefused, StreamId, TraceContext, Welcome, codec,
};
use dwell_relay::outer::OUTER_HEADER_BYTES;
use dwell_relay::preamble::PREAMBLE_BYTES;
use dwell_relay::{
    Dialer, Lane, Link, LinkEvent, LinkOptions, OsRandomness, OuterDecoder, Outgoing, Preamble,
    StaticKeypair, fingerprint,
};
use dwell_testkit::{Cut, Direction, Marker, TcpFaultProxy, TempHome, wait_until};
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{BOUND, assert_works, bounded, connect_as, copy, frames, keypair, shell, wait};

/// How often a recording is played.
const TIMES: usize = 5;

/// An executor that keeps its key and its address over its lives.
struct Recorded {
    executor: ExecutorHandle,
    identity: StaticKeypair,
    client: StaticKeypair,
    home: TempHome,
    relay: Option<String>,
    address: String,
}

impl Recorded {
    async fn start(relay: Option<String>) -> Self {
        let (identity, client) = (keypair(), keypair());
        let home = TempHome::new().unwrap();
        let list = format!("{}\n", client.public());
        std::fs::write(home.dwell().join("authorized_clients"), list).unwrap();
        let executor = serve(&identity, &home, &relay, "127.0.0.1:0").await;
        let address = executor.local_addr().unwrap();
        Self {
            executor,
            identity,
            client,
            home,
            relay,
            address,
        }
    }

    async fn restart(&mut self) {
        let elsewhere = serve(&keypair(), &self.home, &None, "127.0.0.1:0").await;
        drop(std::mem::replace(&mut self.executor, elsewhere));
        self.executor = serve(&self.identity, &self.home, &self.relay, &self.address).await;
    }

    fn audit(&self) -> PathBuf {
        self.home.dwell().join("audit.jsonl")
    }

    fn effects(&self) -> PathBuf {
        self.home.path().join("effects")
    }
}

async fn serve(
    identity: &StaticKeypair,
    home: &TempHome,
    relay: &Option<String>,
    listen: &str,
) -> ExecutorHandle {
    bounded("an executor", async {
        loop {
            let mut builder = Executor::builder()
                .identity(copy(identity))
                .listen(listen)
                .authorized_clients(home.dwell().join("authorized_clients"))
                .audit(home.dwell().join("audit.jsonl"))
                .detached_life(Duration::ZERO);
            if let Some(relay) = relay {
                builder = builder.relay(relay.clone());
            }
            // The address of an earlier life is free in a moment.
            let Ok(executor) = builder.serve().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if relay.is_some() {
                executor.registered().await.unwrap();
            }
            return executor;
        }
    })
    .await
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn begun(audit: &Path) -> usize {
    text(audit).matches("\"session_begin\"").count()
}

/// Plays bytes to an address and hangs up when something was answered: a reset, a message 2, or nothing more.
async fn play(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    bounded("an answer", async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while frames(&answer).is_empty() {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
        answer
    })
    .await
}

/// Where a client's recorded frames end: behind its preamble, behind message 1, and so on.
fn cuts(recording: &[u8]) -> Vec<usize> {
    let mut at = PREAMBLE_BYTES;
    let mut cuts = Vec::new();
    for frame in frames(&recording[PREAMBLE_BYTES..]) {
        at += OUTER_HEADER_BYTES + frame.payload.len();
        cuts.push(at);
    }
    assert_eq!(at, recording.len(), "it was recorded to its end");
    cuts
}

async fn recorded_sessions_do_nothing(relay: Option<String>) {
    let mut world = Recorded::start(relay).await;
    let upstream: SocketAddr = match &world.relay {
        Some(relay) => relay.parse().unwrap(),
        None => world.address.parse().unwrap(),
    };
    let proxy = TcpFaultProxy::start(upstream, 1).await.unwrap();
    let target = match &world.relay {
        Some(_) => Target::relay(proxy.address().to_string(), world.executor.public_key()),
        None => Target::direct(proxy.address().to_string(), world.executor.public_key()),
    };
    let marker = Marker::new().unwrap();
    let harness = connect_as(&world.client, target.clone()).await.unwrap();
    let script = format!("cat >> {}", world.effects().display());
    let (name, value) = marker.pair();
    let mut run = harness.exec(shell(&script).env(name, value).stdin_piped());
    bounded("a write", run.write_stdin("effect\n".into()))
        .await
        .unwrap();
    bounded("a close", run.close_stdin()).await.unwrap();
    wait(run).await.unwrap();
    bounded("the end", harness.shutdown()).await;
    wait_until(BOUND, || world.executor.sessions() == 0)
        .await
        .unwrap();
    let recording = proxy.captured(Direction::ToUpstream);
    assert_eq!(proxy.accepted(), 1, "it is one connection's");
    let cuts = cuts(&recording);
    assert!(cuts.len() > 3, "{cuts:?}");
    // Written behind everything else.
    wait_until(BOUND, || begun(&world.audit()) >= 1).await.unwrap();
    assert_eq!(begun(&world.audit()), 1);
    for life in ["the same", "a restarted"] {
        for _ in 0..TIMES {
            for cut in [cuts[0], cuts[1], recording.len()] {
                let answer = play(upstream, &recording[..cut]).await;
                // A relay passes on that the recorded client left, and has then nobody to answer.
                assert!(
                    !answer.is_empty() || cut > cuts[0],
                    "{life} executor, {cut} bytes"
                );
            }
        }
        wait_until(BOUND, || world.executor.sessions() == 0)
            .await
            .unwrap();
        // What was played comes before this in the audit file, and in everything else.
        assert_works(&connect_as(&world.client, target.clone()).await.unwrap()).await;
        assert_eq!(text(&world.effects()), "effect\n", "{life} executor");
        assert!(marker.living().unwrap().is_empty(), "{life} executor");
        let sessions = if life == "the same" { 2 } else { 3 };
        wait_until(BOUND, || begun(&world.audit()) >= sessions)
            .await
            .unwrap();
        assert_eq!(
            begun(&world.audit()),
            sessions,
            "{life} executor: only those that were real"
        );
        if life == "the same" {
            world.restart().await;
        }
    }
    // Positive control: who has the key does it again.
    let harness = connect_as(&world.client, target).await.unwrap();
    let mut run = harness.exec(shell(&script).stdin_piped());
    bounded("a write", run.write_stdin("effect\n".into()))
        .await
        .unwrap();
    bounded("a close", run.close_stdin()).await.unwrap();
    wait(run).await.unwrap();
    assert_eq!(text(&world.effects()), "effect\neffect\n");
}

/// C-04, C-05: a recorded message 1, a recorded beginning and a whole recorded session.
#[tokio::test]
async fn recorded_handshakes_and_sessions_do_nothing_at_the_same_and_at_a_restarted_executor() {
    recorded_sessions_do_nothing(None).await;
}

#[tokio::test]
async fn recorded_handshakes_and_sessions_do_nothing_through_a_relay() {
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    recorded_sessions_do_nothing(Some(relay.local_addr())).await;
}

/// A client made of a link and a socket.
pub(crate) struct Raw {
    stream: TcpStream,
    link: Link<()>,
    decoder: OuterDecoder,
    welcome: Option<Welcome>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr, client: &StaticKeypair, executor: PublicKey) -> Self {
        let mut id = StreamId::default();
        getrandom::fill(&mut id.0).unwrap();
        let preamble = Preamble::new(Dialer::Harness, executor, id, &[]).unwrap();
        let hello = Hello {
            timestamp_ms: 1,
            authorization: ByteBuf::new(),
        };
        let (now, options) = (Instant::now(), LinkOptions::direct());
        let (hello, mut rng) = (hello.encode().unwrap(), OsRandomness::new());
        let link = Link::dial(now, client, &preamble, &[], &hello, options, &mut rng).unwrap();
        let mut raw = Self {
            stream: TcpStream::connect(address).await.unwrap(),
            link,
            decoder: OuterDecoder::new(),
            welcome: None,
        };
        while !raw.link.is_up() {
            if let Some(LinkEvent::Established(peer)) = raw.event().await {
                raw.welcome = Some(Welcome::decode(&peer.welcome).unwrap());
            }
        }
        raw
    }

    /// The number of its session, and the token.
    fn session(&self) -> (u64, Vec<u8>) {
        let welcome = self.welcome.as_ref().unwrap();
        (welcome.session, welcome.grant.to_vec())
    }

    pub(crate) fn say(&mut self, message: Message, sequence: u64) {
        let envelope = Envelope::new(TraceContext::default(), message);
        let message = Outgoing {
            lane: Lane::Control,
            channel: 0,
            bytes: codec::encode(&envelope, sequence).unwrap(),
            trailer: None,
            token: (),
        };
        self.link.enqueue(message).map_err(|_| "no room").unwrap();
    }

    /// The next event; none when the connection is at its end.
    async fn event(&mut self) -> Option<LinkEvent> {
        bounded("an event", async {
            loop {
                if let Some(event) = self.link.poll_event() {
                    return Some(event);
                }
                let mut out = BytesMut::new();
                drop(
                    self.link
                        .poll_transmit(Instant::now(), &mut out, usize::MAX)
                        .unwrap(),
                );
                self.stream.write_all(&out).await.ok();
                while let Some(frame) = self.decoder.next_frame().unwrap() {
                    self.link.handle_frame(Instant::now(), frame).unwrap();
                    if let Some(event) = self.link.poll_event() {
                        return Some(event);
                    }
                }
                match self.stream.read_buf(self.decoder.buffer_mut()).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// The next message.
    pub(crate) async fn hear(&mut self) -> Option<Message> {
        loop {
            match self.event().await? {
                LinkEvent::Message(incoming) => return Some(codec::decode(&incoming.bytes).unwrap().message),
                LinkEvent::PeerClosed { .. } => return None,
                LinkEvent::Established(_) | LinkEvent::AuthorizationNeeded { .. } => {}
            }
        }
    }

    /// Asks for a session, with a command right behind it, and tells why there is none.
    async fn refused(&mut self, session: u64, token: &[u8], witness: &Path) -> ResumeRefused {
        self.say(
            Message::Resume(Box::new(Resume {
                session,
                token: ByteBuf::from(token),
                owner: 1,
                link: 1_000,
                received: 0,
                processes: Vec::new(),
                whole: true,
            })),
            0,
        );
        let argv = ["touch", witness.to_str().unwrap()].map(|text| ByteBuf::from(text.as_bytes()));
        let start = Start {
            argv: argv.to_vec(),
            credit: 1 << 20,
            ..Start::default()
        };
        let request = Message::Request {
            id: RequestId(1),
            process: Some(ProcessId(1)),
            request: Request::Start(Box::new(start)),
        };
        self.say(request, 1);
        match self.hear().await {
            Some(Message::ResumeRefused(refused)) => refused,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }
}

/// C-17: what names a session is its number, its token and its client's key together. One of them wrong is as good as all,
/// nobody is told which, nothing is done, and it is written down.
#[tokio::test]
async fn another_clients_session_number_and_token_are_as_good_as_none() {
    let world = Recorded::start(None).await;
    let other = keypair();
    let list = format!("{}\n{}\n", world.client.public(), other.public());
    std::fs::write(world.home.dwell().join("authorized_clients"), list).unwrap();
    let address: SocketAddr = world.address.parse().unwrap();
    let key = world.executor.public_key();
    let mut owner = Raw::connect(address, &world.client, key).await;
    owner.say(Message::Ping(7), 0);
    assert!(matches!(
        owner.hear().await,
        Some(Message::Pong(Pong { value: 7, .. }))
    ));
    let (session, token) = owner.session();
    assert_eq!(world.executor.sessions(), 1);

    let witness = world.home.path().join("executed");
    let mut refusals = Vec::new();
    let mut flipped = token.clone();
    flipped[31] ^= 1;
    let zeroes = vec![0; 32];
    let tries: [(&StaticKeypair, u64, &[u8]); 5] = [
        (&other, session, &token),
        (&other, session, &zeroes),
        (&other, session + 1_000, &token),
        (&world.client, session, &flipped),
        (&world.client, u64::MAX, &token),
    ];
    for (client, session, token) in tries {
        refusals.push(
            Raw::connect(address, client, key)
                .await
                .refused(session, token, &witness)
                .await,
        );
    }
    // The other client's own number, with the token of a session that is not there.
    let mut raw = Raw::connect(address, &other, key).await;
    let (own, _) = raw.session();
    refusals.push(raw.refused(own, &token, &witness).await);
    for refused in &refusals {
        assert_eq!(refused, &refusals[0], "all alike");
    }
    assert_eq!(
        (refusals[0].error.code, refusals[0].owner),
        (ErrorCode::UnknownSession, 0)
    );
    assert!(!witness.exists(), "nothing was executed");
    assert_eq!(world.executor.sessions(), 1);
    let audited = |client: &PublicKey| {
        let audit = text(&world.audit());
        let lines = audit.lines().filter(|line| {
            line.contains("\"session_take\"")
                && line.contains("\"refused\"")
                && line.contains(&fingerprint(client))
        });
        lines.count()
    };
    wait_until(BOUND, || {
        audited(&other.public()) == 4 && audited(&world.client.public()) == 2
    })
    .await
    .unwrap();
    // Its owner has it still.
    owner.say(Message::Ping(8), 0);
    assert!(matches!(
        owner.hear().await,
        Some(Message::Pong(Pong { value: 8, .. }))
    ));
    // Positive control: with all three right it is taken up.
    let mut next = Raw::connect(address, &world.client, key).await;
    next.say(
        Message::Resume(Box::new(Resume {
            session,
            token: ByteBuf::from(token),
            owner: 2,
            link: 1,
            received: 0,
            processes: Vec::new(),
            whole: true,
        })),
        0,
    );
    assert!(matches!(next.hear().await, Some(Message::Resumed(resumed)) if resumed.owner == 2));
}

/// C-22: a connection that ends in order behind the last byte of output is not the output's end.
#[tokio::test]
async fn an_end_that_nobody_sealed_is_no_end_of_a_command() {
    for cut in [Cut::Close, Cut::Reset] {
        let world = Recorded::start(None).await;
        let proxy = TcpFaultProxy::start(world.address.parse().unwrap(), 1)
            .await
            .unwrap();
        let target = Target::direct(proxy.address().to_string(), world.executor.public_key());
        let go = world.home.path().join("go");
        let script = format!("echo all; while ! [ -e {} ]; do sleep 0.01; done", go.display());
        // Its session ends with its link.
        let mortal = connect_as(&world.client, target.clone()).await.unwrap();
        // This one's would go on, if the executor let it: its first word would be that it does not.
        let patient = Harness::builder().identity(copy(&world.client)).connect(target);
        let patient = bounded("connecting", patient).await.unwrap();
        let mut ends = Vec::new();
        for harness in [&mortal, &patient] {
            let mut run = harness.exec(shell(&script));
            crate::support::output_until(&mut run, "all\n").await;
            ends.push(run);
        }
        proxy.cut(cut);
        for mut run in ends {
            while let Some(event) = bounded("an event", run.next()).await {
                assert!(!matches!(event, RunEvent::Exited(_)), "{cut:?}: {event:?}");
            }
            let ended = wait(run).await;
            assert!(matches!(ended, Err(RunError::Lost(_))), "{cut:?}: {ended:?}");
        }
        // Positive control: with its seal it is one.
        std::fs::write(&go, "").unwrap();
        let direct = Target::direct(world.address.clone(), world.executor.public_key());
        let whole = connect_as(&world.client, direct).await.unwrap();
        let finished = wait(whole.exec(Command::new("sh").args(["-c", &script])))
            .await
            .unwrap();
        assert_eq!(finished.stdout.to_text(), "all\n");
    }
}
