//! The core's reports as events for the operator: keys as fingerprints, counts beside them, never contents.

use dwell_relay::rendezvous::Report;
use dwell_relay::{Rendezvous, fingerprint};

pub(super) fn log(report: &Report, core: &Rendezvous) {
    match report {
        Report::Registered { conn, executor } => {
            let census = core.census();
            tracing::info!(
                conn = conn.0,
                executor = %fingerprint(executor),
                executors = census.executors,
                connections = census.connections,
                streams = census.streams,
                "an executor registered"
            );
        }
        Report::Superseded { conn, executor } => tracing::info!(
            conn = conn.0,
            executor = %fingerprint(executor),
            executors = core.census().executors,
            "a newer registration took an executor's place"
        ),
        Report::Unregistered { .. }
        | Report::RegistrationRefused { .. }
        | Report::StreamOpened { .. }
        | Report::StreamUnavailable { .. }
        | Report::StreamClosed { .. }
        | Report::ConnectionFault { .. } => {
            if tracing::enabled!(tracing::Level::DEBUG) {
                debug(report, core);
            }
        }
    }
}

fn debug(report: &Report, core: &Rendezvous) {
    let census = core.census();
    let dropped = core.dropped().total();
    match report {
        Report::Unregistered { conn, executor } => tracing::debug!(
            conn = conn.0,
            executor = %fingerprint(executor),
            executors = census.executors,
            "an executor's registration ended"
        ),
        Report::RegistrationRefused { conn, named, why } => tracing::debug!(
            conn = conn.0,
            executor = %fingerprint(named),
            ?why,
            "a registration was refused"
        ),
        Report::StreamOpened {
            harness,
            executor,
            stream,
        } => tracing::debug!(
            conn = harness.0,
            executor = %fingerprint(executor),
            ?stream,
            streams = census.streams,
            "a stream was paired"
        ),
        Report::StreamUnavailable { harness, stream, why } => {
            tracing::debug!(conn = harness.0, ?stream, ?why, "a harness was turned away")
        }
        Report::StreamClosed {
            stream,
            code,
            up,
            down,
        } => tracing::debug!(
            ?stream,
            ?code,
            up_frames = up.frames,
            up_bytes = up.bytes,
            up_residence_us_max = up.residence_us_max,
            down_frames = down.frames,
            down_bytes = down.bytes,
            down_residence_us_max = down.residence_us_max,
            frames_dropped = dropped,
            streams = census.streams,
            "a stream ended"
        ),
        Report::ConnectionFault { conn, fault } => tracing::debug!(
            conn = conn.0,
            ?fault,
            connections = census.connections,
            "a connection was closed by the relay"
        ),
        Report::Registered { .. } | Report::Superseded { .. } => {}
    }
}
