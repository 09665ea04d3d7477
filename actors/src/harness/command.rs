//! What to run, and how.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use dwell_messages::TraceContext;
use dwell_messages::confinement::Confinement;
use dwell_messages::process::{Drain, Limits, Overflow, Pty, TerminalSize};

use crate::dispatcher::Mode;
use crate::propagation::Baggage;
use crate::terminal_delivery::OUTPUT_LIMIT_BYTES;

/// The terminal that commands are told they are on, unless they are told otherwise.
pub const TERM: &str = "xterm-256color";
/// Time between TERM and KILL unless the command says otherwise.
pub const GRACE: Duration = Duration::from_secs(2);

/// Which of the executor's own variables the command inherits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Inherit {
    /// A short list of harmless ones: `PATH`, `HOME`, `LANG` and the like.
    #[default]
    Core,
    /// All but those that look like secrets.
    All,
    /// None.
    None,
}

/// A command to run on the executor: a program and its arguments, never a shell line.
#[derive(Clone, Debug)]
pub struct Command {
    pub(crate) argv: Vec<Vec<u8>>,
    /// What is executed in place of the first of them.
    pub(crate) program: Option<Vec<u8>>,
    pub(crate) cwd: Option<Vec<u8>>,
    pub(crate) inherit: Inherit,
    pub(crate) set: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) unset: Vec<Vec<u8>>,
    pub(crate) include: Vec<Vec<u8>>,
    pub(crate) exclude: Vec<Vec<u8>>,
    pub(crate) secrets: bool,
    pub(crate) stdin: bool,
    pub(crate) pty: Option<Pty>,
    pub(crate) limits: Limits,
    pub(crate) drain: Option<Drain>,
    pub(crate) outlive: bool,
    pub(crate) retention: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) spool: Option<u64>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) mode: Mode,
    pub(crate) parent: Option<TraceContext>,
    pub(crate) sampled: Option<bool>,
    pub(crate) output_limit: usize,
    /// Only to an executor that says it can.
    pub(crate) confinement: Option<Confinement>,
}

