//! `dwell trace export`: a call for another tool.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use dwell_actors::trace_export;
use serde_json::json;

use super::{Export, which};
use crate::cli::failure::Failure;
use crate::cli::output;

pub(super) fn export(dir: &Path, ask: &Export, json: bool) -> Result<u8, Failure> {
    let trace = which::find(dir, &ask.one)?;
    let text = trace_export::export(&trace, ask.format.format());
    let Some(path) = &ask.output else {
        output::print(&text);
        return Ok(0);
    };
    write(path, &text).map_err(|error| {
        Failure::because("export", &format!("{} cannot be written", path.display()), &error)
    })?;
    if json {
        output::print_json(&json!({
            "trace_id": trace.trace_id.to_string(),
            "path": path.display().to_string(),
            "bytes": text.len(),
        }));
    } else {
        output::note(&format!("wrote trace {} to {}", trace.trace_id, path.display()));
    }
    Ok(0)
}

/// Private when it is new, as the trace files are; a file that is there keeps its mode.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
