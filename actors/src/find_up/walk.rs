//! A search through a file system.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use dwell_messages::WireError;

use super::core::{Answer, FindUpCore, Found, Query};
use crate::files::FileSystem;

/// Probes in flight where each costs a round trip. More would be wasted when the nearest directory has the marker, which
/// is the usual case; at eight the depth of most trees is one round trip.
pub const PROBES_MAX: usize = 8;
/// Probes in flight where they cost next to nothing: each is sent because the one before it missed.
pub const LOCAL_PROBES: usize = 1;

type Probing<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Looks for the nearest directory that holds a marker, with at most `in_flight` probes under way. Cancellation safe:
/// what was asked may still be answered, and is nobody's.
///
/// # Errors
/// The first failed probe in order, where the query says that errors are propagated and nothing nearer was found.
pub async fn find_up(files: &dyn FileSystem, query: &Query, in_flight: usize) -> Result<Found, WireError> {
    let mut search = FindUpCore::new(query, in_flight);
    let mut probes: Vec<(u64, Probing<'_>)> = Vec::new();
    loop {
        if let Some(outcome) = search.outcome() {
            return outcome;
        }
        while let Some((number, path)) = search.next_probe() {
            let probe = async move { Answer::of(files.metadata(&path).await) };
            probes.push((number, Box::pin(probe)));
        }
        for (number, answer) in answered(&mut probes).await {
            search.answer(number, answer);
        }
    }
}

/// Those that have an answer, at least one, taken out. Each is polled, so that they are sent in their order.
async fn answered(probes: &mut Vec<(u64, Probing<'_>)>) -> Vec<(u64, Answer)> {
    poll_fn(|cx| {
        let mut answers = Vec::new();
        probes.retain_mut(|(number, probe)| match probe.as_mut().poll(cx) {
            Poll::Ready(answer) => {
                answers.push((*number, answer));
                false
            }
            Poll::Pending => true,
        });
        if answers.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(answers)
        }
    })
    .await
}