impl Command {
    /// A command without arguments. An empty program is refused by `exec`, before anything is sent.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().as_bytes().to_vec()],
            program: None,
            cwd: None,
            inherit: Inherit::Core,
            set: Vec::new(),
            unset: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            secrets: false,
            stdin: false,
            pty: None,
            limits: Limits::default(),
            drain: None,
            outlive: false,
            retention: None,
            overflow: Overflow::Block,
            spool: None,
            deadline: None,
            grace: GRACE,
            mode: Mode::Parallel,
            parent: None,
            sampled: None,
            output_limit: OUTPUT_LIMIT_BYTES,
            confinement: None,
        }
    }

    /// A command from its whole argument vector. An empty one is refused by `exec`.
    pub fn from_argv<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv
            .into_iter()
            .map(|arg| arg.as_ref().as_bytes().to_vec())
            .collect();
        Self {
            argv,
            ..Self::new("")
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().as_bytes().to_vec());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv
            .extend(args.into_iter().map(|arg| arg.as_ref().as_bytes().to_vec()));
        self
    }

    /// Runs in this directory of the executor's machine instead of the executor's own.
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().as_os_str().as_bytes().to_vec());
        self
    }

    /// Sets a variable for the command, also one that would be withheld.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.set.push((
            name.as_ref().as_bytes().to_vec(),
            value.as_ref().as_bytes().to_vec(),
        ));
        self
    }

    /// Removes an inherited variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.unset.push(name.as_ref().as_bytes().to_vec());
        self
    }

    /// Which of the executor's variables to inherit.
    #[must_use]
    pub fn inherit(mut self, inherit: Inherit) -> Self {
        self.inherit = inherit;
        self
    }

    /// Of what is inherited only names that fit one of these patterns stay: `*` is any run of bytes, `?` any one.
    #[must_use]
    pub fn env_include(mut self, pattern: impl AsRef<OsStr>) -> Self {
        self.include.push(pattern.as_ref().as_bytes().to_vec());
        self
    }

    /// What the command is told as its own name, in place of its program's.
    #[must_use]
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        if let Some(first) = self.argv.first_mut() {
            let program = std::mem::replace(first, name.as_ref().as_bytes().to_vec());
            self.program.get_or_insert(program);
        }
        self
    }

    /// Names that fit this pattern are not inherited.
    #[must_use]
    pub fn env_exclude(mut self, pattern: impl AsRef<OsStr>) -> Self {
        self.exclude.push(pattern.as_ref().as_bytes().to_vec());
        self
    }

    /// Inherits names that look like secrets like any other.
    #[must_use]
    pub fn env_secrets(mut self) -> Self {
        self.secrets = true;
        self
    }

    /// Runs on a terminal of this size in place of three pipes: what it writes is standard output, all of it, and
    /// `Run::write_stdin` types. Zero rows or columns mean the usual 24 by 80.
    #[must_use]
    pub fn pty(mut self, rows: u16, columns: u16) -> Self {
        let term = self.pty.take().map_or_else(|| TERM.to_owned(), |pty| pty.term);
        let size = TerminalSize { rows, columns };
        self.pty = Some(Pty { size, term });
        self
    }

    /// Which terminal it is told to be on, as `TERM`. Default `xterm-256color`. Means nothing without `pty`.
    #[must_use]
    pub fn term(mut self, term: impl Into<String>) -> Self {
        if let Some(pty) = &mut self.pty {
            pty.term = term.into();
        }
        self
    }

    /// What the command, and each process it starts, may use at the most. Enforced on the executor. When its time
    /// (`wall_ms`) is over it is terminated with the command's grace, and the run ends with what it wrote and
    /// `Ending::Deadline`.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long pipes that others still hold are read after the command's exit. Default: 2 s without output, 5 s in all.
    #[must_use]
    pub fn drain(mut self, idle: Duration, total: Duration) -> Self {
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        self.drain = Some(Drain {
            idle_ms: millis(idle),
            total_ms: millis(total),
        });
        self
    }

    /// Bytes of output that the executor keeps to be read again (`Run::read`). Default 1 MiB, at most 16 MiB.
    #[must_use]
    pub fn retention(mut self, bytes: u64) -> Self {
        self.retention = Some(bytes);
        self
    }

    /// The command never waits for whoever takes its output: what nobody has taken when the spool is full is dropped, the
    /// oldest first, and told as `RunEvent::Gap`. Without it the command waits.
    #[must_use]
    pub fn ring(mut self) -> Self {
        self.overflow = Overflow::Ring;
        self
    }

    /// Bytes of each output kept on the executor's disk while nobody takes them, at most what its operator allows.
    #[must_use]
    pub fn spool(mut self, bytes: u64) -> Self {
        self.spool = Some(bytes);
        self
    }

    /// Lets the command outlive its session and the executor itself: nothing else does. Its pipes end with them.
    /// Refused by an executor without a guard. To outlive this harness alone, see `Harness::start` and `Run::detach`.
    #[must_use]
    pub fn outlive_executor(mut self) -> Self {
        self.outlive = true;
        self
    }

    /// Gives the command a pipe as standard input, written through `Run::write_stdin`. Without it, it is empty.
    #[must_use]
    pub fn stdin_piped(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// The whole call must end within this time: then the command is terminated and the call is an error.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Time between TERM and KILL when the command is terminated.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs alone: after everything before it, before everything after it.
    #[must_use]
    pub fn serial(mut self) -> Self {
        self.mode = Mode::Serial;
        self
    }

    /// The span this call belongs under; its sampled flag decides whether the call is traced, unless
    /// `OTEL_TRACES_SAMPLER` names a sampler that asks no parent. Works with any version of OpenTelemetry, and goes
    /// before the span that the calling code is in.
    #[must_use]
    pub fn parent(mut self, parent: TraceContext) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Hands these members on to the command, as `BAGGAGE` in its environment. Nothing else ever puts baggage there.
    #[must_use]
    pub fn baggage(mut self, baggage: &Baggage) -> Self {
        if !baggage.is_empty() {
            self.set
                .push((b"BAGGAGE".to_vec(), baggage.to_string().into_bytes()));
        }
        self
    }

    /// Whether the call is traced, where its parent does not say.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.sampled = Some(sampled);
        self
    }

    /// Bytes of each end of each stream that `Run::wait` keeps. Default 1 MiB.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }
}
