//! Where clients come from: a registration with a relay, whose one connection carries many streams, and listeners.
//!
//! Every session of a connection lives on the connection's arbiter: a record never crosses threads on its way between
//! socket and session. Direct connections are spread over the arbiters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;
use dwell_messages::{Envelope, StreamId, TraceContext};
use dwell_relay::driver::{Connection, Listen};
use dwell_relay::handshake::split_open;
use dwell_relay::registration::{AwaitingRegistered, Registrant, RegistrationError};
use dwell_relay::{
    Dialer, LinkError, OsRandomness, OuterDecoder, OuterFrame, Preamble, PreambleDecoder, Refusal,
    RefusalReason, Reset, ResetCode, encode_outer, inquiry,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::gate::{Gate, Passed, Step};
use super::session::answer;
use super::{Registration, Shared};
use crate::address::Address;
use crate::mailbox::Mailbox;
use crate::relay_framer::{
    ConnectionError, FramerControl, FramerMessage, INBOUND_FRAMES_MAX, LINKS_MAX, LinkLost, RelayFramer,
    Transport, Uplink, UplinkId, read_loop,
};
use crate::runtime::Runtime;
use crate::telemetry::Tick;

/// How long a dialler, or a relay, may take for what comes before frames.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to register: first this, then doubling.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest between attempts to register.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a listener that fails is tried again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a client may take from its preamble to its first message.
const GATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often gates of a relay's connection are looked at that take too long.
const GATE_SWEEP: Duration = Duration::from_secs(1);

/// Takes connections until told to stop.
pub(super) async fn accept(
    mut listener: Box<dyn Listen>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    runtime: Runtime,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(connection) => {
                let place = runtime.place();
                let shared = Arc::clone(&shared);
                let arbiter = place.arbiter().clone();
                arbiter.spawn_fn(move || {
                    actix_rt::spawn(async move {
                        serve_direct(connection, shared).await;
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
async fn serve_direct(connection: Connection, shared: Arc<Shared>) {
    let Connection {
        mut reader,
        mut writer,
        peer,
    } = connection;
    let opening = async {
        let mut decoder = PreambleDecoder::new();
        loop {
            match decoder.decode() {
                Ok(Some((preamble, _token))) => return Some((preamble, decoder.into_frames())),
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
    let Ok(Some((preamble, decoder))) = tokio::time::timeout(OPENING_TIMEOUT, opening).await else {
        return;
    };
    if preamble.dialer == Dialer::Inquirer {
        drop(writer.write_all(&inquiry::answer(&preamble, shared.public)).await);
        return;
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
        return;
    }
    let link = match answer(&shared, &preamble, false) {
        Ok(link) => link,
        Err(error) => {
            if let LinkError::Refused(refusal) = &error {
                say_refused(&mut clear, stream, refusal);
                drop(writer.write_all(&clear).await);
            }
            return;
        }
    };
    let connection = Connection { reader, writer, peer };
    let passing = pass(Gate::new(link, false), connection, decoder, &shared);
    let Ok(Some((passed, transport))) = tokio::time::timeout(GATE_TIMEOUT, passing).await else {
        return;
    };
    if let Some(framer) = passed.enter(&shared, transport) {
        // The place on this arbiter is taken for as long as its session is.
        framer.stopped().await;
    }
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
                Step::Waiting(waiting) => gate = *waiting,
                Step::Passed(passed) => {
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
    let mut pause = RETRY_FIRST;
    loop {
        let attempt = async {
            let (connection, decoder) = register_once(&address, &shared).await?;
            progress.send_replace(Registration::Registered);
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
                pause = RETRY_FIRST;
                tracing::warn!(relay = %address, %over, "the connection to the relay is lost: registering again");
                progress.send_replace(Registration::Pending);
            }
            Err(Attempt::Final(why)) => {
                tracing::error!(relay = %address, %why, "the relay does not register this executor");
                progress.send_replace(Registration::Failed(why));
                return;
            }
            Err(Attempt::Retry(why)) => {
                tracing::warn!(relay = %address, %why, "registering failed: trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Why one attempt failed.
enum Attempt {
    /// Trying again may help.
    Retry(String),
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
            .map_err(|error| final_or_retry(&error))?;
        connection
            .writer
            .write_all(&proof)
            .await
            .map_err(|error| retry(&error))?;
        let waiting: AwaitingRegistered = waiting;
        let frame = next_frame(&mut connection, &mut decoder).await?;
        waiting
            .handle_frame(&frame)
            .map_err(|error| final_or_retry(&error))?;
        Ok(decoder)
    };
    let decoder = tokio::time::timeout(OPENING_TIMEOUT, handshake)
        .await
        .map_err(|_| Attempt::Retry("the relay did not answer in time".into()))??;
    Ok((connection, decoder))
}

fn final_or_retry(error: &RegistrationError) -> Attempt {
    let text = chain(error);
    match error {
        RegistrationError::Refused(_) => Attempt::Final(text),
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

/// Streams of one registration that are not sessions yet.
#[derive(Default)]
struct Gates {
    waiting: HashMap<StreamId, (Gate, Instant)>,
}

/// Serves the streams of one registration until its connection ends.
async fn serve_relay(connection: Connection, decoder: OuterDecoder, shared: &Arc<Shared>) -> ConnectionError {
    let uplink = Rc::new(Uplink::default());
    let id = uplink.share();
    let gates: RefCell<Gates> = RefCell::default();
    let writer = actix_rt::spawn(Rc::clone(&uplink).write_loop(connection.writer));
    let reading = read_loop(connection.reader, decoder, |frame, read| {
        relay_frame(shared, &uplink, id, &gates, frame, read);
        std::future::ready(true)
    });
    let sweeping = async {
        loop {
            tokio::time::sleep(GATE_SWEEP).await;
            gates.borrow_mut().sweep(&uplink);
        }
    };
    let over = tokio::select! {
        over = reading => over,
        written = writer => written.unwrap_or(ConnectionError::Closed),
        () = sweeping => ConnectionError::Closed,
    };
    for (stream, framer) in uplink.take_routes() {
        let lost = LinkLost::Connection(over.to_string());
        tell_lost(&framer, stream, lost).await;
    }
    uplink.close();
    over
}

impl Gates {
    /// Ends what takes too long.
    fn sweep(&mut self, uplink: &Uplink) {
        let now = Instant::now();
        let late: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, (_, deadline))| *deadline <= now)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in late {
            if let Some((gate, _)) = self.waiting.remove(&stream) {
                uplink.say(|out| out.extend_from_slice(&gate.timeout()));
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
    let Ok((preamble, hello)) = split_open(frame.payload) else {
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
    let gate = (Gate::new(link, true), Instant::now() + GATE_TIMEOUT);
    through_gate(shared, uplink, id, gates, gate, (first, read));
}
