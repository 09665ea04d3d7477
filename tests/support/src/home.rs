//! A home directory that goes away with the test.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A fresh, private home directory, removed on drop.
#[derive(Debug)]
pub struct TempHome {
    directory: tempfile::TempDir,
}

impl TempHome {
    /// Makes one, with an empty `.dwell` in it.
    ///
    /// # Errors
    /// When the directory for temporary files takes none.
    pub fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("dwell-home-").tempdir()?;
        std::fs::create_dir(directory.path().join(".dwell"))?;
        Ok(Self { directory })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where dwell keeps its files in it.
    #[must_use]
    pub fn dwell(&self) -> PathBuf {
        self.path().join(".dwell")
    }

    /// What a process must have in its environment to live in it: `HOME`, `DWELL_HOME` and the XDG directories.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let inside = |name: &str| self.path().join(name).into_os_string();
        vec![
            ("HOME".into(), self.path().into()),
            ("DWELL_HOME".into(), self.dwell().into_os_string()),
            ("XDG_CONFIG_HOME".into(), inside(".config")),
            ("XDG_DATA_HOME".into(), inside(".local/share")),
            ("XDG_STATE_HOME".into(), inside(".local/state")),
            ("XDG_CACHE_HOME".into(), inside(".cache")),
        ]
    }
}
