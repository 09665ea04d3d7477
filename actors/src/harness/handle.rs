//! One link to one executor: the harness's handle.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_messages::{
    EnvironmentInfo, ErrorCode, ProcessId, PublicKey, Reply as WireReply, Request, SpanId, TraceContext,
    TraceFlags, WireError,
};
use dwell_relay::StaticKeypair;
use dwell_relay::resume::Pings;
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use super::builder::{HarnessBuilder, Opening, Shelf};
use super::run::{Asker, Flight};
use super::workspace::Awaited;
use super::{Command, ConnectError, RESUME_FOR, Run, RunError, RunShared, RunStdin, StartUp, Target, dial};
use crate::dispatcher::DispatchGuard;
use crate::dispatcher::client::{Dispatcher, DispatcherMessage, Exec};
use crate::executor::FLIGHT;
use crate::fault_point::delay::{self, DelayPoint};
use crate::files::RemoteFiles;
use crate::http_client::RemoteHttp;
use crate::in_flight::{Call, CallKind};
use crate::mailbox::Mailbox;
use crate::metadata_store::worker::StoreHandle;
use crate::oversight::Overseen;
use crate::propagation;
use crate::relay_framer::{FramerControl, RelayFramer};
use crate::rpc_queue::caller::RpcQueue;
use crate::run_recorder::{self, RunRecorder};
use crate::runtime::{Place, Runtime};
use crate::telemetry::{Collector, Sampler, Tick, root, span_id, trace_id};
use crate::threads::{ThreadError, Threads};
use crate::trace_collector::{TraceCollector, TraceMessage};
use crate::turn_diff::{TurnDiff, TurnEnvironment};
use crate::workspace::Workspace;

/// How long `shutdown` waits for spans that executors still owe.
pub const SPANS_WAIT: Duration = Duration::from_secs(2);
/// The method of a command's start.
pub(crate) const START: &str = "Process/Start";

/// What a session hands out when its link is up.
pub(crate) struct Connected {
    pub(crate) dispatcher: Mailbox<Dispatcher>,
    pub(crate) rpc: Mailbox<RpcQueue>,
    pub(crate) framer: Mailbox<RelayFramer>,
    pub(crate) metadata: Mailbox<RunRecorder>,
    pub(crate) trace: Mailbox<TraceCollector>,
    pub(crate) workspace: Mailbox<Workspace>,
    pub(crate) environment: EnvironmentInfo,
    pub(crate) ping_us: Arc<AtomicU64>,
    /// The session's number; one that never began begins over as another.
    pub(crate) session: Arc<AtomicU64>,
    pub(crate) epoch: ByteBuf,
    /// Processes that were taken up with the session.
    pub(crate) adopted: Vec<(ProcessId, Arc<RunShared>)>,
}

/// One link to one executor. `Send` and `Sync`; usable from any runtime flavour and from plain threads.
///
/// Dropping it ends the link, and with it every run that was not waited for. `shutdown` does so in order.
pub struct Harness {
    pub(super) connected: Connected,
    /// Those of them that somebody has asked for already.
    pub(super) adopted: Mutex<HashSet<ProcessId>>,
    pub(super) collector: Collector,
    pub(super) store: StoreHandle,
    pub(super) sampler: Sampler,
    pub(super) overseen: Option<Overseen>,
    /// Beyond which an unsampled call's trace is kept.
    pub(super) flight: Option<Duration>,
    pub(super) start_up: StartUp,
    pub(super) executor: PublicKey,
    /// The last handle of an open file that was given out.
    pub(super) handles: Arc<AtomicU64>,
    /// The load that went with the first record, until somebody has it.
    pub(super) first: Mutex<Option<Awaited>>,
    pub(super) _place: Place,
    pub(super) _runtime: Runtime,
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("environment", &self.connected.environment)
            .finish_non_exhaustive()
    }
}

impl Harness {
    /// Sets up a harness.
    pub fn builder() -> HarnessBuilder {
        HarnessBuilder {
            authorization: Vec::new(),
            identity: None,
            traces: None,
            store: None,
            metadata: None,
            sampled: None,
            here: false,
            resume_for: RESUME_FOR,
            pings: Pings::default(),
            links: std::convert::identity,
            take_up: None,
            sinks: Vec::new(),
            oversight: None,
            flight: None,
            parent: None,
            workspace: None,
        }
    }

