//! Control groups: one per keeper, where version 2 is mounted and may be written, and the count of memory kills.
//!
//! The keeper stays outside and its commands are born inside, so nothing is ever moved: moving a process waits for every
//! processor of the machine. `cgroup.kill` ends all members in one step, also those that multiply faster than anybody
//! can look.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Where version 2 may be mounted, alone or beside version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The beginning of our groups' names.
const PREFIX: &str = "dwell-";

/// The group of one guard, in which its keepers' are.
#[derive(Debug)]
pub(super) struct CgroupParent {
    path: PathBuf,
    made: u32,
}

/// The group of one keeper's commands.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl CgroupParent {
    /// A group below this process's own, if the kernel lets us and knows how to kill one.
    pub(super) fn new() -> Option<Self> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let root = ROOTS
            .iter()
            .find(|root| Path::new(root).join("cgroup.procs").exists())?;
        let base = Path::new(root).join(own);
        sweep(&base);
        let path = base.join(format!("{PREFIX}{}", unique()?));
        std::fs::create_dir(&path).ok()?;
        let this = Self { path, made: 0 };
        this.path.join("cgroup.kill").exists().then_some(this)
    }

    /// One more group.
    pub(super) fn child(&mut self) -> Option<Cgroup> {
        self.made = self.made.wrapping_add(1);
        let path = self.path.join(format!("keeper-{}", self.made));
        std::fs::create_dir(&path).ok()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(directory) => Some(Cgroup { path, directory }),
            Err(_) => {
                let _ = std::fs::remove_dir(&path);
                None
            }
        }
    }
}

impl Drop for CgroupParent {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl Cgroup {
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The same group afresh, now that it is empty. Some kernels kill whoever is born into a group that was ever killed.
    ///
    /// # Errors
    /// When it cannot be made: this one is of no more use.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        std::fs::remove_dir(&self.path)?;
        std::fs::create_dir(&self.path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.directory = rustix::fs::open(&self.path, flags, Mode::empty())?;
        Ok(())
    }

    /// Kills every member at once. What it cannot do the hunt does.
    pub(super) fn kill(&self) {
        let _ = std::fs::write(self.path.join("cgroup.kill"), "1");
    }
}

/// Removes a group and those in it, as far as they are empty.
pub(super) fn remove(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    let _ = std::fs::remove_dir(path);
}

/// Removes the empty groups of guards that were killed. One of a living guard has no members either while nothing runs,
/// so its maker must be gone: the name says who that is.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some((pid, start)) = maker.and_then(|maker| maker.split_once('-')) else {
            continue;
        };
        let is_alive = pid
            .parse()
            .ok()
            .and_then(|pid| crate::spawn::procfs::stat(pid).ok())
            .is_some_and(|stat| stat.start_ticks.to_string() == start);
        if !is_alive {
            remove(&entry.path());
        }
    }
}

/// A name that says who made it.
fn unique() -> Option<String> {
    let pid = super::keeper::own_pid();
    let start = crate::spawn::procfs::stat(pid).ok()?.start_ticks;
    Some(format!("{pid}-{start}"))
}

/// How often the out-of-memory killer struck in the group this process's commands are in.
#[derive(Debug, Default)]
pub(super) struct OomCounter {
    file: Option<PathBuf>,
}

impl OomCounter {
    /// The counter of the commands' own group if it counts memory, else of the one this process is in.
    pub(super) fn of(cgroup: Option<&Cgroup>) -> Self {
        let own = cgroup.map(|cgroup| cgroup.path.join("memory.events"));
        let file = own.filter(|file| file.exists()).or_else(inherited);
        Self { file }
    }

    pub(super) fn read(&self) -> Option<u64> {
        read_counter(self.file.as_ref()?).ok()?
    }
}

fn inherited() -> Option<PathBuf> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let candidates = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        if controllers.split(',').any(|name| name == "memory") {
            return Some(vec![
                Path::new("/sys/fs/cgroup/memory")
                    .join(path)
                    .join("memory.oom_control"),
            ]);
        }
        let events = |root| Path::new(root).join(path).join("memory.events");
        controllers
            .is_empty()
            .then(|| ROOTS.iter().map(events).collect::<Vec<_>>())
    });
    candidates
        .flatten()
        .find(|file| read_counter(file).is_ok_and(|count| count.is_some()))
}

fn read_counter(file: &Path) -> io::Result<Option<u64>> {
    let text = std::fs::read_to_string(file)?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.and_then(|count| count.trim().parse().ok()))
}
