//! What a command may reach when it is confined.
//!
//! An executor that does not know a member refuses the whole: what is not understood is not enforced.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Paths of one `Confinement`.
pub const CONFINED_PATHS_MAX: usize = 256;

/// What a command may reach, and every process it starts. What is not said is out of reach.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// Whether it may reach the network, and whoever listens on a local socket.
    #[serde(default)]
    pub network: bool,
    /// What it may do with files: of all paths that lead to one, the longest decides. At most `CONFINED_PATHS_MAX`.
    pub paths: Vec<ConfinedPath>,
}

/// What may be done with a file or a directory, and with all below it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfinedPath {
    /// Which, absolute.
    pub path: ByteBuf,
    /// What.
    pub access: Reach,
    /// Whether nothing is wrong where there is no such path. What may be written may always be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What may be done with files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reach {
    /// They may be read and executed.
    #[serde(rename = "r")]
    Read,
    /// They may be changed as well.
    #[serde(rename = "w")]
    Write,
}
