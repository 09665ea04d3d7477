//! One call's causal chain of stamps on one machine.
//!
//! A segment is the difference of two neighbouring stamps taken on this machine: segments cannot overlap, cannot be
//! negative, and add up to the chain's length. Work beside the chain (readers, metadata) is drawn, never summed.

use dwell_messages::{Span, Timings, Value};

use crate::telemetry::{Scale, Tick};

/// What a stretch of the chain was spent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(usize)]
pub enum Segment {
    /// From the call on the caller's thread until the session's `Dispatcher` takes it out.
    Submit,
    /// From the arrival of a message's first record until the framer takes the record that completes it.
    Receive,
    /// Opening that record, and putting the message together.
    Open,
    /// Decoding the message.
    Decode,
    /// From there into the mailbox of whom it is for.
    HandOff,
    /// Waiting for the `RpcQueue`.
    RpcMailbox,
    /// Deciding whether a request is served or sent: window, duplicates, deadlines.
    Admission,
    /// Waiting for the `Dispatcher`.
    DispatcherMailbox,
    /// Choosing who serves it, and preparing that; on the harness readiness and the lock.
    Dispatch,
    /// Waiting for the `ProcessSupervisor`, or for the `FileService`.
    SupervisorMailbox,
    /// Waiting for the `Process`.
    ProcessMailbox,
    /// Waiting for the framer, to be sent.
    FramerMailbox,
    /// Encoding a message.
    Serialize,
    /// At the framer: until the session's order has room, and until the link has cut the message into a record.
    Queue,
    /// Cutting and sealing the records of the write that carries it.
    Seal,
    /// From there until that write begins: the socket takes no more.
    Write,
    /// From a request's first write until the one that was answered: its link had died.
    Outage,
    /// Another machine, and the way there and back.
    Remote,
    /// Waiting for the thread that spawns.
    SpawnQueue,
    /// Starting the child.
    Spawn,
    /// The child itself: from its start until its end is seen.
    Run,
    /// From the child's end until its last pipe is at its end.
    Drain,
    /// Serving a request that starts nothing.
    Handler,
    /// Waiting for the `TerminalDelivery`.
    DeliveryMailbox,
    /// Ordering and handing on the terminal event, or an answer.
    Delivery,
    /// From there until the caller's thread has it.
    Consume,
}

/// How many kinds of segment there are.
pub const SEGMENTS: usize = 26;

impl Segment {
    /// All of them, in the order in which most calls pass them.
    pub const ALL: [Self; SEGMENTS] = [
        Self::Submit,
        Self::Receive,
        Self::Open,
        Self::Decode,
        Self::HandOff,
        Self::RpcMailbox,
        Self::Admission,
        Self::DispatcherMailbox,
        Self::Dispatch,
        Self::SupervisorMailbox,
        Self::ProcessMailbox,
        Self::FramerMailbox,
        Self::Serialize,
        Self::Queue,
        Self::Seal,
        Self::Write,
        Self::Outage,
        Self::Remote,
        Self::SpawnQueue,
        Self::Spawn,
        Self::Run,
        Self::Drain,
        Self::Handler,
        Self::DeliveryMailbox,
        Self::Delivery,
        Self::Consume,
    ];

    /// The segment's name, as attributes and tables show it. Those of mailboxes begin with `mailbox.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Receive => "receive",
            Self::Open => "open",
            Self::Decode => "decode",
            Self::HandOff => "hand_off",
            Self::RpcMailbox => "mailbox.rpc",
            Self::Admission => "admission",
            Self::DispatcherMailbox => "mailbox.dispatcher",
            Self::Dispatch => "dispatch",
            Self::SupervisorMailbox => "mailbox.supervisor",
            Self::ProcessMailbox => "mailbox.process",
            Self::FramerMailbox => "mailbox.framer",
            Self::Serialize => "serialize",
            Self::Queue => "queue",
            Self::Seal => "seal",
            Self::Write => "write",
            Self::Outage => "outage",
            Self::Remote => "remote",
            Self::SpawnQueue => "spawn_queue",
            Self::Spawn => "spawn",
            Self::Run => "run",
            Self::Drain => "drain",
            Self::Handler => "handler",
            Self::DeliveryMailbox => "mailbox.delivery",
            Self::Delivery => "delivery",
            Self::Consume => "consume",
        }
    }
}

/// What each segment took, in whole microseconds that add up to the whole chain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Micros([u64; SEGMENTS]);

