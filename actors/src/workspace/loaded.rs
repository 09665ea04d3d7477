//! A workspace, as an application gets it.

use dwell_messages::WireError;
use dwell_messages::workspace::{
    AgentsFile, LoadCounts, LoadStages, Repository, Skill, Warning, WorkspaceReply,
};

/// A workspace.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkspaceLoaded {
    /// The directory that is worked in.
    pub cwd: Vec<u8>,
    /// The project's root, where a marker was found.
    pub root: Option<Vec<u8>>,
    /// Instructions.
    pub agents: Agents,
    /// Skills.
    pub skills: Skills,
    /// The repository around the directory, where there is one.
    pub repository: Option<Repository>,
    /// What was not as it should be, and did not keep anything else from being loaded; at most `WARNINGS_MAX`.
    pub warnings: Vec<Warning>,
    /// Warnings that had no room.
    pub warnings_dropped: u32,
    /// How long it took.
    pub timings: WorkspaceTimings,
    /// What it took.
    pub counts: LoadCounts,
    /// Round trips, as far as questions waited for answers: 1 from an executor of ours.
    pub round_trips: u32,
}

/// Instructions of a workspace.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Agents {
    /// From the root down to the directory.
    pub files: Vec<AgentsFile>,
    /// Whether some are missing, or missing in part, for want of room.
    pub truncated: bool,
    /// Why there are none, where looking for the root failed.
    pub error: Option<WireError>,
}

/// Skills of a workspace.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Skills {
    /// Those of the project from the root down, then the user's own.
    pub found: Vec<Skill>,
    /// Whether some are missing for want of room.
    pub truncated: bool,
}

/// How long a load took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkspaceTimings {
    /// From when it was asked for until it was here, in microseconds.
    pub total_us: u64,
    /// Its parts, by the clock of whoever read the files, from the beginning of that.
    pub stages: LoadStages,
}

impl WorkspaceLoaded {
    pub(crate) fn new(reply: WorkspaceReply, total_us: u64, round_trips: u32) -> Self {
        Self {
            cwd: reply.cwd.into_vec(),
            root: reply.root.map(serde_bytes::ByteBuf::into_vec),
            agents: Agents {
                files: reply.agents,
                truncated: reply.agents_truncated,
                error: reply.agents_error,
            },
            skills: Skills {
                found: reply.skills,
                truncated: reply.skills_truncated,
            },
            repository: reply.repository,
            warnings: reply.warnings,
            warnings_dropped: reply.warnings_dropped,
            timings: WorkspaceTimings {
                total_us,
                stages: reply.stages,
            },
            counts: reply.counts,
            round_trips,
        }
    }
}
