//! Watches of an executor's machine, through the harness's link.

use std::fmt;

use dwell_messages::WireError;
use dwell_messages::files::{Await, Close, FileReply, FileRequest, Handle, Watch};
use serde_bytes::ByteBuf;

use crate::files::RemoteFiles;
use crate::files::serve::{Server, strange};
use crate::files::system::FileAnswer;
use crate::telemetry::root;

/// A watch on the executor's machine. Dropping it ends it there, soon: who needs its place for another one closes it.
#[must_use = "dropping it ends the watch"]
pub struct RemoteWatch {
    server: Server,
    handle: Handle,
    waiting: Option<FileAnswer<'static, FileReply>>,
    is_over: bool,
}

impl fmt::Debug for RemoteWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteWatch").finish_non_exhaustive()
    }
}

impl RemoteFiles {
    /// Watches for paths that are missing, 1 to [`WATCH_MAX_PATHS`](dwell_messages::files::WATCH_MAX_PATHS), and for what
    /// becomes of one that is there. `None`: nothing is watched, and whoever waits has to look from time to time. So it is
    /// when one of the paths is there already or the other one is not, when a path holds a link, when it lies in a file
    /// system that does not tell (one of another machine, `/proc`), where its directories must not be read, and where the
    /// executor has too many watches already.
    ///
    /// Dropping the future ends what was begun.
    ///
    /// # Errors
    /// See the type; `Busy` past the session's own watches, `UnknownMethod` where the executor watches nothing.
    pub async fn watch_missing(
        &self,
        missing: impl IntoIterator<Item = impl AsRef<[u8]>>,
        present: Option<&[u8]>,
    ) -> Result<Option<RemoteWatch>, WireError> {
        let handle = self.fresh_handle();
        // From here on, dropping this ends it.
        let mut watch = RemoteWatch {
            // What comes later is of no call that is still under way.
            server: self.parent(root(false)).server(),
            handle,
            waiting: None,
            is_over: false,
        };
        let request = FileRequest::Watch(Watch {
            handle,
            missing: missing
                .into_iter()
                .map(|path| ByteBuf::from(path.as_ref()))
                .collect(),
            present: present.map(ByteBuf::from),
        });
        match self.server().ask(request).await {
            Ok(FileReply::Watching(watching)) if watching.watching => Ok(Some(watch)),
            outcome => {
                watch.is_over = true;
                match outcome {
                    Ok(FileReply::Watching(_)) => Ok(None),
                    Ok(_) => Err(strange()),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

impl RemoteWatch {
    /// Returns once one of the paths, or the first missing directory on its way, has appeared, or what was there is not what
    /// it was. It may have been something else: look again. Once it has returned, it returns at once. Cancellation safe.
    ///
    /// # Errors
    /// See [`RemoteFiles`]. The watch is over then.
    pub async fn changed(&mut self) -> Result<(), WireError> {
        let on = Await { handle: self.handle };
        let (server, waiting) = (&self.server, &mut self.waiting);
        let answer = waiting
            .get_or_insert_with(|| server.ask(FileRequest::Await(on)))
            .await;
        self.waiting = None;
        match answer? {
            FileReply::Seen => Ok(()),
            _ => Err(strange()),
        }
    }

    /// Ends it, and waits until it has ended.
    ///
    /// # Errors
    /// See [`RemoteFiles`].
    pub async fn close(mut self) -> Result<(), WireError> {
        self.is_over = true;
        self.waiting = None;
        let close = Close {
            handle: self.handle,
            discard: true,
        };
        self.server.ask(FileRequest::Close(close)).await.map(drop)
    }
}

impl Drop for RemoteWatch {
    fn drop(&mut self) {
        if !self.is_over {
            // First, so that nobody is answered.
            self.waiting = None;
            self.server.close(self.handle, true);
        }
    }
}
