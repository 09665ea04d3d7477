//! HTTP requests that an executor makes for its client.
//!
//! `remote` is the client's side, as an API; on the executor `door` is a session's way to its `HttpService`, which has
//! a task for each exchange (`exchange`, with `hop` for one request and its answer). Pure: `core`, which exchanges a session
//! has; `request`, what is sent and what becomes of a redirect. What goes over the wire is a feature, `http`.

#[cfg(feature = "http")]
mod core;
mod door;
#[cfg(feature = "http")]
mod exchange;
#[cfg(feature = "http")]
mod hop;
mod remote;
#[cfg(feature = "http")]
mod request;
#[cfg(feature = "http")]
mod service;

pub(crate) use door::HttpDoor;
pub use remote::{HttpAsk, RemoteExchange, RemoteHttp};

/// Among an environment's capabilities: it makes HTTP requests.
pub(crate) const HTTP: &str = "http";
/// Exchanges of one session at a time.
pub const EXCHANGES_MAX: usize = 32;
/// Bytes of the request bodies of a session's exchanges: they are kept for redirects.
pub const BODIES_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Redirects of one exchange that are followed.
pub const REDIRECTS_MAX: u32 = 10;
/// Requests about one exchange that wait for their turn.
pub const COMMANDS_MAX: usize = 8;
/// Bytes of an answer that are read ahead of whoever draws it, its head included.
pub const READ_AHEAD_MAX_BYTES: usize = 128 * 1024;
