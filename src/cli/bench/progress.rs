//! How far a benchmark is, on standard error: one line that is written over on a terminal, one line a case elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two updates of the line.
const INTERVAL: Duration = Duration::from_millis(100);

/// The progress of one case.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    of: usize,
    shown: Option<Instant>,
    live: bool,
}

impl Progress {
    pub(crate) fn begin(what: &'static str, of: usize) -> Self {
        let live = std::io::stderr().is_terminal();
        if !live {
            super::super::output::note(&format!("{what}: {of} runs"));
        }
        Self {
            what,
            of,
            shown: None,
            live,
        }
    }

    /// So many are done.
    pub(crate) fn at(&mut self, done: usize) {
        if self.live && self.shown.is_none_or(|shown| shown.elapsed() >= INTERVAL) {
            self.shown = Some(Instant::now());
            self.write(&format!("{}: {done} of {}", self.what, self.of));
        }
    }

    fn write(&self, line: &str) {
        let mut err = std::io::stderr().lock();
        // To the line's beginning, and its old end away; a terminal that is gone is no error.
        drop(write!(err, "\r\x1b[K{line}").and_then(|()| err.flush()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.live {
            self.write("");
        }
    }
}
