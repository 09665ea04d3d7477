//! Where clients come from: a registration with a relay, whose one connection carries many streams, and listeners.
//!
//! Every session of a connection lives on the connection's arbiter: a record never crosses threads on its way between
//! socket and session. Direct connections are spread over the arbiters.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;
use dwell_messages::{Envelope, StreamId, TraceContext};
use dwell_relay::driver::{Connection, Listen};
use dwell_relay::opening::split_open;
use dwell_relay::outer::PING_BYTES;
use dwell_relay::registration::{AwaitingRegistered, Registrant, RegistrationError};
use dwell_relay::resume::{Beat, Pulse};
use dwell_relay::strangers::Vouching;
use dwell_relay::{
    Dialer, LinkError, OsRandomness, OuterDecoder, OuterFrame, Preamble, PreambleDecoder, Refusal,
    RefusalReason, Reset, ResetCode, encode_outer, inquiry,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};

use super::door::{Origin, Stranger};
use super::gate::{Gate, Passed, Step, Visitor};
use super::session::answer;
use super::{Registration, Shared};
use crate::address::Address;
use crate::in_flight::{Link as Watched, LinkKind};
use crate::mailbox::Mailbox;
use crate::relay_framer::{
    ConnectionError, FramerControl, FramerMessage, INBOUND_FRAMES_MAX, LINKS_MAX, LinkLost, RelayFramer,
    Transport, Uplink, UplinkId, read_loop,
};
use crate::runtime::Runtime;
use crate::rush_log::RushLog;
use crate::telemetry::Tick;

/// How long a dialler, or a relay, may take for what comes before frames.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to register: first this, then doubling.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest between attempts to register.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Before registering again where another process with this key has registered since: the newer one serves meanwhile, and
/// two that go on so take turns less and less often. By the relay's word, so it is a pause and no end.
const SUPERSEDED_FIRST: Duration = Duration::from_secs(5);
/// The longest such pause.
const SUPERSEDED_MAX: Duration = Duration::from_secs(300);
/// Before registering again where the relay refused: its operator may list this key meanwhile, or it was not the relay that
/// said so.
const REFUSED_FIRST: Duration = Duration::from_secs(5);
/// The longest such pause.
const REFUSED_MAX: Duration = Duration::from_secs(300);
/// How often a listener that fails is tried again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a client may take from its preamble to its first message.
const GATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often gates of a relay's connection are looked at that take too long.
const GATE_SWEEP: Duration = Duration::from_secs(1);

/// The stream of an executor's own pings: nobody's. A relay that answers none is left, since an idle connection that died
/// without a word would keep this executor out of reach for ever.
const PING_STREAM: StreamId = StreamId([0; 16]);

