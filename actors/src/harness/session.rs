//! A harness's session: its actors, on one arbiter, over one link.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dwell_messages::codec::DecodeError;
use dwell_messages::{
    Envelope, Event, Hello, Message as Wire, ProcessId, PublicKey, StreamId, TraceContext, Welcome,
};
use dwell_relay::{
    Dialer, Link, LinkEstablished, LinkOptions, OsRandomness, OuterDecoder, Preamble, Randomness as _,
    ResetCode, StaticKeypair,
};
use tokio::sync::oneshot;

use super::{ConnectError, Connected, Target};
use crate::dispatcher::DISPATCHER_MAILBOX_MAX;
use crate::dispatcher::client::{Dispatcher, DispatcherControl};
use crate::mailbox::{BulkResidence, HostOptions, Mailbox, Turn, start_here};
use crate::metadata_writer::{METADATA_MAILBOX_MAX, MetadataHandle, MetadataWriter};
use crate::relay_framer::{
    Arrival, ConnectionError, FramerMessage, INBOUND_FRAMES_MAX, LinkLost, OUTBOUND_MESSAGES_MAX,
    RelayFramer, ToSend, Uplink, Upper, ends_link, read_loop,
};
use crate::rpc_queue::RPC_MAILBOX_MAX;
use crate::rpc_queue::caller::{RpcControl, RpcMessage, RpcQueue};
use crate::telemetry::{ClockOffset, Collector, Tick, unix_now_ns};
use crate::terminal_delivery::receive::{ReceiveControl, ReceiveMessage, TerminalDelivery};
use crate::trace_collector::{TRACE_MAILBOX_MAX, TraceCollector, TraceControl, TraceMessage};

/// Why a link did not come up.
pub(crate) enum Failed {
    Dial(std::io::Error),
    Lost(LinkLost),
    Local(String),
}

impl From<LinkLost> for Failed {
    fn from(lost: LinkLost) -> Self {
        Self::Lost(lost)
    }
}

impl Failed {
    pub(crate) fn into_error(self, address: String, client: PublicKey) -> ConnectError {
        match self {
            Self::Dial(source)
                if matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput) =>
            {
                ConnectError::Transport { address, source }
            }
            Self::Dial(source) => ConnectError::Unreachable { address, source },
            Self::Local(why) => ConnectError::Local(why),
            Self::Lost(LinkLost::Reset {
                code: ResetCode::Unavailable,
                ..
            }) => ConnectError::Unavailable { address, client },
            Self::Lost(LinkLost::Refused(text)) => ConnectError::Refused(text),
            Self::Lost(lost) => ConnectError::Failed {
                address,
                why: lost.to_string(),
            },
        }
    }
}

/// What a session is made of.
pub(crate) struct Plan {
    pub(crate) identity: StaticKeypair,
    pub(crate) target: Target,
    pub(crate) collector: Collector,
    pub(crate) metadata: MetadataHandle,
    pub(crate) ready: oneshot::Sender<Result<Connected, Failed>>,
}

/// Dials and starts the session's actors, all on this arbiter.
pub(crate) async fn open(plan: Plan) {
    let Plan {
        identity,
        target,
        collector,
        metadata,
        ready,
    } = plan;
    let connection = match target.address.dial().await {
        Ok(connection) => connection,
        Err(error) => return drop(ready.send(Err(Failed::Dial(error)))),
    };
    let link = match dial(&identity, &target) {
        Ok(link) => Rc::new(RefCell::new(link)),
        Err(why) => return drop(ready.send(Err(Failed::Local(why)))),
    };
    let _entered = collector.enter();
    let uplink = Rc::new(Uplink::default());
    let relayed = target.relayed;
    let stream = link.borrow().stream();
    uplink.add(stream, Rc::clone(&link));
    let wiring: Rc<RefCell<Option<Wiring>>> = Rc::default();
    let mut upper = Some(HarnessUpper {
        wiring: Rc::clone(&wiring),
        ready: Some(ready),
        dialled: Tick::now(),
        ping_us: Arc::default(),
        routes: HashMap::new(),
    });
    let (framer_link, framer_uplink, framer_collector) = (link, Rc::clone(&uplink), collector.clone());
    let framer = start_here(HostOptions::new(OUTBOUND_MESSAGES_MAX), move || {
        let upper = upper
            .take()
            .map_or_else(|| Box::new(Nobody) as Box<dyn Upper>, |upper| Box::new(upper));
        RelayFramer::new(
            Rc::clone(&framer_link),
            Rc::clone(&framer_uplink),
            upper,
            framer_collector.clone(),
            None,
            relayed,
        )
    });
    *wiring.borrow_mut() = Some(start_actors(&framer, &metadata, &collector));
    let inbound = framer.port(INBOUND_FRAMES_MAX);
    let written = inbound.clone();
    let reader = actix_rt::spawn(async move {
        let over = read_loop(connection.reader, OuterDecoder::new(), |frame, read| {
            let inbound = inbound.clone();
            async move {
                let message = FramerMessage::Inbound(frame, read);
                inbound
                    .tell(Envelope::new(TraceContext::default(), message))
                    .await
                    .is_ok()
            }
        })
        .await;
        tell_lost(&inbound, &over).await;
    });
    let writing = Rc::clone(&uplink);
    actix_rt::spawn(async move {
        let over = writing.write_loop(connection.writer).await;
        tell_lost(&written, &over).await;
    });
    actix_rt::spawn(async move {
        framer.stopped().await;
        uplink.close();
        reader.abort();
    });
}

