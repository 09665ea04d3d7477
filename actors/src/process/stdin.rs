//! Standard input: writes in order, each answered when the pipe has taken it.

use std::os::fd::OwnedFd;

use dwell_messages::process::{Write, Written};
use dwell_messages::{ErrorCode, Reply, TraceContext, WireError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Process;
use crate::account::Account;
use crate::mailbox::{TimerGuard, Turn};
use crate::rpc_queue::server::Responder;
use crate::spawn::{InputPipe, StdinError};

/// Writes of one process that may wait for its pipe: 1 MiB.
pub(crate) const STDIN_WRITES_MAX: usize = 16;

struct Job {
    write: Write,
    responder: Responder,
    context: TraceContext,
    account: Account,
}

/// The writing end of one process's standard input.
pub(super) struct Stdin {
    jobs: Sender<Job>,
    _task: TimerGuard,
}

impl Stdin {
    pub(super) fn open(fd: OwnedFd, turn: &Turn<'_, Process>) -> Option<Self> {
        let pipe = match InputPipe::from_fd(fd) {
            Ok(pipe) => pipe,
            Err(error) => {
                tracing::warn!(%error, "a standard input cannot be written");
                return None;
            }
        };
        let (jobs, queue) = channel(STDIN_WRITES_MAX);
        Some(Self {
            jobs,
            _task: turn.spawn(serve(pipe, queue)),
        })
    }

    pub(super) fn write(
        &self,
        write: Write,
        responder: Responder,
        context: TraceContext,
        account: Account,
        turn: &mut Turn<'_, Process>,
    ) {
        if let Err(refused) = self.jobs.try_send(Job {
            write,
            responder,
            context,
            account,
        }) {
            let job = refused.into_inner();
            let error = WireError::new(ErrorCode::Busy, "the process does not read its standard input")
                .with_limit(STDIN_WRITES_MAX as u64, STDIN_WRITES_MAX as u64 + 1);
            job.responder.answer(turn, job.context, Err(error), job.account);
        }
    }
}

async fn serve(mut pipe: InputPipe, mut queue: Receiver<Job>) {
    while let Some(job) = queue.recv().await {
        let Job {
            write,
            responder,
            context,
            account,
        } = job;
        if !responder.begin() {
            continue;
        }
        let result = apply(&mut pipe, write).await;
        responder.answer_later(context, result, account).await;
    }
}

/// Writes what is new of a write: bytes before the present offset were taken from an earlier copy of it.
async fn apply(pipe: &mut InputPipe, write: Write) -> Result<Reply, WireError> {
    let closed = || WireError::new(ErrorCode::StdinClosed, "the process's standard input is closed");
    let at = pipe.written_bytes();
    if pipe.is_closed() {
        // Closing what is closed changes nothing, nor does a write that was taken before it was.
        let is_repeated = write.offset.saturating_add(write.data.len() as u64) <= at;
        return if is_repeated {
            Ok(Reply::Written(Written { offset: at }))
        } else {
            Err(closed())
        };
    }
    let Some(known) = at.checked_sub(write.offset) else {
        let text = format!("a write at {} would leave a hole behind {at}", write.offset);
        return Err(WireError::new(ErrorCode::BadOffset, text));
    };
    let known = usize::try_from(known).unwrap_or(usize::MAX).min(write.data.len());
    let mut fresh = write.data.slice(known..);
    match pipe.write_all(&mut fresh).await {
        Ok(()) => {}
        Err(StdinError::Closed) => return Err(closed()),
        Err(StdinError::Io(error)) => {
            return Err(
                WireError::new(ErrorCode::StdinClosed, "the process's standard input failed")
                    .with_errno(error.raw_os_error()),
            );
        }
    }
    let offset = pipe.written_bytes();
    if write.eof {
        pipe.close();
    }
    Ok(Reply::Written(Written { offset }))
}

#[cfg(test)]
#[path = "stdin_tests.rs"]
mod tests;
