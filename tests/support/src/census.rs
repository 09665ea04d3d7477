//! What this process holds: descriptors, children, threads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// `O_CLOEXEC` as `/proc/self/fdinfo` shows it.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// What this process held at one moment. Other threads' doings are in it too, so a test that compares two must be the
/// only one running in its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Open descriptors and what each is.
    pub fds: BTreeMap<u32, String>,
    /// Children, dead ones that were not reaped included, and their states (`Z` is a zombie).
    pub children: BTreeMap<u32, char>,
    /// Threads and their names.
    pub threads: BTreeMap<u32, String>,
}

/// What one census has and an earlier one had not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leak {
    /// Descriptors and what each is.
    pub fds: Vec<(u32, String)>,
    /// Children and their states.
    pub children: Vec<(u32, char)>,
    /// Threads and their names.
    pub threads: Vec<(u32, String)>,
}

impl Census {
    /// Counts now.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            fds: fds()?,
            children: children()?,
            threads: threads()?,
        })
    }

    /// What is here now and was not there `before`.
    #[must_use]
    pub fn leak_since(&self, before: &Self) -> Leak {
        Leak {
            fds: added(&before.fds, &self.fds),
            children: added(&before.children, &self.children),
            threads: added(&before.threads, &self.threads),
        }
    }

    /// The children that are dead and not reaped.
    #[must_use]
    pub fn zombies(&self) -> Vec<u32> {
        self.children
            .iter()
            .filter(|(_, state)| **state == 'Z')
            .map(|(pid, _)| *pid)
            .collect()
    }
}

impl Leak {
    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fds.is_empty() && self.children.is_empty() && self.threads.is_empty()
    }
}

/// The descriptors that a program executed by this process would keep: those not closed on exec. Rust opens none such,
/// so what is here besides 0, 1 and 2 was inherited from whoever started us.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn inheritable_fds() -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for (fd, path) in numbered("/proc/self/fdinfo")? {
        // One that was closed since is not there.
        let Ok(info) = std::fs::read_to_string(path) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
            .unwrap_or_default();
        if flags & CLOSE_ON_EXEC == 0 {
            found.insert(fd);
        }
    }
    Ok(found)
}

fn added<V: Clone + PartialEq>(before: &BTreeMap<u32, V>, after: &BTreeMap<u32, V>) -> Vec<(u32, V)> {
    after
        .iter()
        .filter(|(key, _)| !before.contains_key(key))
        .map(|(key, value)| (*key, value.clone()))
        .collect()
}

fn fds() -> io::Result<BTreeMap<u32, String>> {
    // The listing's own descriptor points here.
    let own = format!("/proc/{}/fd", std::process::id());
    let mut found = BTreeMap::new();
    for (fd, path) in numbered("/proc/self/fd")? {
        // One that was closed since is not there.
        let Ok(target) = std::fs::read_link(path) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        if target != own {
            found.insert(fd, target);
        }
    }
    Ok(found)
}

/// Whoever descends from this process, by number, and its name: dead ones that were not reaped included, and those of the
/// machine's other executors not.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn descendants() -> io::Result<BTreeMap<u32, String>> {
    let all = processes()?;
    let mut found = BTreeMap::new();
    let mut parents = vec![std::process::id()];
    while let Some(of) = parents.pop() {
        for (pid, _, _) in all.iter().filter(|(_, _, parent)| *parent == of) {
            parents.push(*pid);
            // One that has gone since has no name any more.
            if let Ok(name) = std::fs::read_to_string(format!("/proc/{pid}/comm")) {
                found.insert(*pid, name.trim_end().to_owned());
            }
        }
    }
    Ok(found)
}

fn children() -> io::Result<BTreeMap<u32, char>> {
    let own = std::process::id();
    let all = processes()?.into_iter();
    Ok(all
        .filter(|(_, _, parent)| *parent == own)
        .map(|(pid, state, _)| (pid, state))
        .collect())
}

/// All of the machine: number, state, parent.
fn processes() -> io::Result<Vec<(u32, char, u32)>> {
    let all = numbered("/proc")?.into_iter();
    Ok(all
        .filter_map(|(pid, path)| {
            let (state, parent) = parse_stat(&std::fs::read(path.join("stat")).ok()?)?;
            Some((pid, state, parent))
        })
        .collect())
}

fn threads() -> io::Result<BTreeMap<u32, String>> {
    let names = numbered("/proc/self/task")?
        .into_iter()
        .filter_map(|(tid, path)| Some((tid, std::fs::read_to_string(path.join("comm")).ok()?)));
    Ok(names
        .map(|(tid, name)| (tid, name.trim_end().to_owned()))
        .collect())
}

fn numbered(directory: &str) -> io::Result<Vec<(u32, std::path::PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    Ok(found)
}

/// State and parent; the name before them may hold anything.
fn parse_stat(line: &[u8]) -> Option<(char, u32)> {
    let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(line.get(after_name..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
