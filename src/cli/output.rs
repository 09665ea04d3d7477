//! What goes to the terminal, and what the terminal is.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::sync::OnceLock;

use dwell_actors::waterfall::{Options, WIDTH_MAX, WIDTH_MIN};
use serde_json::Value;

use super::failure::Failure;

/// The width when nobody says: a file, or a terminal that hides it.
const WIDTH_DEFAULT: usize = 100;

/// The variables that decide how text is drawn.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) no_color: bool,
    pub(crate) dumb: bool,
    pub(crate) utf8: bool,
    pub(crate) columns: Option<usize>,
    pub(crate) terminal: bool,
    pub(crate) terminal_columns: Option<usize>,
}

impl Surroundings {
    pub(crate) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        Self::new(
            |name| std::env::var_os(name),
            stdout.is_terminal(),
            rustix::termios::tcgetwinsize(&stdout)
                .ok()
                .map(|size| usize::from(size.ws_col)),
        )
    }

    fn new<T: AsRef<OsStr>>(
        lookup: impl Fn(&str) -> Option<T>,
        terminal: bool,
        terminal_columns: Option<usize>,
    ) -> Self {
        let text = |name: &str| {
            let value = lookup(name)?.as_ref().to_string_lossy().into_owned();
            (!value.is_empty()).then_some(value)
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| text(name));
        Self {
            no_color: text("NO_COLOR").is_some(),
            dumb: text("TERM").is_some_and(|term| term == "dumb"),
            // Without a locale most terminals of today still show UTF-8; one that says otherwise is believed.
            utf8: locale.is_none_or(|locale| {
                let locale = locale.to_ascii_lowercase();
                locale.contains("utf-8") || locale.contains("utf8") || locale == "c" || locale == "posix"
            }),
            columns: text("COLUMNS").and_then(|columns| columns.parse().ok()),
            terminal,
            terminal_columns,
        }
    }

    /// How to draw a waterfall here.
    pub(crate) fn options(&self, width: Option<usize>) -> Options {
        let width = width
            .or(self.terminal_columns.filter(|columns| *columns > 0))
            .or(self.columns)
            .unwrap_or(WIDTH_DEFAULT);
        Options {
            width: width.clamp(WIDTH_MIN, WIDTH_MAX),
            color: self.terminal && !self.no_color && !self.dumb,
            ascii: !self.utf8,
        }
    }
}

/// Prints one JSON object and the end of the line.
pub(crate) fn print_json(value: &Value) {
    print(&format!("{value}\n"));
}

/// Whether anybody still reads standard output: a pipe whose reader went away says so.
pub(crate) fn is_read() -> bool {
    let out = std::io::stdout();
    let mut polled = [rustix::event::PollFd::new(&out, rustix::event::PollFlags::OUT)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let ready = rustix::event::poll(&mut polled, Some(&now));
    ready.is_err() || !polled[0].revents().contains(rustix::event::PollFlags::ERR)
}

/// Prints text to standard output. A reader that went away ends nothing: the exit code still tells. Any other failure is
/// told at the end, by `is_whole`.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    noted(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// What could not be printed, for the end.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

/// Keeps in mind what could not be printed. Whether it was.
pub(crate) fn noted(written: std::io::Result<()>) -> bool {
    match written {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                UNWRITTEN.get_or_init(|| error);
            }
            false
        }
    }
}

/// Whether all that was printed is where it goes.
///
/// # Errors
/// Why not. That a reader went away is none.
pub(crate) fn is_whole() -> Result<(), Failure> {
    UNWRITTEN.get().map_or(Ok(()), |error| Err(unwritten(error)))
}

/// Output that could not be written.
pub(crate) fn unwritten(error: &std::io::Error) -> Failure {
    Failure::because("output", "the output cannot be written, and is not whole", error)
}

/// Prints a line to standard error, for people.
pub(crate) fn note(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{}", printable(line)));
}

/// The text with control characters replaced: what came from elsewhere must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &'static str)], terminal: bool, columns: Option<usize>) -> Options {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        Surroundings::new(lookup, terminal, columns).options(None)
    }

    #[test]
    fn colour_is_for_terminals_that_nobody_forbade_it() {
        assert!(with(&[], true, None).color);
        assert!(!with(&[], false, None).color);
        assert!(!with(&[("NO_COLOR", "1")], true, None).color);
        assert!(
            with(&[("NO_COLOR", "")], true, None).color,
            "an empty NO_COLOR forbids nothing"
        );
        assert!(!with(&[("TERM", "dumb")], true, None).color);
    }

    #[test]
    fn the_width_is_the_terminals_then_the_variables_then_a_default_and_always_in_range() {
        assert_eq!(with(&[("COLUMNS", "90")], true, Some(120)).width, 120);
        assert_eq!(with(&[("COLUMNS", "90")], false, None).width, 90);
        assert_eq!(with(&[("COLUMNS", "many")], false, None).width, WIDTH_DEFAULT);
        assert_eq!(with(&[], true, Some(0)).width, WIDTH_DEFAULT);
        assert_eq!(with(&[], true, Some(10_000)).width, WIDTH_MAX);
        assert_eq!(with(&[], true, Some(3)).width, WIDTH_MIN);
    }

    #[test]
    fn a_locale_without_utf8_gets_ascii() {
        assert!(with(&[("LANG", "de_DE.ISO-8859-1")], true, None).ascii);
        assert!(!with(&[("LANG", "de_DE.UTF-8")], true, None).ascii);
        assert!(!with(&[("LC_ALL", "C.utf8"), ("LANG", "de_DE.ISO-8859-1")], true, None).ascii);
    }

    #[test]
    fn a_name_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
