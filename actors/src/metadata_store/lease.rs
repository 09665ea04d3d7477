//! Who may write to a thread: one live process at a time.

use std::sync::OnceLock;

/// A process that writes to a thread: its pid alone would be somebody else's one day.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_ticks: u64,
    /// Which start of the machine that was.
    pub boot: String,
    /// Which of the process's own writers.
    pub writer: u64,
}

impl Holder {
    /// A new writer of this process.
    pub fn of_this_process() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let pid = std::process::id();
        Self {
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            boot: boot().to_owned(),
            writer: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Whether that process still runs. One of another start of the machine does not.
    pub fn is_alive(&self) -> bool {
        self.boot == boot() && start_ticks(self.pid) == Some(self.start_ticks)
    }
}

/// A zombie writes nothing any more.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = crate::spawn::procfs::stat(pid).ok()?;
    (!stat.is_zombie).then_some(stat.start_ticks)
}

fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map(|id| id.trim().to_owned()).unwrap_or_default()
    })
}
