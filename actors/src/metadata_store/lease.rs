//! Who may write to a thread: one live process at a time.

use std::sync::OnceLock;

use rustix::io::Errno;

use crate::spawn::procfs::Stat;

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
    /// A new writer of this process. `start_ticks` is 0, which no store leases to, when `/proc` cannot be read.
    pub fn of_this_process() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let pid = std::process::id();
        Self {
            pid,
            start_ticks: crate::spawn::procfs::stat(pid).map_or(0, |stat| stat.start_ticks),
            boot: boot().to_owned(),
            writer: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Whether that process still runs. One of another start of the machine does not, and a zombie writes nothing any
    /// more. One that cannot be looked at, for want of descriptors for example, may well.
    pub fn is_alive(&self) -> bool {
        self.boot == boot() && self.runs(crate::spawn::procfs::stat(self.pid))
    }

    fn runs(&self, looked: std::io::Result<Stat>) -> bool {
        match looked {
            Ok(stat) => !stat.is_zombie && stat.start_ticks == self.start_ticks,
            Err(error) => {
                let gone = [Errno::NOENT, Errno::SRCH].map(|errno| Some(errno.raw_os_error()));
                !gone.contains(&error.raw_os_error())
            }
        }
    }
}

fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map(|id| id.trim().to_owned()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    /// Regression: a process that was out of descriptors took every other one for dead, and its threads over.
    #[test]
    fn only_who_is_seen_to_be_gone_is_dead() {
        let holder = Holder::of_this_process();
        let stat = crate::spawn::procfs::stat(holder.pid).unwrap();
        assert!(holder.start_ticks > 0 && holder.runs(Ok(stat)));
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::ACCESS,
            Errno::NOMEM,
            Errno::PERM,
        ] {
            assert!(holder.runs(Err(errno.into())), "{errno}");
        }
        assert!(holder.runs(Err(Error::new(ErrorKind::InvalidData, "no line"))));
        for errno in [Errno::NOENT, Errno::SRCH] {
            assert!(!holder.runs(Err(errno.into())), "{errno}");
        }
        let later = Stat {
            start_ticks: stat.start_ticks + 1,
            ..stat
        };
        let zombie = Stat {
            is_zombie: true,
            ..stat
        };
        assert!(!holder.runs(Ok(later)) && !holder.runs(Ok(zombie)));
    }
}
