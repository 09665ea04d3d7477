//! The processes that descend from this one: other executors of this machine are nobody's business here.

use std::collections::BTreeMap;

/// Them by number, and their names; zombies included.
pub(crate) fn descendants() -> BTreeMap<u32, String> {
    let all: Vec<_> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            // One that has gone since is not there.
            let (parent, name) = parent_and_name(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?;
            Some((pid, parent, name))
        })
        .collect();
    let mut found = BTreeMap::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        for (pid, _, name) in all.iter().filter(|(_, of, _)| *of == parent) {
            found.insert(*pid, name.clone());
            parents.push(*pid);
        }
    }
    found
}

/// The name may hold anything, a parenthesis too.
fn parent_and_name(stat: &str) -> Option<(u32, String)> {
    let (name, rest) = stat.rsplit_once(") ")?;
    let (_, name) = name.split_once('(')?;
    Some((rest.split(' ').nth(1)?.parse().ok()?, name.to_owned()))
}
