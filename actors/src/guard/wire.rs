//! The words between the executor, the guard and its keepers.
//!
//! Both sides are the same program, started from the same file, so there is one version and no negotiation; a message of
//! another version, too short, too long or of an unknown kind is an error and ends the connection, never the process by
//! panic. Numbers are little-endian; a string is its length in four bytes and itself.

use super::codec::{BadMessage, Reader, Writer};
use crate::spawn::{
    Environment, Exit, ExitStatus, LimitName, Limits, SpawnErrorKind, SpawnRequest, TerminalSize, TreeReport,
};

/// The longest message that travels in a packet; a longer request lies in a memory file that is attached.
pub(crate) const PACKET_MAX_BYTES: usize = 32 * 1024;

/// The longest request of all: what the kernel takes as arguments and environment, and their lengths.
pub(crate) const REQUEST_MAX_BYTES: usize = 8 * 1024 * 1024;

/// How many processes of a tree a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The leader and all its descendants.
    Tree,
    /// The foreground group of its terminal.
    Foreground,
}

/// What the executor says to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToGuard {
    /// First, once: what the guard shall try.
    Hello { namespaces: bool, cgroups: bool },
    /// One more keeper, please.
    Keeper { detached: bool },
}

/// What the guard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromGuard {
    /// First, once. With a namespace the connection to its init is attached.
    Ready { is_namespaced: bool },
    /// The keeper's connection and its pidfd are attached.
    Keeper { has_cgroup: bool },
    /// There is none.
    NoKeeper { errno: i32 },
}

/// What the executor says to a keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToKeeper {
    /// Start this; three descriptors are attached.
    Start {
        generation: u32,
        request: Box<SpawnRequest>,
    },
    /// The request lies in the fourth attached descriptor.
    StartAttached { generation: u32 },
    /// Signal this tree.
    Signal {
        generation: u32,
        scope: Scope,
        signal: i32,
    },
    /// End this tree.
    Terminate { generation: u32, grace_ms: u32 },
}

/// What a keeper says. Every word is about the command of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromKeeper {
    /// It runs; its pidfd is attached.
    Started { generation: u32, pid: u32 },
    /// It does not.
    Failed { generation: u32, kind: SpawnErrorKind },
    /// The leader ended. `is_empty`: and nothing of its tree is left.
    Exited {
        generation: u32,
        exit: Exit,
        is_empty: bool,
    },
    /// Nothing of its tree is left.
    TreeEmpty { generation: u32 },
    /// What came of a termination.
    TreeEnded { generation: u32, report: TreeReport },
    /// The keeper itself was killed; the guard says so.
    Died,
}

impl ToGuard {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Hello { namespaces, cgroups } => Writer::new(1).flag(namespaces).flag(cgroups),
            Self::Keeper { detached } => Writer::new(2).flag(detached),
        }
        .bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let (kind, mut reader) = Reader::open(bytes)?;
        let message = match kind {
            1 => Self::Hello {
                namespaces: reader.flag()?,
                cgroups: reader.flag()?,
            },
            2 => Self::Keeper {
                detached: reader.flag()?,
            },
            _ => return Err(BadMessage("unknown kind")),
        };
        reader.end(message)
    }
}

impl FromGuard {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Ready { is_namespaced } => Writer::new(11).flag(is_namespaced),
            Self::Keeper { has_cgroup } => Writer::new(12).flag(has_cgroup),
            Self::NoKeeper { errno } => Writer::new(13).i32(errno),
        }
        .bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let (kind, mut reader) = Reader::open(bytes)?;
        let message = match kind {
            11 => Self::Ready {
                is_namespaced: reader.flag()?,
            },
            12 => Self::Keeper {
                has_cgroup: reader.flag()?,
            },
            13 => Self::NoKeeper { errno: reader.i32()? },
            _ => return Err(BadMessage("unknown kind")),
        };
        reader.end(message)
    }
}

