//! What to load, as an application says it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use dwell_messages::TraceContext;
use dwell_messages::workspace::{TEXT_BYTES, WorkspaceLoad};
use serde_bytes::ByteBuf;

/// How long `git status` may take before it is not known whether anything has changed.
pub const STATUS_DEADLINE: Duration = Duration::from_secs(2);

/// What is loaded of a workspace. The default: the executor's own directory; a root marked by `.git`; of each directory from
/// the root down `AGENTS.override.md`, else `AGENTS.md`; skills in `.agents/skills` of each of them and of the user's home;
/// 128 KiB of text.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkspaceOptions {
    pub(crate) load: WorkspaceLoad,
    pub(crate) dirty: bool,
    pub(crate) from_here: bool,
    pub(crate) parent: Option<TraceContext>,
    pub(crate) sampled: Option<bool>,
}

impl Default for WorkspaceOptions {
    fn default() -> Self {
        let skills = vec![ByteBuf::from(".agents/skills")];
        Self {
            load: WorkspaceLoad {
                cwd: None,
                markers: vec![ByteBuf::from(".git")],
                agents: vec![ByteBuf::from("AGENTS.override.md"), ByteBuf::from("AGENTS.md")],
                skills: skills.clone(),
                user_skills: skills,
                home: None,
                text_max_bytes: TEXT_BYTES,
            },
            dirty: false,
            from_here: false,
            parent: None,
            sampled: None,
        }
    }
}

fn names<N: AsRef<[u8]>>(names: impl IntoIterator<Item = N>) -> Vec<ByteBuf> {
    names
        .into_iter()
        .map(|name| ByteBuf::from(name.as_ref()))
        .collect()
}

impl WorkspaceOptions {
    /// See there.
    pub fn new() -> Self {
        Self::default()
    }

    /// The directory that is worked in: an absolute path of the executor's machine, without `..`.
    #[must_use]
    pub fn cwd(mut self, cwd: impl AsRef<Path>) -> Self {
        self.load.cwd = Some(ByteBuf::from(cwd.as_ref().as_os_str().as_bytes()));
        self
    }

    /// Names that mark a project's root, at most `MARKERS_MAX`; none: there is no root.
    #[must_use]
    pub fn markers<N: AsRef<[u8]>>(mut self, markers: impl IntoIterator<Item = N>) -> Self {
        self.load.markers = names(markers);
        self
    }

    /// Names of instruction files, at most `NAMES_MAX`: of each directory the first that is there.
    #[must_use]
    pub fn agents_names<N: AsRef<[u8]>>(mut self, agents: impl IntoIterator<Item = N>) -> Self {
        self.load.agents = names(agents);
        self
    }

    /// Directories of skills, relative to each directory from the root down.
    #[must_use]
    pub fn skill_directories<N: AsRef<[u8]>>(mut self, directories: impl IntoIterator<Item = N>) -> Self {
        self.load.skills = names(directories);
        self
    }

    /// Directories of the user's own skills, relative to the home directory.
    #[must_use]
    pub fn user_skill_directories<N: AsRef<[u8]>>(
        mut self,
        directories: impl IntoIterator<Item = N>,
    ) -> Self {
        self.load.user_skills = names(directories);
        self
    }

    /// The home directory, instead of that of the executor's user.
    #[must_use]
    pub fn home(mut self, home: impl AsRef<Path>) -> Self {
        self.load.home = Some(ByteBuf::from(home.as_ref().as_os_str().as_bytes()));
        self
    }

    /// Bytes of instructions and front matter that are loaded, at most `TEXT_MAX_BYTES`.
    #[must_use]
    pub fn text_max_bytes(mut self, bytes: u32) -> Self {
        self.load.text_max_bytes = bytes;
        self
    }

    /// Also looks whether anything differs from what is checked out, by running `git status` there with `STATUS_DEADLINE`:
    /// a command like any other, beside the load, which needs the scope `spawn`. A repository's own configuration may make
    /// git run programs. Default: it is not known.
    #[must_use]
    pub fn dirty(mut self, dirty: bool) -> Self {
        self.dirty = dirty;
        self
    }

    /// Asks for the files one by one from here, as of an environment that answers nothing more, instead of for all of it at
    /// once: some round trips more. For comparisons.
    #[must_use]
    pub fn from_here(mut self, from_here: bool) -> Self {
        self.from_here = from_here;
        self
    }

    /// The span that the load hangs below. Default: that of the calling code, if it is known.
    #[must_use]
    pub fn parent(mut self, parent: TraceContext) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Whether the load is traced if it has no parent. Default: as other calls.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.sampled = Some(sampled);
        self
    }
}
