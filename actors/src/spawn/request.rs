//! What to start.

use dwell_messages::confinement::Confinement;

use super::environment::Environment;
use super::error::{Place, SpawnError, SpawnErrorKind};

/// The longest argument or `name=value` that is accepted, in bytes without the terminating NUL. Linux refuses
/// 32 pages with the NUL; machines with larger pages would take more, but one limit everywhere is easier to know.
pub const ARGUMENT_MAX_BYTES: usize = 131_071;

/// The most rows or columns a terminal is given.
pub const TERMINAL_SIDE_MAX: u16 = 4_096;

/// A command to start: strings are bytes, as the kernel has them. `..SpawnRequest::default()` fills what is not asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpawnRequest {
    /// The program and its arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The program, where it is not the first of `argv`.
    pub program: Option<Vec<u8>>,
    /// The working directory; `None` is the executor's own. A relative program or `PATH` entry counts from it.
    pub cwd: Option<Vec<u8>>,
    /// The whole environment of the command; nothing is added.
    pub env: Environment,
    /// What the command reads as its standard input.
    pub stdin: StdinMode,
    /// A terminal instead of the three pipes; `stdin` then says nothing.
    pub terminal: Option<TerminalSize>,
    /// What the command may use at most.
    pub limits: Limits,
    /// What the command may reach. `None`: whatever the executor may.
    pub confinement: Option<Confinement>,
    /// Whether the command may outlive the executor. Its pipes do not: what it writes after the executor's end fails.
    pub detach: bool,
}

/// The size of a terminal in characters. Zero means the usual 24 by 80, and more than [`TERMINAL_SIDE_MAX`] means that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What a command may use at most, it and each process it starts. Both the soft and the hard limit become this; a limit
/// above the executor's own hard one is refused, not rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Address space in bytes, which is more than the memory in use.
    pub address_space_bytes: Option<u64>,
    /// Processes and threads of the same user, this machine's others included. Means nothing for root.
    pub processes: Option<u64>,
    /// The largest core file in bytes; 0 is none.
    pub core_bytes: Option<u64>,
    /// The largest file that may be written, in bytes.
    pub file_bytes: Option<u64>,
    /// Processor time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Priority, from -20 (first) to 19 (last). Below the executor's own needs a privilege.
    pub nice: Option<i8>,
}

/// One of the [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitName {
    /// Open descriptors.
    OpenFiles,
    /// Address space.
    AddressSpace,
    /// Processes.
    Processes,
    /// The core file.
    Core,
    /// A written file.
    FileSize,
    /// Processor time.
    Cpu,
    /// Priority.
    Nice,
}

/// What a command reads as its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StdinMode {
    /// `/dev/null`: at its end from the start.
    #[default]
    Null,
    /// A pipe whose writing end is handed out.
    Piped,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self {
            rows: 24,
            columns: 80,
        }
    }
}

impl TerminalSize {
    /// A size that terminals and programs can live with.
    #[must_use]
    pub fn clamped(self) -> Self {
        let usual = Self::default();
        let side = |wanted: u16, usual: u16| match wanted {
            0 => usual,
            _ => wanted.min(TERMINAL_SIDE_MAX),
        };
        Self {
            rows: side(self.rows, usual.rows),
            columns: side(self.columns, usual.columns),
        }
    }
}

impl Limits {
    /// The kernel's resource limits that are set, in a fixed order. Priority is not one of them.
    #[must_use]
    pub fn resources(&self) -> Vec<(LimitName, u64)> {
        [
            (LimitName::OpenFiles, self.open_files),
            (LimitName::AddressSpace, self.address_space_bytes),
            (LimitName::Processes, self.processes),
            (LimitName::Core, self.core_bytes),
            (LimitName::FileSize, self.file_bytes),
            (LimitName::Cpu, self.cpu_seconds),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

impl std::fmt::Display for LimitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OpenFiles => "open files",
            Self::AddressSpace => "address space",
            Self::Processes => "processes",
            Self::Core => "the core file",
            Self::FileSize => "the size of a file",
            Self::Cpu => "processor time",
            Self::Nice => "the priority",
        })
    }
}

impl SpawnRequest {
    /// What is executed.
    pub(crate) fn program(&self) -> Option<&Vec<u8>> {
        self.program.as_ref().or(self.argv.first())
    }

    /// Says whether the kernel could take this at all, without asking it anything.
    ///
    /// # Errors
    /// [`SpawnErrorKind::EmptyArgv`], [`SpawnErrorKind::NulByte`], [`SpawnErrorKind::ArgumentTooLong`] or
    /// [`SpawnErrorKind::InvalidEnvironmentName`].
    pub fn validate(&self) -> Result<(), SpawnError> {
        if self.argv.is_empty() {
            return Err(SpawnErrorKind::EmptyArgv.into());
        }
        for (index, argument) in self.argv.iter().enumerate() {
            check_string(argument, Place::Argument(index))?;
            check_length(argument.len(), Place::Argument(index))?;
        }
        if let Some(program) = &self.program {
            check_string(program, Place::Argument(0))?;
            check_length(program.len(), Place::Argument(0))?;
        }
        if let Some(cwd) = &self.cwd {
            check_string(cwd, Place::Cwd)?;
        }
        for (index, (name, value)) in self.env.pairs().iter().enumerate() {
            if name.is_empty() || name.contains(&b'=') {
                return Err(SpawnErrorKind::InvalidEnvironmentName { index }.into());
            }
            check_string(name, Place::Environment(index))?;
            check_string(value, Place::Environment(index))?;
            check_length(name.len() + 1 + value.len(), Place::Environment(index))?;
        }
        Ok(())
    }
}

fn check_string(bytes: &[u8], place: Place) -> Result<(), SpawnError> {
    if bytes.contains(&0) {
        return Err(SpawnErrorKind::NulByte { place }.into());
    }
    Ok(())
}

fn check_length(length_bytes: usize, place: Place) -> Result<(), SpawnError> {
    if length_bytes > ARGUMENT_MAX_BYTES {
        let limit_bytes = ARGUMENT_MAX_BYTES;
        return Err(SpawnErrorKind::ArgumentTooLong {
            place,
            length_bytes,
            limit_bytes,
        }
        .into());
    }
    Ok(())
}
