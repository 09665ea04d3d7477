//! Workspaces: the instructions, skills and repository around a directory, loaded in one batch.

mod agents;
mod assemble;
pub mod front_matter;
mod git;
mod hint;
mod loader;
mod pipeline;
mod plan;
mod repository;
mod skills;

pub use agents::AgentsLoaded;
pub use hint::{HintCounts, RootHint};
pub use loader::{Instructions, LoadSpans, Loader, Notes, RootLook, Span, find_locally};
pub use plan::Plan;
pub use repository::RepositoryLoaded;
pub use skills::{SKILL_ENTRIES_MAX, SKILL_FILE, SkillsLoaded};
