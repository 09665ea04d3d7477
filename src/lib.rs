//! dwell: commands on another machine, with an account of every microsecond.
