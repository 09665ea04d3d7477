//! Where dwell keeps things, and which ports it uses when nobody says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dwell_messages::Role;

use crate::trace_file::role_name;

/// The port of a relay.
pub const RELAY_PORT_DEFAULT: u16 = 7433;
/// The port of an executor that is reached directly.
pub const EXECUTOR_PORT_DEFAULT: u16 = 7434;

const APPLICATION: &str = "dwell";
/// Where sockets are, beside what else is in a home.
const RUN: &str = "run";

/// The directories of one user's dwell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Home {
    config: PathBuf,
    state: PathBuf,
    run: PathBuf,
}

/// There is no place to keep anything.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HomeError {
    /// Nothing names a directory.
    #[error(
        "none of $DWELL_HOME, ${xdg} and $HOME is set to an absolute path; set $DWELL_HOME to a directory of your own"
    )]
    NotSet {
        /// The XDG variable that would have served.
        xdg: &'static str,
    },
    /// `$DWELL_HOME` depends on the working directory, so that keys would be made wherever dwell is started.
    #[error("$DWELL_HOME is {}, which is not an absolute path; set it to one", path.display())]
    Relative {
        /// What it is.
        path: PathBuf,
    },
}

impl Home {
    /// Finds the directories through `lookup`, which reads one environment variable. Makes none of them.
    ///
    /// `$DWELL_HOME` holds everything if it is set. Otherwise keys and configuration are in `$XDG_CONFIG_HOME/dwell`,
    /// traces and the database in `$XDG_STATE_HOME/dwell`, each under `$HOME` as XDG has it by default. As XDG
    /// demands, one of its variables that is empty or relative counts as unset.
    ///
    /// # Errors
    ///
    /// When nothing names a directory, or `$DWELL_HOME` is relative.
    pub fn resolve(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, HomeError> {
        if let Some(home) = lookup("DWELL_HOME").filter(|value| !value.is_empty()) {
            let path = PathBuf::from(home);
            if !path.is_absolute() {
                return Err(HomeError::Relative { path });
            }
            return Ok(Self {
                config: path.clone(),
                run: path.join(RUN),
                state: path,
            });
        }
        let absolute = |name: &str| lookup(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = |xdg: &'static str, below_home: &str| {
            absolute(xdg)
                .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
                .map(|base| base.join(APPLICATION))
                .ok_or(HomeError::NotSet { xdg })
        };
        let config = base("XDG_CONFIG_HOME", ".config")?;
        let state = base("XDG_STATE_HOME", ".local/state")?;
        Ok(Self {
            config,
            run: absolute("XDG_RUNTIME_DIR").map_or_else(|| state.join(RUN), |base| base.join(APPLICATION)),
            state,
        })
    }

    /// Everything below one directory.
    pub fn at(dir: &Path) -> Self {
        Self {
            config: dir.to_owned(),
            state: dir.to_owned(),
            run: dir.join(RUN),
        }
    }

    /// The directory of the sockets at which live processes answer: `run` in `$DWELL_HOME`, else
    /// `$XDG_RUNTIME_DIR/dwell`, else `run` beside the traces.
    pub fn run_dir(&self) -> PathBuf {
        self.run.clone()
    }

    /// The key pair of a role.
    pub fn identity(&self, role: Role) -> PathBuf {
        self.config.join("keys").join(format!("{}.key", role_name(role)))
    }

    /// The clients an executor serves.
    pub fn authorized_clients(&self) -> PathBuf {
        self.config.join("authorized_clients")
    }

    /// The executors a client trusts.
    pub fn known_executors(&self) -> PathBuf {
        self.config.join("known_executors")
    }

    /// Who asked an executor for what.
    pub fn audit_log(&self) -> PathBuf {
        self.state.join("audit.jsonl")
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The directory of the trace files.
    pub fn traces_dir(&self) -> PathBuf {
        self.state.join("traces")
    }

    /// The directory of the threads' event logs.
    pub fn threads_dir(&self) -> PathBuf {
        self.state.join("threads")
    }

    /// The database of runs and threads.
    pub fn runs_db(&self) -> PathBuf {
        self.state.join("runs.db")
    }
}
