//! Find-up: the nearest directory, from one upwards, that holds one of some markers.
//!
//! The core decides which probes there are and what their answers mean; `find_up` sends them through a file system,
//! `PROBES_MAX` at a time where each costs a round trip. On an executor of ours the same search is one request.

mod core;
pub mod path;
mod walk;

pub use self::core::{Answer, FindUpCore, Found, Query};
pub(crate) use self::core::{check_name, is_absence};
pub use walk::{LOCAL_PROBES, PROBES_MAX, find_up};
