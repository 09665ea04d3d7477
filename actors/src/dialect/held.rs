//! What the requests of one connection hold, in bytes: how many they may be says nothing of how large they are.
//!
//! A request counts with its message as long as it is served beside others; past the bound it is refused, so that nobody
//! waits for room in front of a terminate. An answer that may be large waits for its room before it is made, and gives
//! it back when its connection has taken it.

use std::sync::Arc;

use dwell_messages::dialect::{BLOCK_MAX_BYTES, Call};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::files::READ_FILE_MAX_BYTES;

/// Bytes of the requests of a connection that are served beside each other, one in any case.
pub const REQUESTS_MAX_BYTES: usize = 128 * 1024 * 1024;
/// Bytes of what is read for a connection at a time, as they are on the disk: as text they are a third more.
pub const ANSWERS_MAX_BYTES: usize = 96 * 1024 * 1024;
/// Bytes of the bodies of HTTP answers that are held for a connection until they are whole, as they came.
pub const HTTP_BODIES_MAX_BYTES: usize = 96 * 1024 * 1024;
/// What an answer counts whose size nobody knows before: a list of names.
const LIST_BYTES: u64 = 16 * 1024 * 1024;
/// In what bytes are counted.
const UNIT_BYTES: usize = 1_024;

/// See the module.
#[derive(Clone)]
pub(super) struct Held {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

impl Default for Held {
    fn default() -> Self {
        let units = |bytes| Arc::new(Semaphore::new(bytes / UNIT_BYTES));
        Self {
            requests: units(REQUESTS_MAX_BYTES),
            answers: units(ANSWERS_MAX_BYTES),
            bodies: units(HTTP_BODIES_MAX_BYTES),
        }
    }
}

impl Held {
    /// Room for a request of so many bytes, if there is.
    pub(super) fn request(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = units(bytes as u64, REQUESTS_MAX_BYTES);
        Arc::clone(&self.requests).try_acquire_many_owned(units).ok()
    }

    /// Room for so many more bytes of a body that comes piece by piece, if there is. Nobody waits: two that have some and
    /// wait for more would wait for each other.
    pub(super) fn body(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = units(bytes as u64, HTTP_BODIES_MAX_BYTES);
        Arc::clone(&self.bodies).try_acquire_many_owned(units).ok()
    }

    /// Room for an answer of so many bytes, once there is. Cancellation safe.
    pub(super) async fn answer(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = units(bytes, ANSWERS_MAX_BYTES);
        // It is never closed.
        Arc::clone(&self.answers).acquire_many_owned(units).await.ok()
    }
}

/// What an answer may hold. How large a file is is known only when it was read.
pub(super) fn answer_bytes(call: &Call) -> u64 {
    match call {
        Call::ReadFile(_) => READ_FILE_MAX_BYTES,
        Call::ReadBlock(ask) => ask.len.min(BLOCK_MAX_BYTES as u64),
        Call::ReadDirectory(_) | Call::Walk(_) => LIST_BYTES,
        Call::WriteFile(_)
        | Call::CreateDirectory(_)
        | Call::GetMetadata(_)
        | Call::Canonicalize(_)
        | Call::Remove(_)
        | Call::Copy(_)
        | Call::OpenFile(_)
        | Call::WriteBlock(_)
        | Call::CloseFile(_)
        | Call::Initialize(_)
        | Call::EnvironmentInfo
        | Call::EnvironmentStatus
        | Call::ReadEnvironmentConfig(_)
        | Call::DiscoverRoots(_)
        | Call::DiscoverCapabilities(_)
        | Call::Start(_)
        | Call::Read(_)
        | Call::Write(_)
        | Call::Signal(_)
        | Call::Terminate(_)
        | Call::WatchMissing(_)
        | Call::Http(_) => 0,
    }
}

/// Never more than there are: whatever is larger goes alone.
fn units(bytes: u64, most: usize) -> u32 {
    let most = most / UNIT_BYTES;
    let units = usize::try_from(bytes).map_or(most, |bytes| bytes.div_ceil(UNIT_BYTES));
    u32::try_from(units.min(most)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_of_the_largest_files_are_read_at_a_time_and_a_third_waits_for_one() {
        let held = Held::default();
        let first = held.answer(READ_FILE_MAX_BYTES).await;
        let second = held.answer(READ_FILE_MAX_BYTES).await;
        let third = held.answer(READ_FILE_MAX_BYTES);
        let mut third = std::pin::pin!(third);
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(first);
        assert!(third.await.is_some() && second.is_some());
    }

    #[test]
    fn bodies_that_come_piece_by_piece_have_room_in_pieces_and_wait_for_none() {
        let held = Held::default();
        let mut most = held
            .body(HTTP_BODIES_MAX_BYTES - UNIT_BYTES)
            .expect("there is room");
        most.merge(held.body(1).expect("and for one byte more"));
        assert!(held.body(1).is_none());
        drop(most);
        assert!(held.body(HTTP_BODIES_MAX_BYTES).is_some());
    }

    #[test]
    fn requests_are_refused_beyond_their_bytes_and_one_is_served_in_any_case() {
        let held = Held::default();
        let whole = held.request(2 * REQUESTS_MAX_BYTES);
        assert!(whole.is_some() && held.request(1).is_none());
        drop(whole);
        assert!(held.request(1).is_some());
    }
}
