//! The serial/parallel lock of a harness: who may run now, in the order asked, without starving anyone.

use std::collections::VecDeque;

/// Calls that may wait for readiness or the lock.
pub const WAITING_MAX: usize = 1_024;

/// Whether a call may run beside others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Beside other parallel calls.
    #[default]
    Parallel,
    /// Alone.
    Serial,
}

impl Mode {
    /// One word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Serial => "serial",
        }
    }
}

/// There is no room to wait; the call comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full<T>(pub(super) T);

/// Admits calls once the link is ready: any number of parallel ones, or one serial one, first come first served.
#[derive(Debug)]
pub(super) struct LockCore<T> {
    ready: bool,
    parallel: usize,
    serial: bool,
    waiting: VecDeque<(Mode, T)>,
}

impl<T> Default for LockCore<T> {
    fn default() -> Self {
        Self {
            ready: false,
            parallel: 0,
            serial: false,
            waiting: VecDeque::new(),
        }
    }
}

impl<T> LockCore<T> {
    /// A call wants to run. `Some` gives it back to be started now.
    ///
    /// # Errors
    /// `Full` when `WAITING_MAX` calls wait already.
    pub(super) fn submit(&mut self, mode: Mode, call: T) -> Result<Option<T>, Full<T>> {
        if self.waiting.is_empty() && self.may_run(mode) {
            self.take(mode);
            return Ok(Some(call));
        }
        if self.waiting.len() >= WAITING_MAX {
            return Err(Full(call));
        }
        self.waiting.push_back((mode, call));
        Ok(None)
    }

    /// The link is up. Returns the calls to start now, in order.
    pub(super) fn ready(&mut self) -> Vec<T> {
        self.ready = true;
        self.release()
    }

    /// A call that somebody else began counts from now on, as one of many.
    pub(super) fn adopt(&mut self) {
        self.parallel += 1;
    }

    /// A started call is over. Returns the calls to start now, in order.
    pub(super) fn finished(&mut self, mode: Mode) -> Vec<T> {
        match mode {
            Mode::Parallel => self.parallel = self.parallel.saturating_sub(1),
            Mode::Serial => self.serial = false,
        }
        self.release()
    }

    /// The link is gone: every waiting call, to be told so.
    pub(super) fn abandon(&mut self) -> Vec<T> {
        self.ready = false;
        self.waiting.drain(..).map(|(_, call)| call).collect()
    }

    fn may_run(&self, mode: Mode) -> bool {
        self.ready
            && !self.serial
            && match mode {
                Mode::Parallel => true,
                Mode::Serial => self.parallel == 0,
            }
    }

    fn take(&mut self, mode: Mode) {
        match mode {
            Mode::Parallel => self.parallel += 1,
            Mode::Serial => self.serial = true,
        }
    }

    fn release(&mut self) -> Vec<T> {
        let mut started = Vec::new();
        while let Some((mode, _)) = self.waiting.front() {
            let mode = *mode;
            if !self.may_run(mode) {
                break;
            }
            let Some((_, call)) = self.waiting.pop_front() else {
                break;
            };
            self.take(mode);
            started.push(call);
        }
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> LockCore<u32> {
        let mut core = LockCore::default();
        assert!(core.ready().is_empty());
        core
    }

    #[test]
    fn nothing_starts_before_the_link_is_ready() {
        let mut core = LockCore::default();
        assert_eq!(core.submit(Mode::Parallel, 1), Ok(None));
        assert_eq!(core.submit(Mode::Serial, 2), Ok(None));
        assert_eq!(core.ready(), vec![1]);
        assert_eq!(core.finished(Mode::Parallel), vec![2]);
    }

    #[test]
    fn a_serial_call_runs_alone_and_later_parallel_calls_wait_behind_it() {
        let mut core = ready();
        assert_eq!(core.submit(Mode::Parallel, 1), Ok(Some(1)));
        assert_eq!(core.submit(Mode::Serial, 2), Ok(None));
        assert_eq!(core.submit(Mode::Parallel, 3), Ok(None));
        assert_eq!(core.finished(Mode::Parallel), vec![2]);
        assert_eq!(core.finished(Mode::Serial), vec![3]);
    }

    #[test]
    fn a_full_queue_gives_the_call_back() {
        let mut core = LockCore::default();
        (0..WAITING_MAX).for_each(|call| assert_eq!(core.submit(Mode::Parallel, call), Ok(None)));
        assert_eq!(core.submit(Mode::Parallel, 7), Err(Full(7)));
        assert_eq!(core.abandon().len(), WAITING_MAX);
    }
}