impl Micros {
    /// One segment.
    pub fn of(&self, segment: Segment) -> u64 {
        self.0[segment as usize]
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The segments that a call's span names, `chain.<machine>.<segment>_us`: machine, segment, microseconds.
pub(crate) fn chain_segments(span: &Span) -> impl Iterator<Item = (&str, &str, i64)> {
    span.attributes.iter().filter_map(|(key, value)| {
        let Value::I64(us) = value else { return None };
        let name = key.strip_prefix("chain.")?.strip_suffix("_us")?;
        let (machine, segment) = name.split_once('.')?;
        Some((machine, segment, *us))
    })
}

/// The chain so far: where it began, where it stands, and what each segment took.
#[derive(Clone, Debug)]
pub struct Account {
    first: Tick,
    last: Tick,
    ticks: [u64; SEGMENTS],
    relay_us: u32,
}

impl Account {
    /// A chain that begins at `first`.
    pub fn begin(first: Tick) -> Self {
        Self {
            first,
            last: first,
            ticks: [0; SEGMENTS],
            relay_us: 0,
        }
    }

    /// Notes how long a relay kept the request, by its word: before the first stamp, and so beside the chain.
    #[must_use]
    pub fn behind_relay(mut self, relay_us: u32) -> Self {
        self.relay_us = relay_us;
        self
    }

    /// Gives the stretch from the last stamp to `now` to `segment`. A stamp before the last one takes nothing and
    /// moves nothing: counters of two cores may differ by a few ticks.
    pub fn lap(&mut self, segment: Segment, now: Tick) {
        self.ticks[segment as usize] += now.ticks_since(self.last);
        self.last = self.last.max(now);
    }

    /// Every segment in microseconds. Each is off by less than one, and their sum is the chain's length without loss:
    /// what is cut off one is given to the next.
    pub fn micros(&self) -> Micros {
        self.micros_at(Scale::now())
    }

    fn micros_at(&self, scale: Scale) -> Micros {
        let (mut ticks, mut before) = (0_u64, 0);
        Micros(self.ticks.map(|own| {
            ticks += own;
            let until = scale.nanos(ticks) / 1_000;
            let own = until - before;
            before = until;
            own
        }))
    }

    /// From the first stamp to the last, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.last.nanos_since(self.first)
    }

    /// The executor's account of a call as it travels in a response. In one of a harness everything but the executor's
    /// segments would be missing.
    pub fn timings(&self) -> Timings {
        let micros = self.micros();
        let of = |segment| micros.of(segment);
        let (open, decode) = (of(Segment::Open), of(Segment::Decode));
        let hand_off = of(Segment::HandOff);
        let mailboxes = [
            of(Segment::RpcMailbox),
            of(Segment::DispatcherMailbox),
            of(Segment::SupervisorMailbox),
            of(Segment::ProcessMailbox),
            of(Segment::DeliveryMailbox),
        ];
        Timings {
            receive: of(Segment::Receive) + open + decode + hand_off,
            open,
            decode,
            hand_off,
            mailbox: mailboxes.iter().sum(),
            rpc_mailbox: mailboxes[0],
            dispatcher_mailbox: mailboxes[1],
            supervisor_mailbox: mailboxes[2],
            process_mailbox: mailboxes[3],
            delivery_mailbox: mailboxes[4],
            admission: of(Segment::Admission),
            dispatch: of(Segment::Dispatch),
            spawn_queue: of(Segment::SpawnQueue),
            spawn: of(Segment::Spawn),
            first_byte: 0,
            run: of(Segment::Run),
            drain: of(Segment::Drain),
            handler: of(Segment::Handler),
            delivery: of(Segment::Delivery),
            relay: u64::from(self.relay_us),
            total: micros.sum(),
        }
    }

    /// The last stamp.
    pub fn last(&self) -> Tick {
        self.last
    }

    /// The first stamp.
    pub fn first(&self) -> Tick {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segments_add_up_to_the_chain_whatever_the_order_of_stamps() {
        let mut account = Account::begin(Tick::from_raw(1_000));
        let stamps = [1_500, 1_400, 9_000, 9_000, 20_000];
        for (index, raw) in stamps.into_iter().enumerate() {
            account.lap(Segment::ALL[index % SEGMENTS], Tick::from_raw(raw));
        }
        assert_eq!(account.ticks.iter().sum::<u64>(), 19_000);
        assert_eq!(account.last(), Tick::from_raw(20_000));
    }

    #[test]
    fn the_index_of_every_segment_is_its_place() {
        assert!(
            Segment::ALL
                .iter()
                .enumerate()
                .all(|(index, segment)| *segment as usize == index)
        );
    }

    #[test]
    fn no_two_segments_have_one_name() {
        let names: std::collections::BTreeSet<_> =
            Segment::ALL.iter().map(|segment| segment.name()).collect();
        assert_eq!(names.len(), SEGMENTS);
    }

    proptest! {
        #[test]
        fn whole_microseconds_lose_nothing_of_the_chain(laps in vec((0..SEGMENTS, 0_u64..100_000_000), 0..60)) {
            let mut account = Account::begin(Tick::from_raw(5));
            let mut at = 5;
            for (segment, ticks) in laps {
                at += ticks;
                account.lap(Segment::ALL[segment], Tick::from_raw(at));
            }
            let scale = Scale::now();
            let micros = account.micros_at(scale);
            prop_assert_eq!(micros.sum(), scale.nanos(at - 5) / 1_000);
            for segment in Segment::ALL {
                let exact = scale.nanos(account.ticks[segment as usize]) as f64 / 1_000.0;
                prop_assert!((micros.of(segment) as f64 - exact).abs() <= 1.01, "{segment:?}");
            }
            // The rate may have changed since: once it was another for each segment, and they went below nothing.
            let timings = account.timings();
            prop_assert!(timings.named_sum() <= timings.total);
        }
    }
}
