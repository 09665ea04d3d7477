//! A control group of the test's own that counts memory or processes, of either version.

use std::path::{Path, PathBuf};

/// Removed when it is dropped; this process is then back where it was, as far as it may.
pub(crate) struct Group {
    path: PathBuf,
    home: PathBuf,
    is_unified: bool,
}

impl Group {
    /// Makes one and moves this process into it, and so the guard that it starts later.
    ///
    /// Panics, and says what is missing, where there can be none: a test that needs one is not passed over.
    pub(crate) fn counting(controller: &str) -> Self {
        let name = format!("dwell-test-{}", std::process::id());
        let old = Path::new("/sys/fs/cgroup").join(controller);
        let (home, is_unified) = if old.join("cgroup.procs").exists() {
            (old, false)
        } else {
            (PathBuf::from("/sys/fs/cgroup"), true)
        };
        if is_unified {
            let enabled = std::fs::write(home.join("cgroup.subtree_control"), format!("+{controller}"));
            enabled.unwrap_or_else(|error| panic!("{}: {error}", missing(controller)));
        }
        let path = home.join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", missing(controller)));
        let group = Self {
            path,
            home,
            is_unified,
        };
        group.write("cgroup.procs", &std::process::id().to_string());
        group
    }

    /// Limits its memory to so many bytes.
    pub(crate) fn limit_memory(&self, bytes: u64) {
        let file = if self.is_unified {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        self.write(file, &bytes.to_string());
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path.join(file);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub(crate) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file)).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::write(self.home.join("cgroup.procs"), std::process::id().to_string());
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn missing(controller: &str) -> String {
    format!(
        "this test needs a control group that counts {controller}: run it as root, where /sys/fs/cgroup/{controller} \
         (version 1) or /sys/fs/cgroup with {controller} in cgroup.controllers (version 2) is mounted and writable"
    )
}
