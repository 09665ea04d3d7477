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
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// The foreground group of its terminal, if it has one.
    pub(crate) foreground: Option<u32>,
    pub(crate) start_ticks: u64,
    pub(crate) is_zombie: bool,
    /// Whether a signal or a debugger has stopped it.
    pub(crate) is_stopped: bool,
}

/// The processes of a group, dead ones that nobody reaped included, in no order. A process that ends while this
/// looks may or may not be in it.
///
/// Reads all of `/proc`, some 15 µs per process of the machine: not for an arbiter's thread.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn members(group: u32) -> io::Result<Vec<Member>> {
    std::fs::read_dir("/proc")?;
    let ours = all().into_iter().filter(|(_, stat)| stat.group == group);
    Ok(ours.map(|(pid, stat)| Member::new(pid, &stat)).collect())
}

impl Member {
    pub(crate) fn new(pid: u32, stat: &Stat) -> Self {
        Self {
            pid,
            session: stat.session,
            start_ticks: stat.start_ticks,
            is_zombie: stat.is_zombie,
        }
    }
}

/// Every process of this `/proc`; one that ends meanwhile may be missing. Empty when it cannot be listed.
pub(crate) fn all() -> Vec<(u32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid).ok()?))).collect()
}

/// The process behind a pidfd as this `/proc` numbers it; `None` when it is gone or in a namespace that is not below.
pub(crate) fn pid_behind(pidfd: &std::os::fd::OwnedFd) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

/// # Errors
/// When there is no such process, or the kernel's line is not as documented.
pub(crate) fn stat(pid: u32) -> io::Result<Stat> {
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
        // Where only the first thread has ended, the process lives.
        is_zombie: matches!(field(3)?, "Z" | "X") && field(20)?.parse::<u32>().ok()? <= 1,
        is_stopped: matches!(field(3)?, "T" | "t"),
        parent: field(4)?.parse().ok()?,
        foreground: field(8)?.parse().ok().filter(|group| *group != 0),
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
    })
}
