//! What a workspace is: instructions, skills and repository around a directory, asked for and answered in one batch.
//!
//! Paths are bytes, absolute, as in `files`. An answer is bounded whatever lies on the disk: what does not fit is left
//! out, and the answer says so.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::error::{ErrorCode, WireError};

/// Most markers that one search looks for.
pub const MARKERS_MAX: usize = 16;
/// Most bytes of a marker, or of a file's name.
pub const NAME_MAX_BYTES: usize = 256;
/// Most names of instruction files, and most directories of skills of either kind.
pub const NAMES_MAX: usize = 16;
/// Bytes of instructions and front matter in an answer, unless the request says otherwise.
pub const TEXT_BYTES: u32 = 128 * 1024;
/// Most that a request may say: with paths and warnings it still fits in one message.
pub const TEXT_MAX_BYTES: u32 = 512 * 1024;
/// Bytes of paths and warnings in an answer.
pub const PATHS_MAX_BYTES: usize = 256 * 1024;
/// Most instruction files in an answer.
pub const AGENTS_MAX: usize = 64;
/// Most skills in an answer.
pub const SKILLS_MAX: usize = 512;
/// Most warnings in an answer; what comes after them is counted.
pub const WARNINGS_MAX: usize = 64;

/// What a search does with a probe that fails otherwise than by finding nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OnError {
    /// The search fails with it, unless a marker was found nearer.
    #[serde(rename = "p")]
    Propagate,
    /// It counts as nothing found.
    #[serde(rename = "i")]
    Ignore,
}

/// Asks for the nearest directory, from `from` upwards, that holds one of some names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FindUp {
    /// Where the search begins; this directory is looked at first.
    pub from: ByteBuf,
    /// The names, at most `MARKERS_MAX`, in the order in which they are looked for. None: nothing is found.
    pub markers: Vec<ByteBuf>,
    /// What failed probes mean.
    pub on_error: OnError,
}

/// What a search found, and what it took.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FoundUp {
    /// The directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<ByteBuf>,
    /// Which of the markers it holds, by its place in the list: the first of those it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<u32>,
    /// Directories that were looked at, up to the one that decided.
    #[serde(default)]
    pub visited: u32,
    /// Names that were looked for, those among them that turned out not to matter.
    #[serde(default)]
    pub probed: u32,
    /// Failed probes that counted as nothing found, up to the one that decided.
    #[serde(default)]
    pub ignored: u32,
}

/// Asks for a workspace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkspaceLoad {
    /// The directory that is worked in; absent: the environment's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<ByteBuf>,
    /// Names that mark a project's root, at most `MARKERS_MAX`.
    pub markers: Vec<ByteBuf>,
    /// Names of instruction files: of each directory the first that is there.
    pub agents: Vec<ByteBuf>,
    /// Directories of skills in each directory from the root down, relative to it.
    pub skills: Vec<ByteBuf>,
    /// Directories of the user's own skills, relative to the home directory.
    pub user_skills: Vec<ByteBuf>,
    /// The home directory; absent: that of the executor's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<ByteBuf>,
    /// Bytes of instructions and front matter that are wanted, at most `TEXT_MAX_BYTES`.
    pub text_max_bytes: u32,
}

/// A workspace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceReply {
    /// The directory that is worked in.
    pub cwd: ByteBuf,
    /// The project's root, where a marker was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<ByteBuf>,
    /// Instructions, from the root down to the directory.
    pub agents: Vec<AgentsFile>,
    /// Whether instructions are missing, or missing in part, for want of room.
    pub agents_truncated: bool,
    /// Why there are no instructions, where looking for the root failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents_error: Option<WireError>,
    /// Skills: those of the project from the root down, then the user's own.
    pub skills: Vec<Skill>,
    /// Whether skills are missing for want of room.
    pub skills_truncated: bool,
    /// The repository around the directory, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// What was not as it should be, and did not keep anything else from being loaded.
    pub warnings: Vec<Warning>,
    /// Warnings that had no room.
    pub warnings_dropped: u32,
    /// How long each part took.
    pub stages: LoadStages,
    /// What it took.
    pub counts: LoadCounts,
}

