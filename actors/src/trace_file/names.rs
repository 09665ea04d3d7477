//! Where a role's trace files are.

use std::path::{Path, PathBuf};

use dwell_messages::Role;

/// The roles in the order in which a reader looks for calls: the harness asks, so its file holds whole traces.
pub(super) const ROLES: [Role; 3] = [Role::Harness, Role::Executor, Role::Relay];

/// The file a role appends to.
pub fn current_path(dir: &Path, role: Role) -> PathBuf {
    dir.join(format!("traces-{}.jsonl", role_name(role)))
}

/// The file it appended to before.
pub fn rotated_path(dir: &Path, role: Role) -> PathBuf {
    dir.join(format!("traces-{}.jsonl.1", role_name(role)))
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Harness => "harness",
        Role::Executor => "executor",
        Role::Relay => "relay",
    }
}

pub(super) fn role_from_name(name: &str) -> Option<Role> {
    ROLES.into_iter().find(|role| role_name(*role) == name)
}
