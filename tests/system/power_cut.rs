//! Power cuts: the file system is shut down under a process that keeps a thread, and mounted again. As root, with
//! `xfsprogs` and `e2fsprogs`.
//!
//! A file system that is shut down loses what was not synced, and nothing else. It does not tear sectors: the tests that
//! cut and flip the ends of the log and of SQLite's do.

use std::path::{Path, PathBuf};
use std::process::Command;

use dwell_actors::metadata_store::ThreadId;
use dwell_testkit::with_own_mounts;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::keeping::{Acks, Mode, begin, command, ended_well, making, verify};

/// A file system in a file, mounted; unmounted when dropped.
pub(crate) struct Mounted {
    place: TempDir,
    options: Vec<String>,
}

pub(crate) fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install it: .ci/run names the package"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}; these tests need root",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Mounted {
    /// A fresh file system, made by this program.
    fn make(mkfs: &str) -> Self {
        let place = TempDir::new().unwrap();
        let image = place.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        tool(mkfs, &["-q", image.to_str().unwrap()]);
        let options = vec!["-o".into(), "loop".into(), image.to_str().unwrap().into()];
        Self::mount(place, options)
    }

    /// A small one in memory, that fills up.
    pub(crate) fn in_memory(size: &str) -> Self {
        let options = ["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"].map(Into::into);
        Self::mount(TempDir::new().unwrap(), options.to_vec())
    }

    fn mount(place: TempDir, options: Vec<String>) -> Self {
        std::fs::create_dir(place.path().join("mount")).unwrap();
        let mounted = Self { place, options };
        mounted.again();
        mounted
    }

    fn again(&self) {
        let path = self.path();
        let mut arguments: Vec<&str> = self.options.iter().map(String::as_str).collect();
        arguments.push(path.to_str().unwrap());
        tool("mount", &arguments);
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.path().join("mount")
    }

    /// From now on nothing reaches its disk, as if the power were gone.
    fn cut(&self) {
        tool("xfs_io", &["-x", "-c", "shutdown", self.path().to_str().unwrap()]);
    }

    /// Ends the file system, and not only its place here: what is mounted next must be read from the image again. Who
    /// still holds it is waited for: a child that another test has just forked has this process's files until it executes
    /// its program.
    fn unmount(&self) {
        let path = self.path();
        wait_until("a file system that nobody uses", || {
            let outcome = rustix::mount::unmount(&path, UnmountFlags::empty());
            if outcome == Err(Errno::BUSY) {
                return false;
            }
            outcome.unwrap();
            true
        });
        let Ok(image) = self.place.path().join("image").canonicalize() else {
            // In memory there is none.
            return;
        };
        wait_until("the file system's end", || !is_attached(&image));
    }
}

/// Whether a loop device still has this image.
fn is_attached(image: &Path) -> bool {
    let devices = std::fs::read_dir("/sys/block").unwrap();
    devices.flatten().any(|device| {
        let backing = std::fs::read_to_string(device.path().join("loop/backing_file"));
        backing.is_ok_and(|backing| Path::new(backing.trim_end()) == image)
    })
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.path()).output());
    }
}

/// When the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// Anywhere, also within a write or a sync. What was acknowledged before it counts.
    Anywhere,
    /// Between two calls of the process, which then goes on, and may acknowledge what was synced and nothing else. All of
    /// it counts. (A sync that is under way while a file system is shut down may report success for what is lost: a bare
    /// program that appends and syncs shows the same. After a real cut nobody would be there to believe it.)
    Between,
}

/// Cuts the power of a process that keeps the thread `id`, or one that it makes, when it has acknowledged so many times.
/// Which thread it was, and what of that counts.
fn cut_after(
    disk: &Mounted,
    mut keeper: Command,
    id: Option<ThreadId>,
    acks: usize,
    moment: Moment,
) -> (ThreadId, u64) {
    let mut child = keeper.spawn().unwrap();
    let mut said = Acks::of(&mut child);
    let id = id.unwrap_or_else(|| said.made());
    let mut acked = said.by_ref().take(acks).max().unwrap();
    let pid = Pid::from_child(&child);
    if moment == Moment::Between {
        kill_process(pid, Signal::STOP).unwrap();
        wait_until_stopped(pid);
    }
    disk.cut();
    if moment == Moment::Between {
        kill_process(pid, Signal::CONT).unwrap();
        acked = said.chain([acked]).max().unwrap();
    }
    child.kill().unwrap();
    ended_well(child);
    disk.unmount();
    disk.again();
    (id, acked)
}

/// Every thread of a process has come out of its call.
fn wait_until_stopped(pid: Pid) {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let is_stopped = || {
        std::fs::read_dir(&tasks).unwrap().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            matches!(state, Some('T') | None)
        })
    };
    wait_until("every thread to stop", is_stopped);
}

fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    let waited = dwell_testkit::wait_until(std::time::Duration::from_secs(20), is_so);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let so = runtime.block_on(waited);
    so.unwrap_or_else(|error| panic!("{what} was waited for in vain: {error:?}"));
}

fn survives(mkfs: &str) {
    let rounds = if std::env::var_os("DWELL_SOAK").is_some() {
        50
    } else {
        15
    };
    let disk = Mounted::make(mkfs);
    let mut dir = disk.path().join("state");
    let mut id = begin(&dir);
    for round in 0..rounds {
        let moment = if round % 2 == 0 {
            Moment::Between
        } else {
            Moment::Anywhere
        };
        // Every fifth begins where there is nothing: the directories, the files and their names are its to keep too.
        let is_first = round % 5 == 4;
        let (keeper, known) = if is_first {
            dir = disk.path().join(format!("state-{round}"));
            (making(&dir, u64::MAX), None)
        } else {
            (command(&dir, id, Mode::Honest, u64::MAX), Some(id))
        };
        let acks = 1 + if is_first { round % 3 } else { round * 7 % 23 };
        let acked;
        (id, acked) = cut_after(&disk, keeper, known, acks, moment);
        let kept = verify(&dir, id, acked);
        assert!(
            kept.is_ok(),
            "{mkfs}, cut {round}, {moment:?}: {}",
            kept.unwrap_err()
        );
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_ext4() {
    with_own_mounts(|| survives("mkfs.ext4"));
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_xfs() {
    with_own_mounts(|| survives("mkfs.xfs"));
}

/// The control: without syncs the same test loses what was acknowledged.
#[test]
fn without_syncs_a_power_cut_loses_what_was_acknowledged() {
    with_own_mounts(|| {
        for mkfs in ["mkfs.ext4", "mkfs.xfs"] {
            let disk = Mounted::make(mkfs);
            let dir = disk.path().join("state");
            let id = begin(&dir);
            // The thread's beginning is on the disk before the first cut.
            tool("sync", &["-f", dir.to_str().unwrap()]);
            let keeper = command(&dir, id, Mode::Undurable, u64::MAX);
            let (id, acked) = cut_after(&disk, keeper, Some(id), 20, Moment::Between);
            assert!(
                verify(&dir, id, acked).is_err(),
                "{mkfs}: {acked} items, and none was lost"
            );
        }
    });
}
