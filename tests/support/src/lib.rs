//! What dwell's own tests share: a census of what a test leaves behind, waiting for an event with a bound, a home
//! directory of its own, certificates, finding its processes, a TCP proxy that does to bytes what networks do, one that does
//! to frames what a hostile relay could, a line that takes its time, mounts
//! that nobody else sees, and a web server.

mod authority;
mod census;
mod home;
mod hostile;
mod long_line;
mod mounts;
mod origin;
mod processes;
mod program;
mod proxy;
mod sys;
mod wait;

pub use authority::Authority;
pub use census::{Census, Leak, descendants, inheritable_fds};
pub use home::TempHome;
pub use hostile::{
    Applied, Canaries, FrameLane, FrameRule, FrameStep, HostileProxy, Hostility, LOG_MAX, RuleKind, Seen,
    Watch,
};
pub use long_line::{End, LongLine};
pub use mounts::with_own_mounts;
pub use origin::Origin;
pub use processes::{MarkedProcess, Marker};
pub use program::write_program;
pub use proxy::{CAPTURE_MAX_BYTES, Cut, Direction, Fault, Lane, Plan, Step, TcpFaultProxy};
pub use wait::{TimedOut, wait_until};
