//! Where the time of a call went: accounts that add up in real runs, delays that show where they were planted, and causes
//! that are named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures are for whoever runs this")]

mod causes;
mod clocks;
mod conservation;
mod planted;
mod world;