/// In the frames' own room, so that a reset or refusal that came right before the end is heard first.
async fn tell_lost(inbound: &Mailbox<RelayFramer>, over: &ConnectionError) {
    let message = FramerMessage::Over(LinkLost::Connection(over.to_string()));
    drop(
        inbound
            .tell(Envelope::new(TraceContext::default(), message))
            .await,
    );
}

fn dial(identity: &StaticKeypair, target: &Target) -> Result<Link<crate::relay_framer::Sent>, String> {
    let mut rng = OsRandomness::new();
    let mut stream = StreamId::default();
    rng.fill(&mut stream.0).map_err(|error| error.to_string())?;
    let preamble = Preamble::new(Dialer::Harness, target.executor, stream, &target.token)
        .map_err(|error| error.to_string())?;
    let hello = Hello {
        timestamp_ms: unix_now_ns() / 1_000_000,
        authorization: serde_bytes::ByteBuf::new(),
    };
    let hello = hello.encode().map_err(|error| error.to_string())?;
    let options = if target.relayed {
        LinkOptions::relayed()
    } else {
        LinkOptions::direct()
    };
    Link::dial(
        Instant::now(),
        identity,
        &preamble,
        &target.token,
        &hello,
        options,
        &mut rng,
    )
    .map_err(|error| crate::relay_framer::chain(&error))
}

#[derive(Clone)]
struct Wiring {
    rpc: Mailbox<RpcQueue>,
    dispatcher: Mailbox<Dispatcher>,
    metadata: Mailbox<MetadataWriter>,
    trace: Mailbox<TraceCollector>,
    framer: Mailbox<RelayFramer>,
}

fn start_actors(framer: &Mailbox<RelayFramer>, metadata: &MetadataHandle, collector: &Collector) -> Wiring {
    let (f, c) = (framer.clone(), collector.clone());
    let rpc = start_here(
        HostOptions::new(RPC_MAILBOX_MAX).escalating(ends_link(framer)),
        move || RpcQueue::new(f.clone(), c.clone()),
    );
    let worker = metadata.clone();
    let metadata = start_here(HostOptions::new(METADATA_MAILBOX_MAX).restarting(), move || {
        MetadataWriter::new(&worker)
    });
    let (f, c) = (framer.clone(), collector.clone());
    let trace = start_here(
        HostOptions::new(TRACE_MAILBOX_MAX).escalating(ends_link(framer)),
        move || TraceCollector::new(c.clone(), f.clone()),
    );
    let (r, f, m, c) = (rpc.clone(), framer.clone(), metadata.clone(), collector.clone());
    let options = HostOptions::new(DISPATCHER_MAILBOX_MAX).escalating(ends_link(framer));
    let dispatcher = start_here(options, move || {
        Dispatcher::new(r.clone(), f.clone(), m.clone(), c.clone())
    });
    Wiring {
        rpc,
        dispatcher,
        metadata,
        trace,
        framer: framer.clone(),
    }
}

/// The harness above a framer.
struct HarnessUpper {
    wiring: Rc<RefCell<Option<Wiring>>>,
    ready: Option<oneshot::Sender<Result<Connected, Failed>>>,
    dialled: Tick,
    ping_us: Arc<AtomicU64>,
    routes: HashMap<ProcessId, Route>,
}

struct Route {
    delivery: Mailbox<TerminalDelivery>,
    bulk: Arc<BulkResidence>,
}

impl HarnessUpper {
    /// Tells everybody, once.
    fn end(&mut self, why: &str) {
        if let Some(wiring) = self.wiring.borrow_mut().take() {
            drop(wiring.rpc.control(RpcControl::Lost(why.to_owned())));
            drop(wiring.dispatcher.control(DispatcherControl::Lost(why.to_owned())));
            drop(wiring.trace.control(TraceControl::Forget(None)));
        }
        // The dispatcher tells them too, unless it is the one that failed.
        for (_, route) in self.routes.drain() {
            drop(route.delivery.control(ReceiveControl::Lost(why.to_owned())));
        }
    }

    fn wiring(&self) -> Option<Wiring> {
        self.wiring.borrow().clone()
    }

    fn event(
        &mut self,
        process: ProcessId,
        event: Event,
        arrival: Arrival,
        context: TraceContext,
        turn: &mut Turn<'_, RelayFramer>,
    ) {
        // A process that nobody waits for any more may still speak until it hears that it is to end.
        let Some(route) = self.routes.get(&process) else {
            return;
        };
        if context.is_sampled()
            && matches!(event, Event::Closed(_))
            && let Some(wiring) = self.wiring()
        {
            turn.tell(&wiring.trace, context.clone(), TraceMessage::Await(process));
        }
        let bulk = matches!(event, Event::Output(_)).then(|| Arc::clone(&route.bulk));
        let delivery = route.delivery.clone();
        turn.tell(&delivery, context, ReceiveMessage::Event { event, arrival, bulk });
    }
}

