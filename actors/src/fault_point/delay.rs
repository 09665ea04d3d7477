//! Places where a test may make one call wait: one for each segment of the chain of stamps.
//!
//! Only with the feature `fault-points`, which tests turn on for themselves. Without it nothing of this is reachable and
//! nothing is left of it in the program.

/// A place where a call can be made to wait, and so the segment that has to show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[cfg_attr(
    not(feature = "fault-points"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "some are only made by tests, which need it public"
    )
)]
pub enum DelayPoint {
    /// On the caller's thread, before its `Dispatcher` is told.
    HarnessSubmit,
    /// The harness's `Dispatcher`, at work.
    HarnessDispatch,
    /// In the harness's `RpcQueue`'s mailbox.
    HarnessRpcMailbox,
    /// The harness's `RpcQueue`, at work.
    HarnessAdmission,
    /// In the harness's framer's mailbox.
    HarnessFramerMailbox,
    /// While the request is encoded.
    HarnessSerialize,
    /// While it waits to be cut.
    HarnessQueue,
    /// While it is sealed.
    HarnessSeal,
    /// While the socket takes nothing.
    HarnessWrite,
    /// Between the socket and the harness's framer.
    HarnessReceive,
    /// While a record is opened.
    HarnessOpen,
    /// While the end is decoded.
    HarnessDecode,
    /// On the end's way to its delivery.
    HarnessHandOff,
    /// In the harness's `TerminalDelivery`'s mailbox.
    HarnessDeliveryMailbox,
    /// The harness's `TerminalDelivery`, at work.
    HarnessDelivery,
    /// On the consumer's thread.
    HarnessConsume,
    /// Between the socket and the executor's framer.
    ExecutorReceive,
    /// While the request's record is opened.
    ExecutorOpen,
    /// While the request is decoded.
    ExecutorDecode,
    /// On the request's way to the `RpcQueue`.
    ExecutorHandOff,
    /// In the executor's `RpcQueue`'s mailbox.
    ExecutorRpcMailbox,
    /// The executor's `RpcQueue`, at work.
    ExecutorAdmission,
    /// In the executor's `Dispatcher`'s mailbox.
    ExecutorDispatcherMailbox,
    /// The executor's `Dispatcher`, at work.
    ExecutorDispatch,
    /// In the `ProcessSupervisor`'s mailbox.
    ExecutorSupervisorMailbox,
    /// In the `Process`'s mailbox.
    ExecutorProcessMailbox,
    /// Before the spawner's thread looks at the request.
    ExecutorSpawnQueue,
    /// While the spawner starts the child.
    ExecutorSpawn,
    /// In the executor's `TerminalDelivery`'s mailbox.
    ExecutorDeliveryMailbox,
    /// The executor's `TerminalDelivery`, at work.
    ExecutorDelivery,
    /// While the end waits to be cut.
    ExecutorQueue,
    /// While the harness's store writes what ran.
    HarnessStore,
    /// In the relay.
    Relay,
}

/// Frames of at least so many bytes can carry a start or an end; acknowledgements and pings are shorter.
pub(crate) const CALL_FRAME_MIN_BYTES: usize = 200;

#[cfg(feature = "fault-points")]
mod planted {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::DelayPoint;
    use crate::mailbox::{Actor, Message as _};

    const POINTS: usize = DelayPoint::Relay as usize + 1;

    static PLANTED_US: [AtomicU64; POINTS] = [const { AtomicU64::new(0) }; POINTS];

    /// Makes whoever comes by next wait once, on its own thread. Replaces what was planted there.
    pub fn plant(point: DelayPoint, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        PLANTED_US[point as usize].store(micros, Ordering::SeqCst);
    }

    /// Takes a delay back that nobody has come by. True: it was still there.
    pub fn lift(point: DelayPoint) -> bool {
        PLANTED_US[point as usize].swap(0, Ordering::SeqCst) != 0
    }

    /// Whether something waits there.
    pub(crate) fn is_planted(point: DelayPoint) -> bool {
        PLANTED_US[point as usize].load(Ordering::SeqCst) != 0
    }

    /// Waits, if that was planted here.
    #[expect(
        clippy::disallowed_methods,
        reason = "what is slow blocks its thread, and that is what is planted"
    )]
    pub(crate) fn reach(point: DelayPoint) {
        let cell = &PLANTED_US[point as usize];
        if cell.load(Ordering::Relaxed) != 0 {
            let micros = cell.swap(0, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(micros));
        }
    }

    /// Waits as if the actor had been busy with something else.
    pub(crate) fn in_mailbox<A: Actor>(message: &A::Message) {
        let actor = std::any::type_name::<A>();
        let name = A::Message::NAMES.get(message.index()).copied().unwrap_or("");
        let point = match (actor.strip_prefix("dwell_actors::").unwrap_or(actor), name) {
            ("rpc_queue::caller::RpcQueue", "Call") => DelayPoint::HarnessRpcMailbox,
            ("terminal_delivery::receive::TerminalDelivery", _) => DelayPoint::HarnessDeliveryMailbox,
            ("rpc_queue::server::RpcQueue", "Request") => DelayPoint::ExecutorRpcMailbox,
            ("dispatcher::server::Dispatcher", "Call") => DelayPoint::ExecutorDispatcherMailbox,
            ("process_supervisor::ProcessSupervisor", "Call") => DelayPoint::ExecutorSupervisorMailbox,
            ("process::Process", "Call") => DelayPoint::ExecutorProcessMailbox,
            ("terminal_delivery::push::TerminalDelivery", "Closed") => DelayPoint::ExecutorDeliveryMailbox,
            _ => return,
        };
        reach(point);
    }
}

#[cfg(not(feature = "fault-points"))]
mod planted {
    use super::DelayPoint;
    use crate::mailbox::Actor;

    #[inline(always)]
    pub(crate) fn is_planted(_: DelayPoint) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) fn reach(_: DelayPoint) {}

    #[inline(always)]
    pub(crate) fn in_mailbox<A: Actor>(_: &A::Message) {}
}

pub(crate) use planted::{in_mailbox, is_planted, reach};
#[cfg(feature = "fault-points")]
pub use planted::{lift, plant};
