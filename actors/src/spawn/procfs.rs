//! The few fields of `/proc` that this module reads.

use std::io;

/// One process of a group, as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its process id.
    pub pid: u32,
    /// Its session id.
    pub session: u32,
    /// When it started, in clock ticks since the machine did; with `pid`, its identity.
    pub start_ticks: u64,
    /// Whether it is dead and not reaped.
    pub is_zombie: bool,
}

/// What one `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub(super) group: u32,
    pub(super) session: u32,
    pub(super) start_ticks: u64,
    pub(super) is_zombie: bool,
}

/// The processes of a group, dead ones that nobody reaped included, in no order. A process that ends while this
/// looks may or may not be in it.
///
/// Reads all of `/proc`, some 15 µs per process of the machine: not for an arbiter's thread.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn members(group: u32) -> io::Result<Vec<Member>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ended since the listing is no member.
        let Ok(stat) = stat(pid) else { continue };
        if stat.group == group {
            let Stat {
                session,
                start_ticks,
                is_zombie,
                ..
            } = stat;
            found.push(Member {
                pid,
                session,
                start_ticks,
                is_zombie,
            });
        }
    }
    Ok(found)
}

/// # Errors
/// When there is no such process, or the kernel's line is not as documented.
pub(super) fn stat(pid: u32) -> io::Result<Stat> {
    let line = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&line)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable line in /proc/PID/stat"))
}

/// The name in the second field may hold anything, blanks and parentheses too, so the rest is counted from the last
/// closing one.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(line.get(after_name..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Fields are numbered from 1 in proc(5), and the state, the first here, is the third there.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        is_zombie: matches!(field(3)?, "Z" | "X"),
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
    })
}
