//! `dwell trace show`: the picture.

use std::path::Path;

use dwell_actors::waterfall;

use super::{Show, which};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Surroundings};

pub(super) fn show(dir: &Path, ask: &Show, json: bool) -> Result<u8, Failure> {
    let trace = which::find(dir, &ask.one)?;
    if json {
        output::print_json(&waterfall::to_json(&trace));
    } else {
        let options = Surroundings::of_stdout().options(ask.width.map(usize::from));
        output::print(&waterfall::render(&trace, &options));
    }
    Ok(0)
}
