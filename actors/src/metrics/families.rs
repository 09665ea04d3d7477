//! Every metric there is, and every label. A test compares what real work produces with these lists.

use crate::telemetry::semconv;

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// Its name in OpenTelemetry. Prometheus has underscores for dots, the unit behind it, and `_total` behind a counter.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit: `s`, `By`, or a noun in braces.
    pub unit: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

/// Every label.
pub const LABELS: &[&str] = &[
    "actor",
    "at",
    "direction",
    "error_type",
    "kind",
    "message",
    "outcome",
    "reason",
    "rpc_method",
    "state",
    "what",
];

macro_rules! families {
    ($($name:ident = $text:expr, $kind:ident, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub(crate) const $name: Family = Family {
            name: $text,
            kind: Kind::$kind,
            unit: $unit,
            help: $help,
            labels: &[$($label),*],
        };)*
        /// Every metric.
        pub const FAMILIES: &[Family] = &[$($name),*];
    };
}

families! {
    RESIDENCE = "dwell.mailbox.residence", Histogram, "s", ["actor", "message"], "Time from a message's enqueue to its dequeue, of sampled calls.";
    TURN = "dwell.turn.duration", Histogram, "s", ["actor", "message"], "Time that an actor took to handle a message, of sampled calls.";
    DEPTH = semconv::MAILBOX_DEPTH, Gauge, "{message}", ["actor"], "Messages that wait, are handled, or whose effects have not left.";
    PERMITS = "dwell.mailbox.permits", Gauge, "{permit}", ["actor"], "Places in mailboxes that are taken, reserved ones included.";
    OLDEST = "dwell.mailbox.oldest_age", Gauge, "s", ["actor"], "Age of the message that is handled, the oldest of all mailboxes of the actor.";
    ARBITER_LAG = "dwell.arbiter.lag", Gauge, "s", [], "How long a task waits until its actor thread runs it, the longest of all threads.";
    RPC_CLIENT = semconv::RPC_CLIENT_DURATION, Histogram, "s", ["rpc_method", "error_type"], "Duration of outbound requests.";
    RPC_SERVER = semconv::RPC_SERVER_DURATION, Histogram, "s", ["rpc_method", "error_type"], "Duration of inbound requests.";
    DISPATCH = "dwell.dispatch.duration", Histogram, "s", ["kind", "at"], "Time of commands: waiting for a link, for their turn, until begun, and from then until their end.";
    DISPATCHES = "dwell.dispatches", Counter, "{call}", ["kind", "outcome"], "Commands that are over, by what came of them.";
    CALLS = "dwell.calls", Gauge, "{call}", ["kind", "at"], "Calls under way, by where they are.";
    PROCESSES = "dwell.processes", Gauge, "{process}", ["state"], "Processes under way.";
    SESSIONS = "dwell.sessions", Gauge, "{session}", [], "Sessions, those included whose client is away.";
    LINKS = "dwell.links", Gauge, "{link}", ["kind"], "Links and registrations that are up.";
    IO = "dwell.network.io", Counter, "By", ["direction"], "Bytes read from and written to connections.";
    RESUMPTIONS = "dwell.link.resumptions", Counter, "{link}", [], "Links with which a session went on.";
    REPLAYED = "dwell.link.replayed", Counter, "{message}", [], "Messages that were sent again over a fresh link.";
    SPANS = "dwell.telemetry.spans", Counter, "{span}", [], "Spans made.";
    TELEMETRY_DROPPED = "dwell.telemetry.dropped", Counter, "{span}", ["reason"], "Spans that are missing, by where they found no room.";
    MODEL_EVENTS = "dwell.model.events", Counter, "{event}", ["kind"], "Events of models' responses.";
    MODEL_REQUESTS = "dwell.model.requests", Counter, "{request}", ["outcome"], "Requests to models that are over.";
    RELAY_CONNECTIONS = "dwell.relay.connections", Gauge, "{connection}", ["state"], "Connections of a relay.";
    RELAY_EXECUTORS = "dwell.relay.executors", Gauge, "{executor}", [], "Executors registered.";
    RELAY_STREAMS = "dwell.relay.streams", Gauge, "{stream}", [], "Streams that are paired.";
    RELAY_DROPPED = "dwell.relay.dropped", Counter, "{frame}", ["reason"], "Frames dropped by a relay.";
    RELAY_REFUSED = "dwell.relay.refused", Counter, "{connection}", ["reason"], "Streams, registrations and connections turned away by a relay.";
    HANDSHAKES = "dwell.handshakes", Counter, "{handshake}", ["outcome"], "First messages of strangers, by what became of them.";
    STUCK = "dwell.stuck", Gauge, "{place}", ["what"], "Places that have not moved for too long.";
    WARNINGS = "dwell.watchdog.warnings", Counter, "{warning}", [], "Warnings of the watchdog.";
    UPTIME = "dwell.uptime", Gauge, "s", [], "How long the role has been there.";
    READY = "dwell.ready", Gauge, "1", [], "Whether the role serves.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_listed_once_and_no_name_is_used_twice() {
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
        assert!(LABELS.is_sorted());
        for label in FAMILIES.iter().flat_map(|family| family.labels) {
            assert!(LABELS.contains(label), "{label}");
        }
    }
}
