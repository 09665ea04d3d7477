//! Which trace is meant, and what there is of it.

use std::path::Path;

use dwell_actors::trace_file::{Named, Trace, TracePrefix, find_trace, last_trace};
use dwell_messages::TraceId;

use super::One;
use crate::cli::failure::Failure;

/// The trace that was asked for, or that of the newest call.
pub(super) fn find(dir: &Path, one: &One) -> Result<Trace, Failure> {
    let trace_id = match &one.trace_id {
        Some(prefix) => Some(resolve(dir, prefix)?),
        None => None,
    };
    load(dir, trace_id)?.ok_or_else(|| match &one.trace_id {
        Some(prefix) => missing(dir, prefix),
        None => Failure::new("no_trace", format!("{} holds no call yet", dir.display()))
            .advise("run something with `dwell run`, or see one at once with `dwell demo`"),
    })
}

/// The trace of this id in a directory's files, or that of the newest call.
pub(crate) fn load(dir: &Path, trace_id: Option<TraceId>) -> Result<Option<Trace>, Failure> {
    let found = match trace_id {
        Some(trace_id) => find_trace(dir, trace_id),
        None => last_trace(dir),
    };
    found.map_err(|error| Failure::of("trace", &error))
}

fn resolve(dir: &Path, prefix: &TracePrefix) -> Result<TraceId, Failure> {
    let named = prefix
        .resolve(dir)
        .map_err(|error| Failure::of("trace", &error))?;
    match named {
        Named::One(trace_id) => Ok(trace_id),
        Named::None => Err(missing(dir, prefix)),
        Named::Ambiguous(ids) => {
            let several = format!("more than one trace begins with {prefix}: give more digits");
            Err(ids
                .iter()
                .fold(Failure::new("ambiguous_trace", several), |failure, id| {
                    failure.advise(id.to_string())
                }))
        }
    }
}

fn missing(dir: &Path, prefix: &TracePrefix) -> Failure {
    let holds = match prefix.whole() {
        Some(id) => format!("{} holds no span of trace {id}", dir.display()),
        None => format!("{} holds no trace that begins with {prefix}", dir.display()),
    };
    Failure::new("no_trace", holds)
        .advise("what there is: `dwell trace list`; old traces are rotated away")
        .advise("without an id, `dwell trace` draws the newest call")
}
