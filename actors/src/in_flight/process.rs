//! A process that runs for a client, and what its output waits for.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dwell_messages::{OutputStream, ProcessId, TraceContext, TraceId};

use crate::spawn::procfs;
use crate::telemetry::Tick;

/// How far a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum ProcessStage {
    /// It is being started.
    Starting = 0,
    /// It runs.
    Running,
    /// It has exited; a pipe of it is still open.
    Draining,
}

impl ProcessStage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }
}

/// What one of its outputs waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Waits {
    /// For the process itself.
    Process = 0,
    /// For its consumer to read: the credit that it gave is used up.
    Consumer,
    /// For anybody to take it: nobody is connected, or nobody asked for it, and there is no spool left.
    Anybody,
    /// For room at the framer: what was read is not written.
    Link,
}

impl Waits {
    /// One word, of a fixed set.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Consumer => "consumer",
            Self::Anybody => "anybody",
            Self::Link => "link",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) process: ProcessId,
    /// The program's name without its directory.
    pub(crate) program: String,
    pub(crate) trace: TraceId,
    pub(crate) began: Tick,
    pid: AtomicU32,
    pidfd: OnceLock<Arc<OwnedFd>>,
    stage: AtomicU8,
    /// Of each stream: what it waits for, since when, and how many bytes came.
    waits: [AtomicU8; 2],
    since: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
}

impl Process {
    pub(crate) fn new(process: ProcessId, program: &str, context: &TraceContext, began: Tick) -> Self {
        Self {
            process,
            program: program.to_owned(),
            trace: context.trace_id,
            began,
            pid: AtomicU32::new(0),
            pidfd: OnceLock::new(),
            stage: AtomicU8::new(ProcessStage::Starting as u8),
            waits: Default::default(),
            since: Default::default(),
            bytes: Default::default(),
        }
    }

    /// It runs under this number, as its commands see it.
    pub(crate) fn runs(&self, pid: u32, pidfd: Arc<OwnedFd>) {
        self.pidfd.get_or_init(|| pidfd);
        self.pid.store(pid, Ordering::Relaxed);
        self.stage.store(ProcessStage::Running as u8, Ordering::Relaxed);
    }

    pub(crate) fn exited(&self) {
        self.stage.store(ProcessStage::Draining as u8, Ordering::Relaxed);
    }

    /// A stream waits for this from now on.
    pub(crate) fn waits(&self, stream: OutputStream, waits: Waits, now: Tick) {
        let at = stream.index();
        if self.waits[at].swap(waits as u8, Ordering::Relaxed) != waits as u8 {
            self.since[at].store(now.to_raw(), Ordering::Relaxed);
        }
    }

    /// So many bytes of a stream have come.
    pub(crate) fn came(&self, stream: OutputStream, bytes: u64) {
        self.bytes[stream.index()].store(bytes, Ordering::Relaxed);
    }

    /// Its number, once it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Its number on this machine, which is another than its commands see where they have a namespace of their own. Reads
    /// `/proc`: not for an arbiter's thread.
    pub(crate) fn host_pid(&self) -> Option<u32> {
        procfs::pid_behind(self.pidfd.get()?)
    }

    /// Whether a signal or a debugger has stopped it. Reads `/proc`: not for an arbiter's thread.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = self.host_pid().and_then(|pid| procfs::stat(pid).ok());
        stat.is_some_and(|stat| stat.is_stopped)
    }

    pub(crate) fn stage(&self) -> ProcessStage {
        match self.stage.load(Ordering::Relaxed) {
            0 => ProcessStage::Starting,
            1 => ProcessStage::Running,
            _ => ProcessStage::Draining,
        }
    }

    /// What a stream waits for and since when, and how many bytes of it came.
    pub(crate) fn stream(&self, stream: OutputStream) -> (Waits, Tick, u64) {
        let at = stream.index();
        let waits = match self.waits[at].load(Ordering::Relaxed) {
            0 => Waits::Process,
            1 => Waits::Consumer,
            2 => Waits::Anybody,
            _ => Waits::Link,
        };
        let since = Tick::from_raw(self.since[at].load(Ordering::Relaxed));
        (waits, since, self.bytes[at].load(Ordering::Relaxed))
    }
}
