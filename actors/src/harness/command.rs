//! What to run, and how.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use dwell_messages::TraceContext;

use crate::dispatcher::Mode;
use crate::terminal_delivery::OUTPUT_LIMIT_BYTES;

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
    pub(crate) cwd: Option<Vec<u8>>,
    pub(crate) inherit: Inherit,
    pub(crate) set: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) unset: Vec<Vec<u8>>,
    pub(crate) stdin: bool,
    pub(crate) deadline: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) mode: Mode,
    pub(crate) parent: Option<TraceContext>,
    pub(crate) sampled: Option<bool>,
    pub(crate) output_limit: usize,
}

impl Command {
    /// A command without arguments. An empty program is refused by `exec`, before anything is sent.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().as_bytes().to_vec()],
            cwd: None,
            inherit: Inherit::Core,
            set: Vec::new(),
            unset: Vec::new(),
            stdin: false,
            deadline: None,
            grace: GRACE,
            mode: Mode::Parallel,
            parent: None,
            sampled: None,
            output_limit: OUTPUT_LIMIT_BYTES,
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

    /// The span this call belongs under; its sampled flag decides whether the call is traced.
    #[must_use]
    pub fn parent(mut self, parent: TraceContext) -> Self {
        self.parent = Some(parent);
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
