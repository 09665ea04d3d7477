//! Configuration, plugins and skills: what an environment without any says. A client that is not told of these abilities
//! does not ask.

use dwell_messages::dialect::{
    DiscoverRoots, DiscoveredCapabilities, DiscoveredRoot, DiscoveredRoots, EnvironmentConfig, Fault,
    ReadEnvironmentConfig, path_of,
};

/// No layer of configuration.
pub(super) fn config(ask: &ReadEnvironmentConfig) -> Result<EnvironmentConfig, Fault> {
    path_of(&ask.cwd)?;
    let mut paths = ask.config_paths.iter().chain(&ask.requirements_paths).peekable();
    if paths.peek().is_none() {
        return Err(Fault::invalid_params("at least one configuration path is needed"));
    }
    if paths.any(Vec::is_empty) {
        return Err(Fault::invalid_params("a configuration path must not be empty"));
    }
    Ok(EnvironmentConfig::default())
}

/// Nothing below any of them.
pub(super) fn roots(ask: DiscoverRoots) -> DiscoveredRoots {
    let found = |root: dwell_messages::dialect::Root| {
        let error = path_of(&root.path).err().map(|fault| fault.message);
        DiscoveredRoot {
            id: root.id,
            path: root.path,
            error,
            ..DiscoveredRoot::default()
        }
    };
    DiscoveredRoots {
        roots: ask.roots.into_iter().map(found).collect(),
    }
}

/// Nothing.
pub(super) fn capabilities() -> DiscoveredCapabilities {
    DiscoveredCapabilities::default()
}
