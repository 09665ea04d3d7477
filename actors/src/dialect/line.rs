//! Which connection a session has now, if it has one, and whether that still lives.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::outbox::Outbox;

/// How long a connection has to answer when somebody else wants its session.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a connection's other end is heard of.
#[derive(Default)]
pub(super) struct Liveness {
    heard: Notify,
    asked: Notify,
    evicted: Notify,
}

impl Liveness {
    /// Something came, whatever it was.
    pub(super) fn heard(&self) {
        self.heard.notify_waiters();
    }

    /// Returns when the other end is to be asked for a word.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Returns when the connection has lost its session.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Whether the other end answers.
    async fn answers(&self) -> bool {
        let heard = self.heard.notified();
        let mut heard = std::pin::pin!(heard);
        // From here on, whatever comes counts.
        heard.as_mut().enable();
        self.asked.notify_one();
        tokio::time::timeout(PROBE_TIMEOUT, heard).await.is_ok()
    }
}

/// A connection that has the session.
#[derive(Clone)]
struct Attached {
    number: u64,
    outbox: Outbox,
    liveness: Rc<Liveness>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Line {
    attached: RefCell<Option<Attached>>,
    /// Connections so far, and when the last was lost.
    connections: Cell<u64>,
    /// Somebody is about to take it.
    claimed: Cell<bool>,
    detached: Notify,
}

/// The session has somebody already.
#[derive(Debug)]
pub(super) struct StillAttached;

/// A claim to a session that no connection has: nobody else gets it meanwhile.
pub(super) struct Claim(Rc<Line>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claimed.set(false);
    }
}

impl Line {
    /// Claims the session. A connection that has it is asked for a word, and loses it if it says none: its other end is
    /// gone, and only it does not know.
    pub(super) async fn claim(self: &Rc<Self>) -> Result<Claim, StillAttached> {
        if self.claimed.replace(true) {
            return Err(StillAttached);
        }
        let claim = Claim(Rc::clone(self));
        let attached = self.attached.borrow().clone();
        if let Some(attached) = attached {
            // It may be lost already, and its end only just be on its way.
            let answers = tokio::select! {
                biased;
                () = self.detached.notified() => false,
                answers = attached.liveness.answers() => answers,
            };
            if answers && self.has(attached.number) {
                return Err(StillAttached);
            }
            if self.detach(attached.number) {
                tracing::info!(
                    "a connection of the JSON dialect does not answer: its session goes to a new one"
                );
                attached.liveness.evicted.notify_one();
            }
        }
        Ok(claim)
    }

    /// Gives the session to a connection. Its number, to be given back with.
    pub(super) fn attach(&self, outbox: Outbox, liveness: Rc<Liveness>) -> u64 {
        let number = self.connections.get() + 1;
        self.connections.set(number);
        *self.attached.borrow_mut() = Some(Attached {
            number,
            outbox,
            liveness,
        });
        number
    }

    /// A connection is gone. Whether it had the session.
    pub(super) fn detach(&self, number: u64) -> bool {
        let is_it = self.has(number);
        if is_it {
            *self.attached.borrow_mut() = None;
            self.detached.notify_waiters();
        }
        is_it
    }

    fn has(&self, number: u64) -> bool {
        let attached = self.attached.borrow();
        attached
            .as_ref()
            .is_some_and(|attached| attached.number == number)
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// Whether somebody is connected.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.borrow().is_some()
    }

    /// Tells whoever is connected, once there is room. With nobody there it is told to nobody: it can be read.
    pub(super) async fn tell(&self, message: Vec<u8>) {
        let outbox = self
            .attached
            .borrow()
            .as_ref()
            .map(|attached| attached.outbox.clone());
        if let Some(outbox) = outbox {
            drop(outbox.send(message).await);
        }
    }
}
