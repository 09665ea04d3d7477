//! Files of an environment, wherever it is.
//!
//! | module | what |
//! |---|---|
//! | `system` | what finders and loaders need of a file system |
//! | `disk` | the operations themselves, on this machine: they block, and know no actor |
//! | `pool` | the threads they run on |
//! | `service` | a session's files on the executor |
//! | `serve`, `blocks` | whoever serves requests, and what is put together of several of them |
//! | `local`, `remote` | the same operations for whoever asks: on this machine, and through a link |
//! | `here` | some of them on the thread that asks |
//! | `watch` | watches for paths that are missing |

mod blocks;
mod disk;
mod here;
mod local;
mod pool;
mod remote;
mod serve;
pub(crate) mod service;
mod system;
mod watch;

pub use blocks::{BLOCKS_IN_FLIGHT_MAX, FileReader, FileWriter, WriteOptions};
pub use disk::TEMPORARY_PREFIX;
pub(crate) use here::FilesHere;
pub use local::{LOCAL_REQUESTS_MAX, LocalFiles};
pub use pool::{FILE_THREADS, LONG_JOBS_MAX, POOL_QUEUE_MAX};
pub(crate) use pool::{FilePool, Span as PoolSpan};
pub use remote::{RemoteFiles, RemoteWalk, WALK_PAGES_IN_FLIGHT_MAX, WalkOptions, Walked};
pub use service::{HANDLES_MAX, LONG_AT_WORK_MAX, SHORT_AT_WORK_MAX, UNACKNOWLEDGED_MAX_BYTES, WALKS_MAX};
pub use system::{FileAnswer, FileSystem, Front};
pub(crate) use watch::WATCHES;
pub use watch::{RemoteWatch, WATCH_NAMES_MAX, WATCHES_IN_ALL_MAX, WATCHES_MAX};
