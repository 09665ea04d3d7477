//! `Workspace`: a harness's workspaces.
//!
//! Owns the loads under way, and nothing of those that are over: each looks at everything again, and the root that one part
//! of a load finds for another is inside of it. Never touches a file: an executor of ours is asked once, any other
//! environment through its file system, by a task. Full: whoever asks waits. Stop: who waits for a load is told. Who sends:
//! the `Harness`, and the session for the load that goes with its first record. Supervised by the session, which ends with
//! it.

use std::collections::HashMap;
use std::sync::Arc;

use dwell_messages::workspace::{WorkspaceLoad, WorkspaceReply};
use dwell_messages::{Envelope, ErrorCode, Reply as WireReply, Request, TraceContext, WireError};

use super::loaded::WorkspaceLoaded;
use super::loader::Loader;
use super::plan::Plan;
use super::rounds::Rounds;
use super::service::draw;
use crate::files::FileSystem;
use crate::harness::{Asker, RunError, StageGuard};
use crate::mailbox::{Actor, Mailbox, Message, Reply, TimerGuard, Turn};
use crate::telemetry::{Collector, Stage, Tick, semconv};

/// Loads that may lie in its mailbox.
pub(crate) const WORKSPACE_MAILBOX_MAX: usize = 64;
/// Loads of one harness under way at a time; more are refused.
pub const LOADS_MAX: usize = 16;
/// What an executor says of itself that answers a whole load at once.
pub const WORKSPACE: &str = "workspace";

/// Whoever waits for a load.
pub(crate) type LoadReply = Reply<Result<WorkspaceLoaded, RunError>>;

/// A workspace to be loaded.
pub(crate) struct Load {
    pub(crate) request: WorkspaceLoad,
    pub(crate) through: Through,
    /// The span that it hangs below; without one it is a root.
    pub(crate) parent: Option<TraceContext>,
    /// When it was asked for.
    pub(crate) begun: Tick,
    /// The stage of a harness's start-up that it is.
    pub(crate) stage: Option<StageGuard>,
    pub(crate) reply: LoadReply,
}

/// How its files are reached.
pub(crate) enum Through {
    /// The executor loads it.
    Executor,
    /// Through these files; the directory is what the environment calls its own.
    Files(Arc<dyn FileSystem>, Vec<u8>),
}

/// What it is told. A load's context is its own span's.
pub(crate) enum WorkspaceMessage {
    /// Load a workspace.
    Load(Box<Load>),
    /// What came of a load.
    Loaded(u64, Box<Outcome>),
}

/// What came of a load, and after how many round trips.
type Outcome = Result<(WorkspaceReply, u32), RunError>;

impl Message for WorkspaceMessage {
    const NAMES: &'static [&'static str] = &["Load", "Loaded"];

    fn index(&self) -> usize {
        match self {
            Self::Load(_) => 0,
            Self::Loaded(..) => 1,
        }
    }
}

/// A load under way.
struct UnderWay {
    parent: Option<TraceContext>,
    begun: Tick,
    stage: Option<StageGuard>,
    reply: LoadReply,
    _task: TimerGuard,
}

/// See the module.
pub(crate) struct Workspace {
    asker: Asker,
    collector: Collector,
    loads: HashMap<u64, UnderWay>,
    begun: u64,
    done: Option<Mailbox<Workspace>>,
}

impl Workspace {
    pub(crate) fn new(asker: Asker, collector: Collector) -> Self {
        Self {
            asker,
            collector,
            loads: HashMap::new(),
            begun: 0,
            done: None,
        }
    }

    fn load(&mut self, context: TraceContext, load: Load, turn: &mut Turn<'_, Self>) {
        let Load {
            request,
            through,
            parent,
            begun,
            stage,
            reply,
        } = load;
        if self.loads.len() >= LOADS_MAX {
            let error = WireError::new(ErrorCode::Busy, "too many workspaces are being loaded");
            let limit = LOADS_MAX as u64;
            return reply.send(Err(RunError::Refused(error.with_limit(limit, limit + 1))));
        }
        self.begun += 1;
        let number = self.begun;
        // One answer a load, so that there is always room.
        let done = self
            .done
            .get_or_insert_with(|| turn.mailbox().port(LOADS_MAX))
            .clone();
        let (asker, collector) = (self.asker.under(context.clone()), self.collector.clone());
        let task = turn.spawn(async move {
            let outcome = match through {
                Through::Executor => batch(&asker, request).await,
                Through::Files(files, cwd) => walk(&*files, &cwd, &request, (&collector, &context)).await,
            };
            let message = WorkspaceMessage::Loaded(number, Box::new(outcome));
            drop(done.tell(Envelope::new(context, message)).await);
        });
        let under_way = UnderWay {
            parent,
            begun,
            stage,
            reply,
            _task: task,
        };
        self.loads.insert(number, under_way);
    }

