//! Workspaces: the instructions, skills and repository around a directory, loaded in one batch.
//!
//! | module | what |
//! |---|---|
//! | `options`, `loaded` | what an application asks for, and gets |
//! | `plan` | a request that makes sense |
//! | `loader` | the parts of a load and their order; `agents`, `skills` (`front_matter`), `repository` (`git`): the parts |
//! | `hint` | the root that one part finds for another, once |
//! | `assemble` | one answer, within its bounds |
//! | `pipeline`, `rounds` | several questions at once; how many round trips they took |
//! | `actor` | a harness's loads |
//! | `service` | loads on the executor |

mod actor;
mod agents;
mod assemble;
pub mod front_matter;
mod git;
mod hint;
mod loaded;
mod loader;
mod options;
mod pipeline;
mod plan;
mod repository;
mod rounds;
mod service;
mod skills;

pub use actor::{LOADS_MAX, WORKSPACE};
pub(crate) use actor::{Load, Through, WORKSPACE_MAILBOX_MAX, Workspace, WorkspaceMessage};
pub use agents::AgentsLoaded;
pub use hint::{HintCounts, RootHint};
pub use loaded::{Agents, Skills, WorkspaceLoaded, WorkspaceTimings};
pub use loader::{Instructions, LoadSpans, Loader, Notes, RootLook, Span};
pub use options::{STATUS_DEADLINE, WorkspaceOptions};
pub use plan::Plan;
pub use repository::RepositoryLoaded;
pub use rounds::Rounds;
pub use service::LOADS_AT_WORK_MAX;
pub(crate) use service::WorkspaceService;
pub use skills::{SKILL_ENTRIES_MAX, SKILL_FILE, SkillsLoaded};
