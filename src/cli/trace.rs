//! `dwell trace`: the picture of a run, from the local trace file.

use std::path::Path;

use dwell_actors::trace_file::{Trace as Spans, find_trace, last_trace};
use dwell_actors::waterfall;
use dwell_messages::TraceId;

use super::args::Trace;
use super::failure::Failure;
use super::identity;
use super::output::{self, Surroundings};

pub(crate) fn trace(ask: &Trace, json: bool) -> Result<u8, Failure> {
    let dir = identity::home()?.traces_dir();
    let spans = load(&dir, ask.trace_id)?.ok_or_else(|| missing(&dir, ask.trace_id))?;
    if json {
        output::print_json(&waterfall::to_json(&spans));
    } else {
        let options = Surroundings::of_stdout().options(ask.width.map(usize::from));
        output::print(&waterfall::render(&spans, &options));
    }
    Ok(0)
}

/// The trace of this id in a directory's files, or that of the newest call.
pub(crate) fn load(dir: &Path, trace_id: Option<TraceId>) -> Result<Option<Spans>, Failure> {
    let found = match trace_id {
        Some(trace_id) => find_trace(dir, trace_id),
        None => last_trace(dir),
    };
    found.map_err(|error| Failure::of("trace", &error))
}

fn missing(dir: &Path, trace_id: Option<TraceId>) -> Failure {
    let dir = dir.display();
    match trace_id {
        Some(trace_id) => Failure::new("no_trace", format!("{dir} holds no span of trace {trace_id}"))
            .advise("without an id, `dwell trace` draws the newest call; old traces are rotated away"),
        None => Failure::new("no_trace", format!("{dir} holds no call yet"))
            .advise("run something with `dwell run`, or see one at once with `dwell demo`"),
    }
}