    fn loaded(&mut self, context: &TraceContext, number: u64, outcome: Outcome) {
        let Some(mut load) = self.loads.remove(&number) else {
            return;
        };
        let now = Tick::now();
        self.record(context, &load, now, &outcome);
        if let Some(stage) = load.stage.take() {
            match &outcome {
                Ok(_) => stage.finish_at(now),
                Err(error) => stage.fail(error.error_type()),
            }
        }
        let loaded = outcome.map(|(reply, round_trips)| {
            WorkspaceLoaded::new(reply, now.micros_since(load.begun), round_trips)
        });
        load.reply.send(loaded);
    }

    /// The load's own span.
    fn record(&self, context: &TraceContext, load: &UnderWay, now: Tick, outcome: &Outcome) {
        if !self.collector.wants(context) {
            return;
        }
        let mut parent = load.parent.clone().unwrap_or_else(|| context.clone());
        // The load's own decision, where a sampler went past its parent's.
        parent.flags.0 |= context.flags.0;
        let name = semconv::span::WORKSPACE_LOAD;
        let mut stage = Stage::with_id(&parent, context.span_id, name, load.begun, now);
        if load.parent.is_none() {
            stage = stage.root();
        }
        self.collector.stage(match outcome {
            Ok((reply, round_trips)) => stage
                .number(semconv::WORKSPACE_ROUND_TRIPS, *round_trips)
                .number(semconv::WORKSPACE_PROBES, reply.counts.probed)
                .text(semconv::WORKSPACE_HINT, hint(reply))
                .number(semconv::WORKSPACE_AGENTS, reply.agents.len())
                .number(semconv::WORKSPACE_SKILLS, reply.skills.len())
                .number(semconv::WORKSPACE_WARNINGS, reply.warnings.len()),
            Err(error) => stage.failed(Some(error.error_type())),
        });
    }
}

fn hint(reply: &WorkspaceReply) -> &'static str {
    match (reply.counts.hint_used, reply.counts.hint_rejected) {
        (0, 0) => "none",
        (0, _) => "rejected",
        _ => "used",
    }
}

async fn batch(asker: &Asker, request: WorkspaceLoad) -> Outcome {
    match asker.ask(None, Request::WorkspaceLoad(Box::new(request))).await? {
        WireReply::Workspace(reply) => Ok((*reply, 1)),
        _ => Err(RunError::Lost(
            "the executor answered a load with something else".into(),
        )),
    }
}

async fn walk(
    files: &dyn FileSystem,
    cwd: &[u8],
    request: &WorkspaceLoad,
    (collector, context): (&Collector, &TraceContext),
) -> Outcome {
    // Whose home it is, an environment of only files does not say.
    let plan = Plan::new(request, cwd, None).map_err(RunError::Refused)?;
    let rounds = Rounds::new(files);
    let (reply, spans) = Loader::remote(&rounds, &plan).load().await;
    draw(collector, context, &spans);
    Ok((reply, rounds.count()))
}

impl Actor for Workspace {
    const NAME: &'static str = "Workspace";
    type Message = WorkspaceMessage;
    type Control = std::convert::Infallible;

    fn receive(&mut self, envelope: Envelope<WorkspaceMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            WorkspaceMessage::Load(load) => self.load(envelope.context, *load, turn),
            WorkspaceMessage::Loaded(number, outcome) => self.loaded(&envelope.context, number, *outcome),
        }
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        for (_, load) in self.loads.drain() {
            let why = "the harness was shut down while a workspace was loaded";
            load.reply.send(Err(RunError::Lost(why.into())));
        }
    }
}
