//! What to start.

use super::environment::Environment;
use super::error::{Place, SpawnError, SpawnErrorKind};

/// The longest argument or `name=value` that is accepted, in bytes without the terminating NUL. Linux refuses
/// 32 pages with the NUL; machines with larger pages would take more, but one limit everywhere is easier to know.
pub const ARGUMENT_MAX_BYTES: usize = 131_071;

/// A command to start: strings are bytes, as the kernel has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnRequest {
    /// The program and its arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The working directory; `None` is the executor's own. A relative program or `PATH` entry counts from it.
    pub cwd: Option<Vec<u8>>,
    /// The whole environment of the command; nothing is added.
    pub env: Environment,
    /// What the command reads as its standard input.
    pub stdin: StdinMode,
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

impl SpawnRequest {
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
