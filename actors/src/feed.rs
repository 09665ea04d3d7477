//! An actor's way to a thread: a bounded channel that a turn never waits for.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use crate::mailbox::Room;

/// How long a full channel is left alone before it is offered again what waits.
pub(crate) const FEED_RETRY: Duration = Duration::from_millis(5);

/// Jobs on their way to a thread, in order. What waits here keeps its room in the actor's mailbox, which bounds it.
pub(crate) struct Feed<J> {
    jobs: SyncSender<J>,
    waiting: VecDeque<(J, Option<Room>)>,
}

/// What became of an attempt to hand over what waits.
#[must_use]
pub(crate) enum Fed<J> {
    /// Nothing waits any more.
    All,
    /// The channel is full: try again after `FEED_RETRY`.
    Full,
    /// The thread is gone. These were not taken.
    Gone(Vec<J>),
}

impl<J> Feed<J> {
    pub(crate) fn new(jobs: SyncSender<J>) -> Self {
        Self {
            jobs,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a job behind those that wait. Nothing is handed over before `push`.
    pub(crate) fn queue(&mut self, job: J, room: Option<Room>) {
        self.waiting.push_back((job, room));
    }

    /// Hands over what waits, as far as there is room.
    pub(crate) fn push(&mut self) -> Fed<J> {
        while let Some((job, room)) = self.waiting.pop_front() {
            match self.jobs.try_send(job) {
                Ok(()) => drop(room),
                Err(TrySendError::Full(job)) => {
                    self.waiting.push_front((job, room));
                    return Fed::Full;
                }
                Err(TrySendError::Disconnected(job)) => {
                    let rest = self.waiting.drain(..).map(|(job, _)| job);
                    return Fed::Gone(std::iter::once(job).chain(rest).collect());
                }
            }
        }
        Fed::All
    }
}
