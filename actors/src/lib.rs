//! dwell's actors: the mailbox layer, telemetry, and the assemblies of the three roles.

pub mod access;
pub mod account;
mod address;
pub mod config;
pub mod dispatcher;
pub mod executor;
pub mod guard;
pub mod harness;
pub mod keys;
pub mod mailbox;
pub mod metadata_writer;
pub mod process;
pub mod process_supervisor;
pub mod relay_framer;
pub mod relay_server;
pub mod rpc_queue;
pub mod run_store;
pub mod runtime;
mod shared_writer;
pub mod spawn;
mod sys;
pub mod telemetry;
pub mod terminal_delivery;
pub mod trace_collector;
pub mod trace_file;
pub mod waterfall;

pub use address::Address;
pub use runtime::block_on;