    /// One more session beside this one: its own link and its own processes, on the same thread, with the same store and
    /// the same traces.
    ///
    /// # Errors
    /// As `HarnessBuilder::connect`.
    pub(crate) async fn another(
        &self,
        identity: Arc<StaticKeypair>,
        target: Target,
    ) -> Result<Self, ConnectError> {
        let shelf = Shelf {
            collector: self.collector.clone(),
            runtime: self._runtime.clone(),
            store: self.store.clone(),
            sampler: self.sampler,
        };
        let begun = Tick::now();
        let unseen = (root(false), root(false));
        shelf
            .open(Opening {
                dialer: dial::Dialer {
                    identity,
                    target,
                    authorization: Vec::new(),
                    pings: Pings::default(),
                    links: std::convert::identity,
                },
                resume_for: RESUME_FOR,
                take_up: None,
                start_up: StartUp::new(self.collector.clone(), unseen, begun),
                begun,
                workspace: None,
                handles: Arc::default(),
            })
            .await
    }

    /// Where its spans go.
    pub(crate) fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Connects with a fresh key and no trace file. See `HarnessBuilder::connect`.
    ///
    /// # Errors
    /// As there.
    pub async fn connect(target: Target) -> Result<Self, ConnectError> {
        Self::builder().connect(target).await
    }

    /// Runs a command. Returns at once; what goes wrong is told by the run.
    pub fn exec(&self, command: Command) -> Run {
        let begun = Tick::now();
        let first = self.start_up.command(begun);
        let mut run = self.run(command, begun);
        run.first = first;
        run
    }

    /// Where a trace begins: below no span, and sampled as a call without a parent is.
    pub(crate) fn origin(&self) -> TraceContext {
        let (mut context, _) = ancestry(&self.sampler, None, None);
        context.span_id = SpanId::default();
        context
    }

    /// As `exec`; of a command that nobody asked for by itself.
    pub(super) fn run(&self, command: Command, begun: Tick) -> Run {
        let (context, parent) = ancestry(&self.sampler, command.parent.as_ref(), command.sampled);
        let call = Call::new(CallKind::Run, START, &context, begun);
        let dispatching = DispatchGuard::new(&self.collector, &context, begun, command.mode);
        let shared = Arc::new(RunShared::new(
            self.collector.board().call(call),
            Some(dispatching),
        ));
        let run = Run {
            shared: Arc::clone(&shared),
            input: RunStdin {
                shared: Arc::clone(&shared),
                asker: self.asker(context.clone()),
                written: Arc::default(),
                unsure: Arc::default(),
                closed: Arc::default(),
            },
            collector: self.collector.clone(),
            flight: self.flight_of(&context),
            context: context.clone(),
            parent,
            begun,
            first: None,
            grace: command.grace,
            output_limit: command.output_limit,
            ping_us: Arc::clone(&self.connected.ping_us),
            done: false,
            detached: false,
        };
        delay::reach(DelayPoint::HarnessSubmit);
        let exec = Exec {
            command,
            shared: Arc::clone(&shared),
            context: context.clone(),
            begun,
        };
        let envelope = dwell_messages::Envelope::new(context, DispatcherMessage::Exec(Box::new(exec)));
        if let Err(error) = self.connected.dispatcher.try_tell(envelope) {
            let error = match error {
                crate::mailbox::TellError::Full(_) => RunError::Refused(WireError::new(
                    ErrorCode::Busy,
                    "too many commands wait to be dispatched",
                )),
                crate::mailbox::TellError::Stopped(_) => RunError::NotStarted("the link is gone".into()),
            };
            shared.end(Err(error), Tick::now());
        }
        run
    }

    /// What is kept of a call that is not sampled.
    fn flight_of(&self, context: &TraceContext) -> Option<Box<Flight>> {
        let slower_than = self.flight.filter(|_| !context.is_sampled())?;
        let capabilities = &self.connected.environment.capabilities;
        let remembers = capabilities.iter().any(|capability| capability == FLIGHT);
        Some(Box::new(Flight {
            slower_than,
            executor: remembers.then(|| self.connected.trace.clone()),
        }))
    }

    /// The socket at which it answers `dwell inspect`, if it does.
    pub fn inspect_socket(&self) -> Option<&std::path::Path> {
        self.overseen.as_ref()?.socket()
    }