/// Takes connections until told to stop.
pub(super) async fn accept(
    mut listener: Box<dyn Listen>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    runtime: Runtime,
) {
    let mut rush = RushLog::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        rush.look(Instant::now(), listener.as_ref());
        match accepted {
            Ok(connection) => {
                // Until there is a place nothing more is accepted: what waits, waits in the kernel.
                let stranger = tokio::select! {
                    stranger = shared.door.enter(connection.source) => stranger,
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                let place = runtime.place();
                let shared = Arc::clone(&shared);
                let arbiter = place.arbiter().clone();
                arbiter.spawn_fn(move || {
                    actix_rt::spawn(async move {
                        serve_direct(connection, stranger, shared).await;
                        drop(place);
                    });
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {
                tracing::debug!(%error, "a connection was given up");
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// One direct connection: its preamble, then one stream.
async fn serve_direct(connection: Connection, stranger: Stranger, shared: Arc<Shared>) {
    // What it takes to prove something is given back before the session begins: this task lives as long as that does.
    let passed = tokio::select! {
        passed = Box::pin(prove(connection, &stranger, &shared)) => passed,
        () = stranger.wake().notified() => {
            tracing::debug!("a connection that had proven nothing made room for another");
            None
        }
    };
    drop(stranger);
    let framer = passed.and_then(|(passed, transport)| passed.enter(&shared, transport));
    if let Some(framer) = framer {
        // The place on this arbiter is taken for as long as its session is.
        framer.stopped().await;
    }
}

/// A direct connection up to its client's first message.
async fn prove(
    connection: Connection,
    stranger: &Stranger,
    shared: &Shared,
) -> Option<(Box<Passed>, Transport)> {
    let Connection {
        mut reader,
        mut writer,
        peer,
        source,
        restraint,
        weight,
    } = connection;
    let opening = async {
        let mut decoder = PreambleDecoder::new();
        loop {
            match decoder.decode() {
                Ok(Some((preamble, _token))) => {
                    let mut frames = decoder.into_frames();
                    frames.set_stranger(true);
                    return Some((preamble, frames));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%peer, %error, "a connection that is none of ours was closed");
                    return None;
                }
            }
            if reader.read_buf(decoder.buffer_mut()).await.ok()? == 0 {
                return None;
            }
        }
    };
    let (preamble, decoder) = tokio::time::timeout(OPENING_TIMEOUT, opening).await.ok()??;
    if preamble.dialer == Dialer::Inquirer {
        drop(writer.write_all(&inquiry::answer(&preamble, shared.public)).await);
        return None;
    }
    let mut clear = BytesMut::new();
    let stream = preamble.stream;
    if preamble.dialer != Dialer::Harness {
        let refusal = Refusal::ours(RefusalReason::Role, "this is an executor");
        say_refused(&mut clear, stream, &refusal);
    } else if preamble.executor != shared.public {
        say_reset(&mut clear, stream);
    }
    if !clear.is_empty() {
        drop(writer.write_all(&clear).await);
        return None;
    }
    let link = match answer(shared, &preamble, false) {
        Ok(link) => link,
        Err(error) => {
            if let LinkError::Refused(refusal) = &error {
                say_refused(&mut clear, stream, refusal);
                drop(writer.write_all(&clear).await);
            }
            return None;
        }
    };
    let connection = Connection {
        reader,
        writer,
        peer,
        source,
        restraint,
        weight,
    };
    let visitor = Visitor {
        preamble,
        origin: stranger.origin(),
        vouching: Vouching::Unvouched,
        wake: Arc::clone(stranger.wake()),
    };
    let passing = pass(Gate::new(link, visitor, false), connection, decoder, shared);
    tokio::time::timeout(GATE_TIMEOUT, passing).await.ok()?
}

/// Takes a connection through its gate: the handshake, and the client's first message.
async fn pass(
    mut gate: Gate,
    mut connection: Connection,
    mut decoder: OuterDecoder,
    shared: &Shared,
) -> Option<(Box<Passed>, Transport)> {
    let mut out = BytesMut::new();
    loop {
        let read = Tick::now();
        while let Some(frame) = decoder.next_frame().ok()? {
            match gate.handle(shared, frame, read) {
                Step::Waiting(waiting) => {
                    gate = *waiting;
                    if gate.is_answered() {
                        decoder.set_stranger(false);
                        connection.restraint.answered();
                    }
                }
                Step::Passed(passed) => {
                    connection.restraint.lift();
                    decoder.shrink();
                    return Some((passed, Transport::Own(connection, Box::new(decoder))));
                }
                Step::Over(last) => {
                    drop(connection.writer.write_all(&last).await);
                    drop(connection.writer.shutdown().await);
                    return None;
                }
            }
        }
        gate.transmit(&mut out);
        if !out.is_empty() {
            connection.writer.write_all(&out).await.ok()?;
            out.clear();
        }
        let reading = connection.reader.read_buf(decoder.buffer_mut());
        let read = match gate.deadline() {
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), reading).await {
                Ok(read) => read.ok()?,
                Err(_) => {
                    drop(connection.writer.write_all(&gate.timeout()).await);
                    return None;
                }
            },
            None => reading.await.ok()?,
        };
        if read == 0 {
            return None;
        }
    }
}

fn say_reset(out: &mut BytesMut, stream: StreamId) {
    let mut payload = BytesMut::new();
    Reset::new(ResetCode::Unavailable).encode(&mut payload);
    encode_outer(out, OuterKind::Reset, stream, 0, &payload);
}

fn say_refused(out: &mut BytesMut, stream: StreamId, refusal: &Refusal) {
    let mut payload = BytesMut::new();
    refusal.encode(&mut payload);
    encode_outer(out, OuterKind::Refused, stream, 0, &payload);
}

/// Keeps this executor registered until told to stop.
pub(super) async fn register(
    address: Address,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    progress: watch::Sender<Registration>,
) {
    let (mut pause, mut superseded) = (RETRY_FIRST, SUPERSEDED_FIRST);
    let mut refused = REFUSED_FIRST;
    loop {
        let begun = Instant::now();
        let attempt = async {
            let (connection, decoder) = register_once(&address, &shared).await?;
            progress.send_replace(Registration::Registered);
            shared.collector.board().meters().set_ready(true);
            tracing::info!(relay = %address, "registered");
            Ok::<_, Attempt>(serve_relay(connection, decoder, &shared).await)
        };
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            _ = stop.wait_for(|stop| *stop) => {
                // Sessions say their goodbyes over the connection: it lives until the process or the handle ends.
                return;
            }
        };
        match outcome {
            Ok(over) => {
                (pause, refused) = (RETRY_FIRST, REFUSED_FIRST);
                if begun.elapsed() > SUPERSEDED_MAX {
                    // It was this executor's for long: no two take it from each other.
                    superseded = SUPERSEDED_FIRST;
                }
                if matches!(over, ConnectionError::Superseded) {
                    pause = superseded;
                    superseded = (superseded * 2).min(SUPERSEDED_MAX);
                }
                tracing::warn!(relay = %address, %over, "the connection to the relay is lost: registering again");
                progress.send_replace(Registration::Pending);
                shared.collector.board().meters().set_ready(false);
            }
            Err(Attempt::Final(why)) => {
                tracing::error!(relay = %address, %why, "the relay does not register this executor");
                progress.send_replace(Registration::Failed(why));
                return;
            }
            Err(Attempt::Refused(why)) => {
                // Whoever is in between can say so as well: it is told to whoever asks, and ends nothing.
                tracing::error!(relay = %address, %why, "the relay does not register this executor: trying again later");
                progress.send_replace(Registration::Failed(why));
                pause = refused;
                refused = (refused * 2).min(REFUSED_MAX);
            }
            Err(Attempt::Retry(why)) => {
                tracing::warn!(relay = %address, %why, "registering failed: trying again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        pause = (pause * 2).clamp(RETRY_FIRST, RETRY_MAX);
    }
}

/// Why one attempt failed.
enum Attempt {
    /// Trying again may help.
    Retry(String),
    /// By a word that nobody proves.
    Refused(String),
    /// It will not.
    Final(String),
}

async fn register_once(address: &Address, shared: &Shared) -> Result<(Connection, OuterDecoder), Attempt> {
    let retry = |error: &dyn std::fmt::Display| Attempt::Retry(error.to_string());
    let mut connection = address.dial().await.map_err(|error| match error.kind() {
        // The address is none, or its certificate's authority is no file: the next attempt ends as this one.
        std::io::ErrorKind::InvalidInput => Attempt::Final(chain(&error)),
        _ => Attempt::Retry(chain(&error)),
    })?;
    let handshake = async {
        let mut stream = StreamId::default();
        getrandom::fill(&mut stream.0).map_err(|error| retry(&error))?;
        let preamble =
            Preamble::new(Dialer::Executor, shared.public, stream, &[]).map_err(|error| retry(&error))?;
        let (waiting, opening) =
            Registrant::start(&shared.identity, &preamble, &[], &mut OsRandomness::new())
                .map_err(|error| retry(&error))?;
        connection
            .writer
            .write_all(&opening)
            .await
            .map_err(|error| retry(&error))?;
        let mut decoder = OuterDecoder::new();
        let frame = next_frame(&mut connection, &mut decoder).await?;
        let (waiting, proof) = waiting
            .handle_frame(&frame)
            .map_err(|error| refused_or_retry(&error))?;
        connection
            .writer
            .write_all(&proof)
            .await
            .map_err(|error| retry(&error))?;
        let waiting: AwaitingRegistered = waiting;
        let frame = next_frame(&mut connection, &mut decoder).await?;
        waiting
            .handle_frame(&frame)
            .map_err(|error| refused_or_retry(&error))?;
        Ok(decoder)
    };
    let decoder = tokio::time::timeout(OPENING_TIMEOUT, handshake)
        .await
        .map_err(|_| Attempt::Retry("the relay did not answer in time".into()))??;
    Ok((connection, decoder))
}

fn refused_or_retry(error: &RegistrationError) -> Attempt {
    let text = chain(error);
    match error {
        RegistrationError::Refused(_) => Attempt::Refused(text),
        _ => Attempt::Retry(text),
    }
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

async fn next_frame(connection: &mut Connection, decoder: &mut OuterDecoder) -> Result<OuterFrame, Attempt> {
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(Attempt::Retry(error.to_string())),
        }
        match connection.reader.read_buf(decoder.buffer_mut()).await {
            Ok(0) => return Err(Attempt::Retry("the relay closed the connection".into())),
            Ok(_) => {}
            Err(error) => return Err(Attempt::Retry(error.to_string())),
        }
    }
}

/// Streams of one registration that are not sessions yet: those that were answered, so no more than may be under way.
#[derive(Default)]
struct Gates {
    waiting: HashMap<StreamId, (Gate, Instant)>,
    /// One of them has to make room for another.
    crowded: Arc<Notify>,
}

/// Serves the streams of one registration until its connection ends.
async fn serve_relay(connection: Connection, decoder: OuterDecoder, shared: &Arc<Shared>) -> ConnectionError {
    let uplink = Rc::new(Uplink::counting(shared.collector.board()));
    let id = uplink.share();
    let gates: RefCell<Gates> = RefCell::default();
    let writer = actix_rt::spawn(Rc::clone(&uplink).write_loop(connection.writer));
    let superseded = Cell::new(false);
    let pulse = Cell::new(Pulse::pinging(Instant::now(), shared.relay_pings));
    let board = shared.collector.board();
    let registration = board.link(Watched::new(
        LinkKind::Registration,
        PING_STREAM,
        uplink.writing(),
    ));
    let meters = Arc::clone(board.meters());
    let reading = read_loop(connection.reader, (decoder, meters), |frame, read| {
        if frame.kind == OuterKind::Pong && frame.stream == PING_STREAM {
            let mut heard = pulse.get();
            heard.pong(Instant::now());
            pulse.set(heard);
            registration.heard();
        } else {
            superseded.set(superseded.get() || frame.kind == OuterKind::Refused);
            relay_frame(shared, &uplink, id, &gates, frame, read);
        }
        std::future::ready(true)
    });
    let pinging = async {
        loop {
            let mut beating = pulse.get();
            let beat = beating.beat(Instant::now());
            pulse.set(beating);
            match beat {
                Beat::Wait(until) => tokio::time::sleep_until(until.into()).await,
                Beat::Ping => {
                    registration.pinged();
                    uplink.say(|out| encode_outer(out, OuterKind::Ping, PING_STREAM, 0, &[0; PING_BYTES]))
                }
                Beat::Dead => return ConnectionError::Silent,
            }
        }
    };
    let sweeping = async {
        let crowded = Arc::clone(&gates.borrow().crowded);
        loop {
            tokio::select! {
                () = tokio::time::sleep(GATE_SWEEP) => {}
                () = crowded.notified() => {}
            }
            gates.borrow_mut().sweep(&uplink);
        }
    };
    let over = tokio::select! {
        over = reading => over,
        written = writer => written.unwrap_or(ConnectionError::Closed),
        () = sweeping => ConnectionError::Closed,
        silent = pinging => silent,
    };
    let over = if superseded.get() {
        ConnectionError::Superseded
    } else {
        over
    };
    for (stream, framer) in uplink.take_routes() {
        let lost = LinkLost::Connection(over.to_string());
        tell_lost(&framer, stream, lost).await;
    }
    uplink.close();
    over
}

impl Gates {
    /// Ends what takes too long, and what has made room for others.
    fn sweep(&mut self, uplink: &Uplink) {
        let now = Instant::now();
        let late: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, (gate, deadline))| *deadline <= now || gate.is_evicted())
            .map(|(stream, _)| *stream)
            .collect();
        for stream in late {
            if let Some((gate, _)) = self.waiting.remove(&stream) {
                let last = if gate.is_evicted() {
                    gate.evict()
                } else {
                    gate.timeout()
                };
                uplink.say(|out| out.extend_from_slice(&last));
            }
        }
    }
}

async fn tell_lost(framer: &Mailbox<RelayFramer>, stream: StreamId, why: LinkLost) {
    let message = FramerMessage::Over(stream, why);
    drop(framer.tell(Envelope::new(TraceContext::default(), message)).await);
}

/// One frame of the shared connection. Never waits: a stream that does not keep up is reset, the others go on.
fn relay_frame(
    shared: &Arc<Shared>,
    uplink: &Rc<Uplink>,
    id: UplinkId,
    gates: &RefCell<Gates>,
    frame: OuterFrame,
    read: Tick,
) {
    match frame.kind {
        OuterKind::Open => open_stream(shared, uplink, id, gates, frame, read),
        OuterKind::Ping => {
            uplink.say(|out| encode_outer(out, OuterKind::Pong, frame.stream, 0, &frame.payload));
        }
        OuterKind::Refused => {
            tracing::warn!(
                "the relay has a newer registration of this executor: two processes share one key"
            );
        }
        OuterKind::Handshake
        | OuterKind::Data
        | OuterKind::Reset
        | OuterKind::Window
        | OuterKind::Registered
        | OuterKind::Pong => {
            let stream = frame.stream;
            let waiting = gates.borrow_mut().waiting.remove(&stream);
            if let Some((gate, deadline)) = waiting {
                return through_gate(shared, uplink, id, gates, (gate, deadline), (frame, read));
            }
            let Some(inbound) = uplink.route_of(stream) else {
                return;
            };
            let message = FramerMessage::Inbound(frame, read);
            if inbound
                .try_tell(Envelope::new(TraceContext::default(), message))
                .is_err()
            {
                let why = LinkLost::Failed(format!(
                    "more than {INBOUND_FRAMES_MAX} frames waited to be opened"
                ));
                drop(inbound.control(FramerControl::Lost(Some(stream), why)));
            }
        }
    }
}

fn through_gate(
    shared: &Arc<Shared>,
    uplink: &Rc<Uplink>,
    id: UplinkId,
    gates: &RefCell<Gates>,
    (gate, deadline): (Gate, Instant),
    (frame, read): (OuterFrame, Tick),
) {
    let stream = frame.stream;
    match gate.handle(shared, frame, read) {
        Step::Waiting(mut gate) => {
            uplink.say(|out| gate.transmit(out));
            gates.borrow_mut().waiting.insert(stream, (*gate, deadline));
        }
        Step::Over(last) => uplink.say(|out| out.extend_from_slice(&last)),
        Step::Passed(passed) => {
            // The next frame may be here already.
            if let Some(framer) = passed.enter(shared, Transport::Shared(id)) {
                uplink.route(stream, framer.port(INBOUND_FRAMES_MAX));
            }
        }
    }
}

fn open_stream(
    shared: &Arc<Shared>,
    uplink: &Rc<Uplink>,
    id: UplinkId,
    gates: &RefCell<Gates>,
    frame: OuterFrame,
    read: Tick,
) {
    let stream = frame.stream;
    let refuse = || uplink.say(|out| say_reset(out, stream));
    let taken = uplink.holds(stream)
        || uplink.route_of(stream).is_some()
        || gates.borrow().waiting.contains_key(&stream);
    if taken || !uplink.has_room() || gates.borrow().waiting.len() >= LINKS_MAX {
        return refuse();
    }
    let Ok((preamble, attested, hello)) = split_open(frame.payload) else {
        return refuse();
    };
    if preamble.executor != shared.public || preamble.stream != stream {
        return refuse();
    }
    let link = match answer(shared, &preamble, true) {
        Ok(link) => link,
        Err(LinkError::Refused(refusal)) => return uplink.say(|out| say_refused(out, stream, &refusal)),
        Err(_) => return refuse(),
    };
    let first = OuterFrame {
        kind: OuterKind::Handshake,
        payload: hello,
        ..frame
    };
    let visitor = Visitor {
        preamble,
        origin: Origin::Relayed(attested.source),
        vouching: attested.vouching,
        wake: Arc::clone(&gates.borrow().crowded),
    };
    let gate = (Gate::new(link, visitor, true), Instant::now() + GATE_TIMEOUT);
    through_gate(shared, uplink, id, gates, gate, (first, read));
}
