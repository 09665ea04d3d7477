//! `dwell version`.

use serde_json::json;

use super::failure::Failure;
use super::output;

pub(crate) fn version(json: bool) -> Result<u8, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        output::print_json(&json!({ "name": "dwell", "version": version }));
    } else {
        output::print(&format!("dwell {version}\n"));
    }
    Ok(0)
}