    /// Where its metrics are, if they are anywhere.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.overseen.as_ref()?.metrics_addr()
    }

    /// The diff of a turn that begins, whose searches are spans of this harness's below `parent`. Asks nothing.
    pub fn turn_diff(
        &self,
        environments: impl IntoIterator<Item = TurnEnvironment>,
        parent: TraceContext,
    ) -> TurnDiff {
        TurnDiff::new(environments).traced(self.collector.clone(), parent)
    }

    /// How it came to be, for whoever goes through a stage of that: the one that loads the workspace, above all.
    pub fn start_up(&self) -> &StartUp {
        &self.start_up
    }

    /// What the executor said of itself when the link came up: no round trip.
    pub fn environment(&self) -> &EnvironmentInfo {
        &self.connected.environment
    }

    /// What the executor is now: one round trip.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn environment_info(&self) -> Result<EnvironmentInfo, RunError> {
        let context = TraceContext {
            flags: TraceFlags::NONE,
            ..root(false)
        };
        match self.asker(context).ask(None, Request::EnvironmentInfo).await? {
            WireReply::EnvironmentInfo(info) => Ok(info),
            _ => Err(RunError::Lost("the executor answered with something else".into())),
        }
    }

    pub(super) fn asker(&self, context: TraceContext) -> Asker {
        Asker {
            dispatcher: self.connected.dispatcher.clone(),
            rpc: self.connected.rpc.clone(),
            context,
        }
    }

    /// The files of the executor's machine. No round trip. The client's key needs the scope `files`.
    pub fn files(&self) -> RemoteFiles {
        let asker = self.asker(TraceContext::default());
        RemoteFiles::new(asker, identity_of(&self.executor), Arc::clone(&self.handles))
    }

    /// The HTTP of the executor's machine. No round trip. The client's key needs the scope `spawn`, since a command could
    /// do the same.
    pub fn http(&self) -> RemoteHttp {
        RemoteHttp::new(self.asker(TraceContext::default()), Arc::clone(&self.handles))
    }

    /// The link's round trip as last measured, in microseconds.
    pub fn ping_us(&self) -> u64 {
        self.connected.ping_us.load(Ordering::Relaxed)
    }

    /// The place where threads are kept whose event logs are below `dir`, on this harness's store, threads and trace file.
    ///
    /// # Errors
    /// When the thread of the event logs cannot be started.
    pub fn threads(&self, dir: impl Into<PathBuf>) -> Result<Threads, ThreadError> {
        Threads::on(
            dir.into(),
            self.store.clone(),
            self.collector.clone(),
            self._runtime.clone(),
        )
    }

    /// Its threads, for what else runs beside it.
    #[cfg(feature = "responses")]
    pub(crate) fn runtime(&self) -> &Runtime {
        &self._runtime
    }

    /// Everything recorded so far is in the store when this returns.
    ///
    /// # Errors
    /// Why something is not.
    pub async fn flush(&self) -> Result<(), String> {
        run_recorder::barrier(&self.connected.metadata).await
    }

    /// As `flush_traces`, of what was made here alone: nobody else is waited for.
    pub(crate) async fn flush_own_traces(&self) {
        self.collector.flush().await;
    }

    /// Waits, at most `SPANS_WAIT`, for the spans that the executor still owes, and flushes them.
    pub async fn flush_traces(&self) {
        // The library's own timer: the caller's runtime may have none.
        let (done, settled) = oneshot::channel();
        let trace = self.connected.trace.clone();
        self._place.arbiter().spawn(async move {
            let answer = trace
                .ask_within(SPANS_WAIT, TraceContext::default(), TraceMessage::Settled)
                .await;
            done.send(answer.is_ok()).ok();
        });
        drop(settled.await);
        self.collector.flush().await;
    }

    /// Waits for owed spans, writes what is pending to the store and the trace file, and says goodbye to the executor.
    /// Runs still under way end as lost. Not cancellation safe: what was not flushed is lost.
    pub async fn shutdown(self) {
        self.flush_traces().await;
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "not every run was recorded");
        }
        drop(
            self.connected
                .framer
                .control(FramerControl::End("the harness is done".into())),
        );
        self.connected.framer.drain().await;
        self.collector.flush().await;
    }
}

/// What the files of an executor's machine are known by.
pub(super) fn identity_of(executor: &PublicKey) -> Arc<str> {
    format!("executor {executor}").into()
}

/// A call's own context, and the span it hangs below: the one that is named, else the one that the calling code is in. A
/// parent that is none begins a new trace.
pub(super) fn ancestry(
    sampler: &Sampler,
    parent: Option<&TraceContext>,
    sampled: Option<bool>,
) -> (TraceContext, Option<TraceContext>) {
    let parent = parent.cloned().or_else(propagation::current);
    let parent = parent.filter(TraceContext::is_valid);
    let mut context = match &parent {
        Some(parent) => parent.child(span_id()),
        None => TraceContext::new(trace_id(), span_id(), TraceFlags::NONE),
    };
    let sampled = match (&parent, sampled) {
        (None, Some(sampled)) => sampled,
        (parent, _) => sampler.decide(parent.as_ref(), context.trace_id),
    };
    context.flags = if sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NONE
    };
    (context, parent)
}

impl Drop for Harness {
    fn drop(&mut self) {
        let connected = &self.connected;
        drop(
            connected
                .framer
                .control(FramerControl::End("the harness is gone".into())),
        );
        // On an arbiter that goes on nothing else would end them.
        connected.dispatcher.begin_drain();
        connected.rpc.begin_drain();
        connected.trace.begin_drain();
        connected.metadata.begin_drain();
        connected.workspace.begin_drain();
    }
}
