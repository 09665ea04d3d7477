//! What a relay's core has under way, as it is shown.

use std::time::Instant;

use dwell_relay::Rendezvous;
use dwell_relay::rendezvous::{
    ConnectionFault, DropReason, FlowCensus, RegistrationFailure, StreamCensus, Unavailability,
};

use crate::in_flight::view::{FlowView, ROWS_MAX, RelayView, StreamView};

pub(super) fn of(core: &Rendezvous, now: Instant) -> RelayView {
    let (census, dropped, refused) = (core.census(), core.dropped(), core.refused());
    let streams = Unavailability::ALL
        .iter()
        .map(|why| (snake(why), refused.streams(*why)));
    let registrations = RegistrationFailure::ALL
        .iter()
        .map(|why| (snake(why), refused.registrations(*why)));
    let connections = ConnectionFault::ALL
        .iter()
        .map(|why| (snake(why), refused.connections(*why)));
    RelayView {
        as_of_us: 0,
        connections: census.connections as u64,
        openings: census.openings as u64,
        executors: census.executors as u64,
        streams: core.streams(now, ROWS_MAX).iter().map(stream).collect(),
        streams_total: census.streams as u64,
        dropped: DropReason::ALL
            .iter()
            .map(|why| (snake(why), dropped.of(*why)))
            .collect(),
        refused: streams.chain(registrations).chain(connections).collect(),
    }
}

fn stream(stream: &StreamCensus) -> StreamView {
    StreamView {
        stream: stream.stream.0[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        half_open: stream.half_open,
        up: flow(&stream.up),
        down: flow(&stream.down),
    }
}

fn flow(flow: &FlowCensus) -> FlowView {
    FlowView {
        queued_frames: flow.queued as u64,
        queued_us: u64::try_from(flow.waited.as_micros()).unwrap_or(u64::MAX),
        bytes: flow.bytes,
        window_left_bytes: flow.window_left,
    }
}

/// A reason's name as labels have it: of a fixed set, since reasons are enums without fields.
fn snake(reason: &impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for letter in format!("{reason:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_names_in_lower_case() {
        assert_eq!(snake(&DropReason::UnknownStream), "unknown_stream");
    }
}
