//! This process's own terminal, while a remote command has it.

use std::io::IsTerminal as _;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::failure::Failure;

/// What terminals are called that do not say.
const TERM_DEFAULT: &str = "xterm-256color";
/// Typed three times in a row it leaves the command: Ctrl-].
const ESCAPE: u8 = 0x1d;
/// How often.
const ESCAPES: u8 = 3;

/// Whether a person sits there: both ends are a terminal.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Rows and columns; zeroes where that is not known.
pub(crate) fn size() -> (u16, u16) {
    tcgetwinsize(rustix::stdio::stdout()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// What this terminal is called.
pub(crate) fn name() -> String {
    std::env::var("TERM")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| TERM_DEFAULT.to_owned())
}

/// The terminal hands every byte on as it is typed. Dropping this gives it back as it was found, also in a panic.
#[must_use = "dropping it ends raw mode"]
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(crate) fn enter() -> Result<Self, Failure> {
        let failed = |error| {
            Failure::because(
                "terminal",
                "the terminal's mode cannot be changed",
                &std::io::Error::from(error),
            )
        };
        let before = tcgetattr(rustix::stdio::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal could not be given back as it was: `stty sane` helps");
        }
    }
}

/// Watches what is typed for the way out of a command that answers nothing any more.
#[derive(Debug, Default)]
pub(crate) struct Escape {
    seen: u8,
}

impl Escape {
    /// Whether the way out has been typed by now.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| {
            self.seen = if *byte == ESCAPE { self.seen + 1 } else { 0 };
            self.seen >= ESCAPES
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_are_the_way_out_and_nothing_else_is() {
        let mut escape = Escape::default();
        assert!(!escape.typed(b"ls \x1d\x1d"));
        assert!(!escape.typed(b"x\x1d"));
        assert!(!escape.typed(b"\x1d"));
        assert!(escape.typed(b"\x1d"));
    }
}
