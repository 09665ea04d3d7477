//! Whether a command may be run: what a model calls for is whatever it has read.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::cli::failure::Failure;
use crate::cli::output::printable;

/// Who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Approval {
    /// All may.
    Given,
    /// The user is asked each time.
    Asks,
    /// Nobody can be asked.
    Nobody,
}

impl Approval {
    pub(super) fn of(given: bool) -> Self {
        if given {
            Self::Given
        } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            Self::Asks
        } else {
            Self::Nobody
        }
    }

    /// Whether this command may be run.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(super) async fn asks_for(self, argv: &[String]) -> Result<bool, Failure> {
        match self {
            Self::Given => Ok(true),
            Self::Asks => {
                let question = format!("run it? {} [y/N] ", printable(&argv.join(" ")));
                // The answer may take long; what waits for it must still hear a signal.
                let asked = tokio::task::spawn_blocking(move || {
                    let mut line = String::new();
                    drop(std::io::stderr().write_all(question.as_bytes()));
                    let read = std::io::stdin().lock().read_line(&mut line);
                    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
                });
                Ok(asked.await.unwrap_or(false))
            }
            Self::Nobody => Err(Failure::new(
                "not_approved",
                "the model calls for a command, and there is no terminal to ask whether it may be run",
            )
            .advise("--yes runs what the model calls for, with all that the executor may do")),
        }
    }
}
