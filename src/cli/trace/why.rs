//! `dwell trace why`: the reasons.

use std::path::Path;

use dwell_actors::trace_why::{self, Baseline, explain};

use super::{One, which};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Surroundings};

pub(super) fn why(dir: &Path, ask: &One, json: bool) -> Result<u8, Failure> {
    let trace = which::find(dir, ask)?;
    let baseline = Baseline::load(dir, &trace).map_err(|error| Failure::of("trace", &error))?;
    let explanation = explain(&trace, &baseline);
    if json {
        output::print_json(&trace_why::to_json(&explanation));
    } else {
        let options = Surroundings::of_stdout().options(None);
        output::print(&trace_why::render(&explanation, options.ascii));
    }
    Ok(0)
}