impl ToKeeper {
    /// A start, and whether it is too long for a packet: then it goes into a file, behind a `StartAttached`.
    pub(crate) fn encode_start(generation: u32, request: &SpawnRequest) -> (Vec<u8>, bool) {
        let bytes = write_request(Writer::new(21).u32(generation), request).bytes;
        let is_long = bytes.len() > PACKET_MAX_BYTES;
        (bytes, is_long)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start { generation, request } => return Self::encode_start(*generation, request).0,
            Self::StartAttached { generation } => Writer::new(22).u32(*generation),
            Self::Signal {
                generation,
                scope,
                signal,
            } => Writer::new(23)
                .u32(*generation)
                .flag(*scope == Scope::Foreground)
                .i32(*signal),
            Self::Terminate { generation, grace_ms } => Writer::new(24).u32(*generation).u32(*grace_ms),
        }
        .bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let (kind, mut reader) = Reader::open(bytes)?;
        let generation = reader.u32()?;
        let message = match kind {
            21 => Self::Start {
                generation,
                request: Box::new(read_request(&mut reader)?),
            },
            22 => Self::StartAttached { generation },
            23 => Self::Signal {
                generation,
                scope: if reader.flag()? {
                    Scope::Foreground
                } else {
                    Scope::Tree
                },
                signal: reader.i32()?,
            },
            24 => Self::Terminate {
                generation,
                grace_ms: reader.u32()?,
            },
            _ => return Err(BadMessage("unknown kind")),
        };
        reader.end(message)
    }
}

impl FromKeeper {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Started { generation, pid } => Writer::new(31).u32(generation).u32(pid),
            Self::Failed { generation, kind } => write_kind(Writer::new(32).u32(generation), kind),
            Self::Exited {
                generation,
                exit,
                is_empty,
            } => write_exit(Writer::new(33).u32(generation).flag(is_empty), exit),
            Self::TreeEmpty { generation } => Writer::new(34).u32(generation),
            Self::TreeEnded { generation, report } => Writer::new(35)
                .u32(generation)
                .u32(report.ended_by_term)
                .u32(report.killed)
                .u32(report.unkillable),
            Self::Died => Writer::new(36),
        }
        .bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let (kind, mut reader) = Reader::open(bytes)?;
        if kind == 36 {
            return reader.end(Self::Died);
        }
        let generation = reader.u32()?;
        let message = match kind {
            31 => Self::Started {
                generation,
                pid: reader.u32()?,
            },
            32 => Self::Failed {
                generation,
                kind: read_kind(&mut reader)?,
            },
            33 => {
                let is_empty = reader.flag()?;
                Self::Exited {
                    generation,
                    exit: read_exit(&mut reader)?,
                    is_empty,
                }
            }
            34 => Self::TreeEmpty { generation },
            35 => Self::TreeEnded {
                generation,
                report: TreeReport {
                    ended_by_term: reader.u32()?,
                    killed: reader.u32()?,
                    unkillable: reader.u32()?,
                },
            },
            _ => return Err(BadMessage("unknown kind")),
        };
        reader.end(message)
    }
}

fn write_request(mut writer: Writer, request: &SpawnRequest) -> Writer {
    let size = request.terminal;
    writer = writer
        .count(request.argv.len())
        .count(request.env.pairs().len())
        .option(request.cwd.is_some().then_some(0))
        .flag(request.program.is_some())
        .flag(size.is_some())
        .flag(request.detach);
    let limits = &request.limits;
    for limit in [
        limits.open_files,
        limits.address_space_bytes,
        limits.processes,
        limits.core_bytes,
        limits.file_bytes,
        limits.cpu_seconds,
    ] {
        writer = writer.option(limit);
    }
    writer = writer
        .flag(limits.nice.is_some())
        .i32(i32::from(limits.nice.unwrap_or(0)));
    for argument in &request.argv {
        writer = writer.string(argument);
    }
    for (name, value) in request.env.pairs() {
        writer = writer.string(name).string(value);
    }
    writer
        .string(request.cwd.as_deref().unwrap_or_default())
        .string(request.program.as_deref().unwrap_or_default())
}

fn read_request(reader: &mut Reader<'_>) -> Result<SpawnRequest, BadMessage> {
    let (arguments, pairs) = (reader.count()?, reader.count()?);
    let has_cwd = reader.option()?.is_some();
    let has_program = reader.flag()?;
    let has_terminal = reader.flag()?;
    let detach = reader.flag()?;
    let mut limits = Limits {
        open_files: reader.option()?,
        address_space_bytes: reader.option()?,
        processes: reader.option()?,
        core_bytes: reader.option()?,
        file_bytes: reader.option()?,
        cpu_seconds: reader.option()?,
        nice: None,
    };
    let has_nice = reader.flag()?;
    let nice = i8::try_from(reader.i32()?).map_err(|_| BadMessage("priority out of range"))?;
    limits.nice = has_nice.then_some(nice);
    let mut argv = Vec::new();
    for _ in 0..arguments {
        argv.push(reader.string()?);
    }
    let mut env = Vec::new();
    for _ in 0..pairs {
        env.push((reader.string()?, reader.string()?));
    }
    let cwd = reader.string()?;
    let program = reader.string()?;
    Ok(SpawnRequest {
        argv,
        program: has_program.then_some(program),
        cwd: has_cwd.then_some(cwd),
        env: Environment::exact(env),
        // The size was given to the terminal by its maker; here it only says that there is one.
        terminal: has_terminal.then(TerminalSize::default),
        limits,
        detach,
        ..SpawnRequest::default()
    })
}

