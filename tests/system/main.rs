//! The three roles as three processes of the binary, each with a HOME of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures are for whoever runs this")]
#![cfg(feature = "cli")]

#[cfg(feature = "system-tests")]
mod backends;
#[cfg(feature = "system-tests")]
mod clocks;
mod crash;
#[cfg(feature = "system-tests")]
mod disk_faults;
#[cfg(feature = "system-tests")]
mod files;
#[cfg(feature = "system-tests")]
mod first_turn;
#[cfg(feature = "system-tests")]
mod flood;
mod keeping;
mod kills;
mod one_trace;
#[cfg(feature = "system-tests")]
mod otlp;
#[cfg(feature = "system-tests")]
mod outages;
#[cfg(feature = "system-tests")]
mod power_cut;
#[cfg(feature = "system-tests")]
mod processes;
mod propagation;
mod roles;
#[cfg(feature = "system-tests")]
mod slow_link;
mod terminal;
mod threads;
#[cfg(feature = "system-tests")]
mod trace_html;
mod transports;
mod trust;
#[cfg(feature = "system-tests")]
mod turn_diff;
