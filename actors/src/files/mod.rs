//! Files of an environment, wherever it is.

mod system;

pub use system::{FileAnswer, FileSystem, Front};
