//! Watches of the dialect: one of a connection, which tells once, over a watch of the executor's.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use dwell_messages::dialect::{
    Fault, Id, MissingChanged, WatchMissing, Watching, encode_error, encode_notification, encode_response,
    notification, path_of,
};
use dwell_messages::files::WATCH_MAX_PATHS;
use dwell_messages::{ErrorCode, WireError};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex, oneshot};

use super::files::fault;
use super::outbox::{Gone, Outbox};
use crate::files::{RemoteFiles, RemoteWatch};

/// The watch of a connection.
#[derive(Default)]
pub(super) struct Watches {
    /// The highest number that was asked for, whatever came of it.
    newest: Cell<u64>,
    /// Dropping it ends the present watch.
    present: RefCell<Option<oneshot::Sender<()>>>,
    /// Whose watch is with the executor: the next one's only when the one before it has ended there.
    turn: Rc<Mutex<()>>,
}

/// A watch that is asked for. Its connection has none beside it.
pub(super) struct Asking {
    id: u64,
    missing: Vec<Vec<u8>>,
    present: Option<Vec<u8>>,
    replaced: oneshot::Receiver<()>,
    turn: Rc<Mutex<()>>,
}

impl Watches {
    /// Understands a request. `None`: there is nothing to watch for, and that is the answer.
    ///
    /// # Errors
    /// A path is none. Then the present watch stays.
    pub(super) fn of(&self, ask: &WatchMissing) -> Result<Option<Asking>, Fault> {
        let missing = ask.missing.iter().map(|uri| path_of(uri));
        let missing = missing.collect::<Result<Vec<_>, _>>()?;
        let present = ask.present.as_deref().map(path_of).transpose()?;
        if ask.watch_id <= self.newest.get() {
            return Ok(None);
        }
        self.newest.set(ask.watch_id);
        let (replaces, replaced) = oneshot::channel();
        self.present.replace(Some(replaces));
        if !(1..=WATCH_MAX_PATHS).contains(&missing.len()) {
            return Ok(None);
        }
        Ok(Some(Asking {
            id: ask.watch_id,
            missing,
            present,
            replaced,
            turn: Rc::clone(&self.turn),
        }))
    }
}

impl Asking {
    /// Answers whether it is watched, and tells what is seen. Over when it has told, or another takes its place. `answered` is
    /// called with what went wrong, once that is known.
    pub(super) async fn serve(
        mut self,
        id: &Id,
        files: &RemoteFiles,
        outbox: &Outbox,
        answered: impl FnOnce(Option<&Fault>),
    ) -> Result<(), Gone> {
        let turn = Rc::clone(&self.turn);
        let _turn = turn.lock().await;
        let (watch, message) = match self.place(files).await {
            Ok(watch) => {
                answered(None);
                let watching = watch.is_some();
                (watch, encode_response(id, &Watching { watching }))
            }
            Err(error) => {
                let fault = fault(error);
                answered(Some(&fault));
                (None, encode_error(id, &fault))
            }
        };
        outbox.send(message).await?;
        let Some(mut watch) = watch else { return Ok(()) };
        let told = tokio::select! {
            biased;
            _ = &mut self.replaced => Ok(()),
            told = tell(self.id, &mut watch, outbox) => told,
        };
        close(watch).await;
        told
    }

    /// Puts it in place with the executor, unless another has taken its place. What was begun is waited for, so that the next
    /// one finds room.
    async fn place(&mut self, files: &RemoteFiles) -> Result<Option<RemoteWatch>, WireError> {
        if self.is_replaced() {
            return Ok(None);
        }
        match files.watch_missing(&self.missing, self.present.as_deref()).await {
            Ok(Some(watch)) if self.is_replaced() => {
                close(watch).await;
                Ok(None)
            }
            // An executor that cannot, or has too much to do: its client looks by itself.
            Err(error) if matches!(error.code, ErrorCode::Busy | ErrorCode::UnknownMethod) => Ok(None),
            placed => placed,
        }
    }

    fn is_replaced(&mut self) -> bool {
        self.replaced.try_recv() != Err(TryRecvError::Empty)
    }
}

async fn close(watch: RemoteWatch) {
    if let Err(error) = watch.close().await {
        tracing::debug!(code = error.code.name(), "a watch was not closed");
    }
}

async fn tell(watch_id: u64, watch: &mut RemoteWatch, outbox: &Outbox) -> Result<(), Gone> {
    match watch.changed().await {
        Ok(()) => {}
        // It may have missed something: its client is to look.
        Err(error) => tracing::debug!(code = error.code.name(), "a watch was lost"),
    }
    let message = encode_notification(notification::MISSING_CHANGED, &MissingChanged { watch_id });
    outbox.send(message).await
}
