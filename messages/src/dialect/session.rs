//! Beginning a session, and what an environment is.

use serde::{Deserialize, Serialize};

/// Begins a session, or takes one up.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Initialize {
    /// Who asks; any text.
    pub client_name: String,
    /// The session to take up. An empty one counts as none.
    #[serde(default)]
    pub resume_session_id: Option<String>,
}

/// The session.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Initialized {
    /// What it is taken up with when its connection is lost.
    pub session_id: String,
    /// What the environment is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_info: Option<EnvironmentInfo>,
}

/// The shell that commands are given to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
pub struct ShellInfo {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: String,
}

/// What an environment is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentInfo {
    /// The shell.
    pub shell: ShellInfo,
    /// Whose release.
    #[serde(default)]
    pub executor_version: String,
    /// The machine, the same as long as it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The executor's own directory, as URI.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The user's, as URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_home_dir: Option<String>,
    /// The operating system, as Rust names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_os: Option<String>,
    /// Directories that are to stand first in `PATH`, as URIs.
    #[serde(default)]
    pub prepend_path_dirs: Vec<String>,
    /// What `TMPDIR` says, as URIs.
    #[serde(default)]
    pub temporary_directories: Vec<String>,
    /// Where temporary files go, as URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<String>,
    /// What it can beside that.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// Abilities that a client asks for before it uses them. What is not here is false.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// `fs/watchMissing`.
    pub fs_watch_missing: bool,
    /// `environmentConfig/read`.
    pub environment_config_read: bool,
    /// `capabilities/discoverV2`.
    pub capability_discovery_v2: bool,
    /// Headers of `http/request` that take their value from the environment.
    pub http_header_env_vars: bool,
    /// Blocks of files that are written.
    pub file_write_streaming: bool,
}

/// Whether it is ready.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct EnvironmentStatus {
    /// `ready`.
    pub status: String,
}

/// What a command inherits of the executor's own variables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InheritName {
    /// Everything.
    All,
    /// A few that are harmless.
    Core,
    /// Nothing.
    None,
}
