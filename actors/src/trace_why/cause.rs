//! What a stretch of a call can be put down to.

/// What a call's time went into. Machines are `harness` and `executor`, or whatever the trace says, made printable.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// A message waited in an actor's mailbox, or in a queue between actors.
    Mailbox {
        /// On which machine.
        machine: String,
        /// The actor whose mailbox held one longest; `None` when the trace has no such span.
        actor: Option<String>,
    },
    /// Deciding whether a request is served, and waiting for the window.
    Admission {
        /// On which machine.
        machine: String,
    },
    /// Choosing who serves it: readiness, the lock, the environment.
    Dispatch {
        /// On which machine.
        machine: String,
    },
    /// Waiting for the thread that spawns.
    SpawnQueue,
    /// Starting the child.
    Spawn,
    /// The command itself.
    Command {
        /// How long its output had no room because nobody took it, in microseconds; part of the time.
        blocked_us: u64,
    },
    /// A process still held a pipe after the command had ended.
    HeldPipe {
        /// The stream whose pipe ended last, or both when they ended together, as far as is known.
        stream: Option<&'static str>,
        /// Whether it was given up when the grace was over.
        given_up: bool,
    },
    /// Writing to a disk, or waiting for one.
    Disk {
        /// The span or the part that took longest.
        what: String,
        /// Whether it happened beside the call, which did not wait for it.
        beside: bool,
    },
    /// Records stayed in the relay. The relay's own word.
    Relay,
    /// The way there and back, as long as the link's own round trip.
    Distance,
    /// The way there and back beyond the link's own round trip.
    Transit {
        /// Whether a relay was on the way.
        relayed: bool,
    },
    /// Encoding, sealing and writing, waiting for the writer in front.
    Sending {
        /// On which machine.
        machine: String,
        /// The segment's name.
        segment: String,
    },
    /// Reading, opening and decoding.
    Receiving {
        /// On which machine.
        machine: String,
        /// The segment's name.
        segment: String,
    },
    /// Putting the answer in order and handing it on.
    Delivery {
        /// On which machine.
        machine: String,
    },
    /// From the caller's thread to the library's.
    HandOff,
    /// The link had died, and the request was sent again.
    Outage,
    /// Serving a request that starts nothing.
    Handler {
        /// On which machine.
        machine: String,
    },
    /// What no segment of a machine claims.
    Unattributed {
        /// On which machine.
        machine: String,
    },
    /// A segment that this version does not know.
    Segment {
        /// On which machine.
        machine: String,
        /// Its name.
        segment: String,
    },
    /// A span of the critical path: the call has no account, because it failed.
    Span {
        /// On which machine.
        machine: String,
        /// Its name.
        name: String,
    },
}

impl Cause {
    /// One word of a small set, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mailbox { .. } => "mailbox",
            Self::Admission { .. } => "admission",
            Self::Dispatch { .. } => "dispatch",
            Self::SpawnQueue => "spawn_queue",
            Self::Spawn => "spawn",
            Self::Command { .. } => "command",
            Self::HeldPipe { .. } => "held_pipe",
            Self::Disk { .. } => "disk",
            Self::Relay => "relay",
            Self::Distance => "distance",
            Self::Transit { .. } => "transit",
            Self::Sending { .. } => "sending",
            Self::Receiving { .. } => "receiving",
            Self::Delivery { .. } => "delivery",
            Self::HandOff => "hand_off",
            Self::Outage => "outage",
            Self::Handler { .. } => "handler",
            Self::Unattributed { .. } => "unattributed",
            Self::Segment { .. } => "segment",
            Self::Span { .. } => "span",
        }
    }

    /// Whether the caller did not wait for it.
    pub fn is_beside(&self) -> bool {
        matches!(self, Self::Disk { beside: true, .. })
    }
}

/// One cause and how much of the call it took.
#[derive(Clone, PartialEq, Debug)]
pub struct Reason {
    /// What it was.
    pub cause: Cause,
    /// How long it took in this call, in microseconds.
    pub us: u64,
    /// How long it usually takes, in microseconds; `None` without a usual.
    pub usual_us: Option<u64>,
    /// Whether it is out of the ordinary: see [`super::UNUSUAL_MIN_US`].
    pub unusual: bool,
    /// Its share of the call, in per cent; of work beside the call what it would be.
    pub share_percent: f64,
}

impl Reason {
    /// What it took beyond its usual, in microseconds; zero without a usual.
    pub fn excess_us(&self) -> u64 {
        self.usual_us.map_or(0, |usual| self.us.saturating_sub(usual))
    }
}

/// By what the reasons are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ranked {
    /// By what exceeds the usual; what does not stands behind, by share.
    ByExcess,
    /// By share, since nothing is out of the ordinary.
    NothingUnusual,
    /// By share, since there is no usual yet.
    NoUsual,
}
