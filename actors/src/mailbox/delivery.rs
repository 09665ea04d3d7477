//! What actix carries for us.

use std::sync::Arc;

use dwell_messages::Envelope;
use tokio::sync::OwnedSemaphorePermit;

use super::ask::AskCell;
use crate::telemetry::Tick;

/// One message on its way into a mailbox.
pub(super) struct Delivery<M> {
    pub(super) envelope: Envelope<M>,
    pub(super) enqueued: Tick,
    /// Room in the mailbox, given back when the effects of this delivery's turn have left.
    pub(super) permit: OwnedSemaphorePermit,
    /// Set by `ask`: lets a caller that gave up take back what was not yet begun.
    pub(super) ask: Option<Arc<AskCell>>,
    /// Messages in the mailbox at enqueue; only filled for sampled contexts.
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
