//! dwell's actors: the mailbox layer, telemetry, and the assemblies of the three roles.

pub mod account;
pub mod config;
pub mod keys;
pub mod mailbox;
pub mod relay_server;
pub mod run_store;
pub mod runtime;
pub mod spawn;
mod sys;
pub mod telemetry;
pub mod trace_file;
pub mod waterfall;
