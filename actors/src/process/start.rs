//! From what a client asks to what is started.

use dwell_messages::process::{
    Containment as WireContainment, ExecutorDeath as WireDeath, Inherit as WireInherit, Limits as WireLimits,
    Start, TerminalSize as WireSize, TreeHold as WireHold,
};
use dwell_messages::{ErrorCode, SpanId, TraceContext};
use serde_bytes::ByteBuf;

use crate::guard::{Containment, ExecutorDeath, TreeHold};
use crate::propagation::{self, Propagators};
use crate::spawn::{
    Environment, EnvironmentPolicy, Inherit, Limits, SpawnErrorKind, SpawnRequest, StdinMode, TerminalSize,
    looks_secret,
};

/// The process's parent: the call, as the start names it, else the request.
pub(super) fn launch_context(context: &TraceContext, start: &Start) -> TraceContext {
    match start
        .launch
        .as_ref()
        .and_then(|launch| <[u8; 8]>::try_from(launch.as_slice()).ok())
    {
        Some(launch) => context.child(SpanId(launch)).received(),
        None => context.clone(),
    }
}

/// What to start, and the names of variables that were withheld because they look like secrets.
pub(super) fn request(start: Start, context: &TraceContext) -> (SpawnRequest, Vec<String>) {
    let resolved = Environment::resolve(
        &policy(&start, context, Propagators::of_this_process()),
        std::env::vars_os(),
    );
    let text = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
    let secret = |name: &&Vec<u8>| looks_secret(name);
    let withheld = resolved.withheld.iter().filter(secret).map(text).collect();
    let request = SpawnRequest {
        argv: start.argv.into_iter().map(ByteBuf::into_vec).collect(),
        program: start.program.map(ByteBuf::into_vec),
        cwd: start.cwd.map(ByteBuf::into_vec),
        env: resolved.environment,
        stdin: if start.stdin {
            StdinMode::Piped
        } else {
            StdinMode::Null
        },
        terminal: start.pty.map(|pty| size(pty.size)),
        limits: limits(&start.limits),
        confinement: start.confinement,
        detach: start.outlive,
    };
    (request, withheld)
}

/// What the child finds in its environment, with its own ancestry in `TRACEPARENT` or whatever this executor speaks, and
/// its terminal in `TERM`.
fn policy(start: &Start, context: &TraceContext, propagators: &Propagators) -> EnvironmentPolicy {
    let own = |names: &[ByteBuf]| names.iter().map(|name| name.to_vec()).collect();
    let mut set = Vec::with_capacity(start.env.set.len() + 3);
    // First: what the request sets counts.
    if let Some(pty) = start.pty.as_ref().filter(|pty| !pty.term.is_empty()) {
        set.push((b"TERM".to_vec(), pty.term.clone().into_bytes()));
    }
    set.extend(
        start
            .env
            .set
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec())),
    );
    set.extend(propagation::for_child(propagators, context));
    let mut unset: Vec<_> = own(&start.env.unset);
    unset.extend(propagation::CARRIED.map(|name| name.as_bytes().to_vec()));
    EnvironmentPolicy {
        inherit: match start.env.inherit {
            WireInherit::Core => Inherit::Core,
            WireInherit::All => Inherit::All,
            WireInherit::None => Inherit::None,
        },
        include: own(&start.env.include),
        exclude: own(&start.env.exclude),
        secrets: start.env.secrets,
        set,
        unset,
    }
}

pub(super) fn size(size: WireSize) -> TerminalSize {
    TerminalSize {
        rows: size.rows,
        columns: size.columns,
    }
}

fn limits(limits: &WireLimits) -> Limits {
    Limits {
        open_files: limits.open_files,
        address_space_bytes: limits.address_space_bytes,
        processes: limits.processes,
        core_bytes: limits.core_bytes,
        file_bytes: limits.file_bytes,
        cpu_seconds: limits.cpu_seconds,
        nice: limits.nice,
    }
}

pub(super) fn containment(containment: Containment) -> WireContainment {
    WireContainment {
        executor_death: match containment.executor_death {
            ExecutorDeath::PidNamespace => WireDeath::PidNamespace,
            ExecutorDeath::GuardHunt => WireDeath::GuardHunt,
            ExecutorDeath::Outlives => WireDeath::Outlives,
            ExecutorDeath::Nothing => WireDeath::Nothing,
        },
        tree: match containment.tree {
            TreeHold::Cgroup => WireHold::Cgroup,
            TreeHold::Subreaper => WireHold::Subreaper,
            TreeHold::ProcessGroup => WireHold::ProcessGroup,
        },
    }
}

pub(super) fn error_code(kind: &SpawnErrorKind) -> ErrorCode {
    match kind {
        SpawnErrorKind::EmptyArgv => ErrorCode::EmptyArgv,
        SpawnErrorKind::NulByte { .. }
        | SpawnErrorKind::ArgumentTooLong { .. }
        | SpawnErrorKind::InvalidEnvironmentName { .. }
        | SpawnErrorKind::LimitRefused { .. }
        | SpawnErrorKind::Unconfined { .. }
        | SpawnErrorKind::DetachUnavailable => ErrorCode::BadRequest,
        SpawnErrorKind::CwdUnusable { .. } => ErrorCode::BadCwd,
        SpawnErrorKind::ResourceExhausted { .. }
        | SpawnErrorKind::TerminalUnavailable { .. }
        | SpawnErrorKind::ProgramBusy => ErrorCode::ResourceExhausted,
        SpawnErrorKind::ArgumentsTooLong
        | SpawnErrorKind::ProgramMissing { .. }
        | SpawnErrorKind::InterpreterMissing { .. }
        | SpawnErrorKind::NotExecutable { .. }
        | SpawnErrorKind::PermissionDenied { .. }
        | SpawnErrorKind::GuardLost
        | SpawnErrorKind::Unwatchable { .. }
        | SpawnErrorKind::Other { .. } => ErrorCode::SpawnFailed,
    }
}