/// One file of instructions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentsFile {
    /// Where it lies.
    pub path: ByteBuf,
    /// What it says; what is no UTF-8 in it is replaced.
    pub text: String,
    /// Whether it says more than is here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Whose a skill is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum SkillOwner {
    /// The project's: it lies between the root and the directory.
    #[serde(rename = "p")]
    Project,
    /// The user's own.
    #[serde(rename = "u")]
    User,
}

/// What a skill says of itself. Its body is read when it is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Skill {
    /// Its `SKILL.md`.
    pub path: ByteBuf,
    /// Its name; its directory's, where it has none.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What else it says, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
    /// Whose it is.
    pub owner: SkillOwner,
}

/// What is known of a repository without asking git.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// The directory that holds `.git`.
    pub root: ByteBuf,
    /// What is checked out, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Whether anything differs from what is checked out; absent: nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
}

/// What is checked out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// The branch, without `refs/heads/`; absent: no branch, but a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit, in hexadecimal; absent: the branch has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Something that was not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Warning {
    /// What kind of problem.
    pub code: ErrorCode,
    /// Where.
    pub path: ByteBuf,
    /// What, in one sentence.
    pub message: String,
}

/// When the parts of a load were at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadStages {
    /// Looking for the root.
    pub root_walk: StageTime,
    /// Reading instructions.
    pub agents: StageTime,
    /// Reading skills' front matter.
    pub skills: StageTime,
    /// The repository.
    pub repository: StageTime,
}

/// When one part was at work. Parts may overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StageTime {
    /// From the load's beginning to the part's, in microseconds.
    pub at_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// What a load took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadCounts {
    /// Markers that were looked for.
    pub probed: u32,
    /// Files that were asked for.
    pub read: u32,
    /// Directories that were listed.
    pub listed: u32,
    /// Whether the skills took over the root that was found for the instructions: 0 or 1.
    pub hint_used: u32,
    /// Whether there was one that they could not take: 0 or 1.
    pub hint_rejected: u32,
}

/// Counts and lengths that no answer could follow.
pub(crate) fn check_find(find: &FindUp) -> Result<(), (&'static str, &'static str)> {
    check_path("from", &find.from)?;
    check_names("markers", &find.markers)
}

/// As `check_find`.
pub(crate) fn check_load(load: &WorkspaceLoad) -> Result<(), (&'static str, &'static str)> {
    for (field, path) in [("cwd", &load.cwd), ("home", &load.home)] {
        if let Some(path) = path {
            check_path(field, path)?;
        }
    }
    check_names("markers", &load.markers)?;
    check_names("agents", &load.agents)?;
    check_relative("skills", &load.skills)?;
    check_relative("user_skills", &load.user_skills)?;
    if load.text_max_bytes > TEXT_MAX_BYTES {
        return Err(("text_max_bytes", "is more than 524,288"));
    }
    Ok(())
}

fn check_path(field: &'static str, path: &[u8]) -> Result<(), (&'static str, &'static str)> {
    if path.contains(&0) {
        return Err((field, "holds a NUL byte"));
    }
    if path.len() > crate::files::PATH_MAX_BYTES {
        return Err((field, "has more than 4,096 bytes"));
    }
    Ok(())
}

fn check_names(field: &'static str, names: &[ByteBuf]) -> Result<(), (&'static str, &'static str)> {
    if names.len() > MARKERS_MAX {
        return Err((field, "has more than 16 names"));
    }
    if names.iter().any(|name| name.len() > NAME_MAX_BYTES) {
        return Err((field, "has a name of more than 256 bytes"));
    }
    Ok(())
}

fn check_relative(field: &'static str, paths: &[ByteBuf]) -> Result<(), (&'static str, &'static str)> {
    if paths.len() > NAMES_MAX {
        return Err((field, "has more than 16 directories"));
    }
    paths.iter().try_for_each(|path| check_path(field, path))
}
