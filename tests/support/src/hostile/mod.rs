//! A relay that means harm: a proxy that knows frames, and does to each what a rule says.
//!
//! [`FrameLane`] decides, without a socket and without a clock; [`HostileProxy`] carries it out. It stands before a real
//! relay, or before an executor that listens, and has all the power of a relay of its own: it holds no key.

mod driver;
mod lane;
mod rules;
mod watch;

pub use driver::{HostileProxy, LOG_MAX};
pub use lane::{Applied, FrameLane, FrameStep, Seen};
pub use rules::{FrameRule, Hostility, RuleKind};
pub use watch::{Canaries, Watch};
