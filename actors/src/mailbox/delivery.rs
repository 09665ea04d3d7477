//! What actix carries for us.

use std::sync::Arc;

use dwell_messages::TraceContext;

use super::ask::AskCell;
use super::bound::Bound;
use crate::telemetry::Tick;

/// Room for one message: in the mailbox's own room, or in that of a port.
///
/// The host knows its own room, so that most messages need not hold a count on it. Given back by `release` and not by
/// dropping: a delivery is dropped unhandled only with its host, and then every room is closed.
#[must_use = "room that is not released is never free again"]
pub(super) struct Permit(pub(super) Option<Arc<Bound>>);

impl Permit {
    /// The room itself, for whoever keeps the place taken.
    pub(super) fn into_room(self, own: &Arc<Bound>) -> Arc<Bound> {
        self.0.unwrap_or_else(|| Arc::clone(own))
    }

    /// Whether it is a place in that bound.
    pub(super) fn is_of(&self, bound: &Arc<Bound>, own: &Arc<Bound>) -> bool {
        Arc::ptr_eq(self.0.as_ref().unwrap_or(own), bound)
    }

    /// Gives the room back.
    #[inline]
    pub(super) fn release(self, own: &Bound) {
        self.0.as_deref().unwrap_or(own).give();
    }
}

/// One message on its way into a mailbox.
///
/// The context comes first and the fields keep their order: a delivery is copied in steps of 16 bytes, and a load that
/// straddles two of the stores just made waits for both. Measured, that was a third of what this layer costs.
#[repr(C)]
pub(super) struct Delivery<M> {
    pub(super) context: TraceContext,
    /// There until its turn takes it, through the unwind barrier by reference.
    pub(super) body: Option<M>,
    pub(super) enqueued: Tick,
    /// Room in the mailbox, given back when the effects of this delivery's turn have left.
    pub(super) permit: Permit,
    /// Set by `ask`: lets a caller that gave up take back what was not yet begun.
    pub(super) ask: Option<Arc<AskCell>>,
    /// Messages in the room at enqueue, this one included.
    pub(super) depth: u16,
}

impl<M: Send + 'static> actix::Message for Delivery<M> {
    type Result = ();
}

/// Something is in the control queue. At most one is under way.
pub(super) struct Doorbell;

impl actix::Message for Doorbell {
    type Result = ();
}

/// Everything accepted before this has been delivered: finish.
pub(super) struct DrainMark;

impl actix::Message for DrainMark {
    type Result = ();
}

/// The outbox is empty after the drain mark: stop.
pub(super) struct StopNow;

impl actix::Message for StopNow {
    type Result = ();
}
