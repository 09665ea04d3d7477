//! Finding everything a test started, however far it got from its parent.

use std::io;

/// The variable that marks a test's processes.
const MARK_NAME: &str = "DWELL_TEST_MARK";

/// A mark in the environment, which children inherit: it finds daemons too, that left their group, their session and
/// their parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    value: String,
}

/// A living process with the mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedProcess {
    /// Its process id.
    pub pid: u32,
    /// Its parent's process id.
    pub parent: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
}

impl Marker {
    /// A mark that nobody else has.
    ///
    /// # Errors
    /// When the kernel gives no random number.
    pub fn new() -> io::Result<Self> {
        let value = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?
            .trim_end()
            .to_owned();
        Ok(Self { value })
    }

    /// The variable to set for the first process.
    #[must_use]
    pub fn pair(&self) -> (&'static str, &str) {
        (MARK_NAME, &self.value)
    }

    /// The processes that have the mark and live, sorted by id. A dead one has no environment any more and is not
    /// among them; nor is one that cleared its environment when it executed something.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn living(&self) -> io::Result<Vec<MarkedProcess>> {
        let mark = format!("{MARK_NAME}={}", self.value).into_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let is_marked = std::fs::read(entry.path().join("environ"))
                .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|pair| pair == mark));
            if is_marked && let Some(process) = describe(pid) {
                found.push(process);
            }
        }
        found.sort_by_key(|process: &MarkedProcess| process.pid);
        Ok(found)
    }
}

fn describe(pid: u32) -> Option<MarkedProcess> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    };
    Some(MarkedProcess {
        pid,
        parent: field("PPid")?.parse().ok()?,
        name: field("Name")?,
    })
}
