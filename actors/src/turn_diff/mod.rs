//! What a turn has changed in the files of its environments, as one unified diff that grows with every patch.
//!
//! A [`TurnDiff`] is told of changes as they are made, each with the content before and after it, and never looks at
//! the files themselves. What it needs of an environment's file system is one thing: where the repository begins, so
//! that paths are shown relative to it. Most turns change nothing, so that is looked for when the first change has to
//! be shown and not before: a turn without one costs no round trip.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use dwell_actors::{files::FileSystem, turn_diff};
//! # async fn example(files: Arc<dyn FileSystem>) {
//! use turn_diff::{Change, Content, Delta, TurnDiff, TurnEnvironment, Update};
//!
//! let diff = TurnDiff::new([TurnEnvironment::new("dev", "/src/project/api", files)]);
//! let change = Change::update("/src/project/api/lib.rs", Content::text("old\n"), Content::text("new\n"));
//! if let Update::Shown(shown) = diff.apply(Delta::exact("dev", [change])).await {
//!     // diff --git a/api/lib.rs b/api/lib.rs …
//!     print!("{}", String::from_utf8_lossy(&shown.to_bytes()));
//! }
//! # }
//! ```
//!
//! `change` is what it is told; `ledger` composes that; `names` and `hunks` and `render` make one file's text;
//! `root` finds where a repository begins; `tracker` is the handle.

mod change;
mod hunks;
mod ledger;
mod names;
mod render;
mod root;
mod tracker;

pub use change::{Change, Content, Delta, FileMode};
pub use ledger::{HELD_MAX_BYTES, TRACKED_FILES_MAX, VoidReason};
pub use render::{COMPARED_MAX_BYTES, FileChange, FileDiff, Precision};
pub use root::TurnEnvironment;
pub use tracker::{Counts, FILE_BUDGET, RenderedDiff, TurnDiff, Update};