fn write_exit(writer: Writer, exit: Exit) -> Writer {
    let (is_signal, number) = match exit.status {
        ExitStatus::Code(code) => (false, code),
        ExitStatus::Signal(signal) => (true, signal),
    };
    writer
        .flag(is_signal)
        .i32(number)
        .flag(exit.core_dumped)
        .option(exit.user_us)
        .option(exit.system_us)
        .option(exit.max_rss_kib)
        .option(exit.oom_killed.map(u64::from))
}

fn read_exit(reader: &mut Reader<'_>) -> Result<Exit, BadMessage> {
    let (is_signal, number) = (reader.flag()?, reader.i32()?);
    Ok(Exit {
        status: if is_signal {
            ExitStatus::Signal(number)
        } else {
            ExitStatus::Code(number)
        },
        core_dumped: reader.flag()?,
        user_us: reader.option()?,
        system_us: reader.option()?,
        max_rss_kib: reader.option()?,
        oom_killed: reader.option()?.map(|number| number != 0),
    })
}

/// The limits by their place in a message.
const LIMIT_NAMES: [LimitName; 7] = [
    LimitName::OpenFiles,
    LimitName::AddressSpace,
    LimitName::Processes,
    LimitName::Core,
    LimitName::FileSize,
    LimitName::Cpu,
    LimitName::Nice,
];

fn write_kind(writer: Writer, kind: SpawnErrorKind) -> Writer {
    let (number, errno, detail) = match kind {
        SpawnErrorKind::ArgumentsTooLong => (1, 0, 0),
        SpawnErrorKind::CwdUnusable { errno } => (2, errno, 0),
        SpawnErrorKind::ProgramMissing { errno } => (3, errno, 0),
        SpawnErrorKind::InterpreterMissing { errno } => (4, errno, 0),
        SpawnErrorKind::NotExecutable { errno } => (5, errno, 0),
        SpawnErrorKind::PermissionDenied { errno } => (6, errno, 0),
        SpawnErrorKind::ProgramBusy => (7, 0, 0),
        SpawnErrorKind::ResourceExhausted { errno } => (8, errno, 0),
        SpawnErrorKind::LimitRefused { limit, errno } => {
            let place = LIMIT_NAMES.iter().position(|name| *name == limit);
            (9, errno, place.unwrap_or(0) as u32)
        }
        SpawnErrorKind::TerminalUnavailable { errno } => (10, errno, 0),
        SpawnErrorKind::Unwatchable { errno } => (11, errno, 0),
        SpawnErrorKind::Other { errno } => (12, errno, 0),
        SpawnErrorKind::DetachUnavailable => (13, 0, 0),
        SpawnErrorKind::GuardLost => (14, 0, 0),
        // The executor has refused these before anybody was asked.
        SpawnErrorKind::EmptyArgv
        | SpawnErrorKind::Unconfined { .. }
        | SpawnErrorKind::NulByte { .. }
        | SpawnErrorKind::ArgumentTooLong { .. }
        | SpawnErrorKind::InvalidEnvironmentName { .. } => (12, libc::EINVAL, 0),
    };
    writer.u32(number).i32(errno).u32(detail)
}

fn read_kind(reader: &mut Reader<'_>) -> Result<SpawnErrorKind, BadMessage> {
    let (number, errno, detail) = (reader.u32()?, reader.i32()?, reader.u32()?);
    Ok(match number {
        1 => SpawnErrorKind::ArgumentsTooLong,
        2 => SpawnErrorKind::CwdUnusable { errno },
        3 => SpawnErrorKind::ProgramMissing { errno },
        4 => SpawnErrorKind::InterpreterMissing { errno },
        5 => SpawnErrorKind::NotExecutable { errno },
        6 => SpawnErrorKind::PermissionDenied { errno },
        7 => SpawnErrorKind::ProgramBusy,
        8 => SpawnErrorKind::ResourceExhausted { errno },
        9 => SpawnErrorKind::LimitRefused {
            limit: *LIMIT_NAMES
                .get(detail as usize)
                .ok_or(BadMessage("unknown limit"))?,
            errno,
        },
        10 => SpawnErrorKind::TerminalUnavailable { errno },
        11 => SpawnErrorKind::Unwatchable { errno },
        12 => SpawnErrorKind::Other { errno },
        13 => SpawnErrorKind::DetachUnavailable,
        14 => SpawnErrorKind::GuardLost,
        _ => return Err(BadMessage("unknown error")),
    })
}
