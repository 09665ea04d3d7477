//! What an environment's own files say: configuration, plugins and skills.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Asks for parts of the configuration files.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadEnvironmentConfig {
    /// For which directory, as URI.
    pub cwd: String,
    /// Which parts of the configuration.
    pub config_paths: Vec<Vec<String>>,
    /// Which parts of what is required of it.
    pub requirements_paths: Vec<Vec<String>>,
}

/// Parts of configuration files.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentConfig {
    /// The user's directory, as URI.
    pub user_home_dir: Option<String>,
    /// Where the configuration is, as URI.
    pub codex_home_dir: Option<String>,
    /// The machine's name; not told.
    pub hostname: Option<String>,
    /// The configuration.
    pub config: ConfigStack,
    /// What is required of it.
    pub requirements: ConfigStack,
}

/// Files on top of each other, the lowest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStack {
    /// They.
    pub layers: Vec<ConfigLayer>,
    /// Where those belong that come from elsewhere.
    pub cloud_insertion_index: u64,
}

/// One file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigLayer {
    /// Which.
    pub source: String,
    /// Where its paths begin, as URI.
    pub base_dir: Option<String>,
    /// What it says.
    pub toml: String,
}

/// Asks what there is below some directories.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct DiscoverRoots {
    /// They.
    pub roots: Vec<Root>,
}

/// A directory to look into.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Root {
    /// What its client calls it.
    pub id: String,
    /// Which, as URI.
    pub path: String,
    /// What confines the look.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// What there is below some directories, in their order.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
pub struct DiscoveredRoots {
    /// They.
    pub roots: Vec<DiscoveredRoot>,
}

/// What there is below one.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveredRoot {
    /// As its client calls it.
    pub id: String,
    /// Which, as URI.
    pub path: String,
    /// The plugin, if it is one.
    pub plugin: Option<Value>,
    /// Skills.
    pub skills: Vec<Value>,
    /// Manifests of namespaces.
    pub namespace_manifests: Vec<Value>,
    /// What was odd.
    pub warnings: Vec<String>,
    /// Why nothing was found.
    pub error: Option<String>,
}

/// Asks what there is for a directory.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct DiscoverCapabilities {
    /// Which, as URI.
    pub cwd: String,
    /// What confines the look.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// What there is for a directory.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
pub struct DiscoveredCapabilities {
    /// Plugins.
    pub plugins: Vec<Value>,
    /// Skills.
    pub skills: Vec<Value>,
    /// What was odd.
    pub warnings: Vec<String>,
}
