//! What goes wrong: bad input, bytes changed on the way, and ends that come at the wrong time.

mod commands;
mod eavesdrop;
mod flips;
mod garbage;
mod lifecycle;
mod limits;
mod runtimes;
mod strangers;
mod streams;
mod support;
