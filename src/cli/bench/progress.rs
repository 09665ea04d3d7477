//! How far a benchmark is, on standard error: one line that is written over on a terminal, one line a case elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// So often the line is written anew where nothing is done meanwhile.
const TICK: Duration = Duration::from_millis(250);

/// The progress of one case.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn begin(what: &str, of: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(of as u64), ProgressDrawTarget::stderr());
        // A template of ours that does not parse leaves the library's own.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg:<44} {wide_bar} {pos}/{len} {elapsed_precise}")
        {
            bar.set_style(style);
        }
        if bar.is_hidden() {
            super::super::output::note(&format!("{what}: {of} runs"));
        } else {
            bar.enable_steady_tick(TICK);
        }
        bar.set_message(what.to_owned());
        Self { bar }
    }

    /// What is done now.
    pub(crate) fn say(&self, what: &str) {
        if self.bar.is_hidden() {
            super::super::output::note(what);
        }
        self.bar.set_message(what.to_owned());
    }

    /// So many are done.
    pub(crate) fn at(&mut self, done: usize) {
        self.bar.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