impl Upper for HarnessUpper {
    fn authorize(&mut self, _: PublicKey, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn established(&mut self, peer: LinkEstablished, turn: &mut Turn<'_, RelayFramer>) {
        let now = Tick::now();
        let round_trip = now.micros_since(self.dialled);
        self.ping_us.store(round_trip, Ordering::Relaxed);
        let (Some(ready), Some(wiring)) = (self.ready.take(), self.wiring()) else {
            return;
        };
        let welcome = match Welcome::decode(&peer.welcome) {
            Ok(welcome) => welcome,
            Err(error) => {
                drop(ready.send(Err(Failed::Local(format!(
                    "the executor's welcome is not understood: {error}"
                )))));
                return;
            }
        };
        let middle = unix_now_ns().saturating_sub(round_trip * 500);
        let offset_us = (i128::from(welcome.unix_ns) - i128::from(middle)) / 1_000;
        let clock = ClockOffset {
            offset_us: i64::try_from(offset_us).unwrap_or(i64::MAX),
            error_us: round_trip / 2,
        };
        drop(wiring.trace.control(TraceControl::Clock(clock)));
        drop(wiring.dispatcher.control(DispatcherControl::Ready));
        let ping = ToSend::plain(Wire::Ping(now.to_raw()));
        turn.tell(&wiring.framer, TraceContext::default(), FramerMessage::Send(ping));
        let connected = Connected {
            dispatcher: wiring.dispatcher,
            rpc: wiring.rpc,
            framer: wiring.framer,
            metadata: wiring.metadata,
            trace: wiring.trace,
            environment: welcome.environment,
            ping_us: Arc::clone(&self.ping_us),
        };
        crate::telemetry::count_crossing();
        drop(ready.send(Ok(connected)));
    }

    fn message(&mut self, arrival: Arrival, envelope: Envelope<Wire>, turn: &mut Turn<'_, RelayFramer>) {
        let context = envelope.context;
        let Some(wiring) = self.wiring() else { return };
        match envelope.body {
            Wire::Response { id, result, timings } => {
                let answer = Box::new((result, timings));
                turn.tell(&wiring.rpc, context, RpcMessage::Response { id, answer, arrival });
            }
            Wire::Event { process, event } => self.event(process, event, arrival, context, turn),
            Wire::TraceRecords { process, records } => {
                let message = TraceMessage::Received(process, Box::new(records));
                turn.tell(&wiring.trace, context, message);
            }
            Wire::Pong(raw) => {
                let sent = Tick::from_raw(raw);
                self.ping_us
                    .store(Tick::now().micros_since(sent).max(1), Ordering::Relaxed);
            }
            Wire::Request { .. }
            | Wire::Cancel(_)
            | Wire::Ack(_)
            | Wire::Credit { .. }
            | Wire::Ping(_)
            | Wire::Goodbye(_) => {
                tracing::debug!("a message that no executor sends was passed over");
            }
        }
    }

    fn unanswerable(&mut self, error: &DecodeError, _: &mut Turn<'_, RelayFramer>) {
        tracing::warn!(%error, "the executor asked something of its harness");
    }

    fn route(&mut self, process: ProcessId, to: Mailbox<TerminalDelivery>) {
        self.routes.insert(
            process,
            Route {
                delivery: to,
                bulk: Arc::default(),
            },
        );
    }

    fn unroute(&mut self, process: ProcessId) {
        self.routes.remove(&process);
    }

    fn owed(&mut self, process: ProcessId) {
        if let Some(wiring) = self.wiring() {
            drop(wiring.trace.control(TraceControl::Await(process)));
        }
    }

    fn lost(&mut self, why: LinkLost, _: &mut Turn<'_, RelayFramer>) {
        let text = why.to_string();
        if let Some(ready) = self.ready.take() {
            crate::telemetry::count_crossing();
            drop(ready.send(Err(why.into())));
        }
        self.end(&text);
    }
}

impl Drop for HarnessUpper {
    fn drop(&mut self) {
        // Without this the framer's own panic would leave everybody waiting.
        self.end("the link's own actor failed");
    }
}

/// Above a framer whose session is gone.
struct Nobody;

impl Upper for Nobody {
    fn authorize(&mut self, _: PublicKey, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn established(&mut self, _: LinkEstablished, _: &mut Turn<'_, RelayFramer>) {}
    fn message(&mut self, _: Arrival, _: Envelope<Wire>, _: &mut Turn<'_, RelayFramer>) {}
    fn unanswerable(&mut self, _: &DecodeError, _: &mut Turn<'_, RelayFramer>) {}
    fn lost(&mut self, _: LinkLost, _: &mut Turn<'_, RelayFramer>) {}
}
