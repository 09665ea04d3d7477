//! dwell's actors: the mailbox layer, telemetry, and the assemblies of the three roles.

pub mod access;
pub mod account;
mod address;
pub mod config;
pub mod confine;
#[cfg(any(feature = "http", feature = "responses"))]
mod dial_out;
pub mod dialect;
pub mod dispatcher;
mod durable_dir;
pub mod event_log;
pub mod executor;
#[doc(hidden)]
pub mod fault_point;
mod feed;
pub mod files;
pub mod find_up;
pub mod guard;
pub mod harness;
pub mod http_client;
pub mod in_flight;
pub mod inspect;
pub mod keys;
pub mod mailbox;
pub mod metadata_store;
pub mod metadata_writer;
pub mod metrics;
pub mod oversight;
pub mod process;
pub mod process_supervisor;
pub mod propagation;
pub mod relay_framer;
pub mod relay_server;
#[cfg(feature = "responses")]
pub mod responses;
pub mod rpc_queue;
pub mod run_recorder;
pub mod runtime;
mod rush_log;
mod shared_writer;
pub mod spawn;
mod sys;
pub mod telemetry;
pub mod terminal_delivery;
pub mod threads;
pub mod trace_collector;
pub mod trace_export;
pub mod trace_file;
pub mod trace_why;
pub mod turn_diff;
mod watchdog;
pub mod waterfall;
pub mod workspace;

pub use address::Address;
pub use runtime::block_on;
