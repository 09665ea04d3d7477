//! Why a call took as long as it did: its account, held against what is usual, as ranked sentences.
//!
//! Pure: a [`Trace`](crate::trace_file::Trace) and a [`Baseline`] in, an [`Explanation`] out; only [`Baseline::load`] reads
//! files. What is compared between calls are the segments of the chain, transit apart from the link's own round trip and
//! from the relay's residence, and the work beside the chain that writes to disk. With a usual, what exceeds it comes
//! first, by the excess; without one, or when nothing exceeds it, whatever took the largest share. Text of other machines is
//! shown with control characters replaced.

mod baseline;
mod cause;
mod explain;
mod json;
mod measure;
mod sentence;
mod text;

pub use baseline::{BASELINE_CALLS_MAX, BASELINE_CALLS_MIN, Baseline};
pub use cause::{Cause, Ranked, Reason};
pub use explain::{Explanation, UNUSUAL_MIN_US, explain};
pub use json::to_json;
pub use text::render;
