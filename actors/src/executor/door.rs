//! What stands before every gate: how many strangers there may be, and whether a message 1 is looked into at all.
//!
//! Owns the executor's governor and the list of connections that have proven nothing; shared by the listeners and the
//! relay's connection, which live on several threads. Never holds its lock while anything is computed, written or
//! awaited. What is full makes room, oldest first, by waking whoever holds what has to go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dwell_messages::PublicKey;
use dwell_relay::Source;
use dwell_relay::first_message::MacKey;
use dwell_relay::preamble::PREAMBLE_BYTES;
use dwell_relay::source::SourceTag;
use dwell_relay::strangers::{
    Admitted, Governor, HandshakeCounts, Openings, OpeningsLimits, Rates, Ticket, Turned, Vouching,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Direct connections whose client has proven nothing. With one more the oldest makes room, of the source with the
/// most. One holds a message 1, its Noise state and a link without messages: 16 KiB over TCP, twice that over a WebSocket
/// in TLS, and so less than 4 MiB in all.
pub const UNPROVEN_MAX: usize = 112;
/// The same of one source: an address may stand for a house full of clients.
pub const UNPROVEN_PER_SOURCE_MAX: usize = 84;

/// Where a client comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Origin {
    /// From there, as the socket says.
    Direct(Source),
    /// From there, by a relay's word.
    Relayed(SourceTag),
}

/// Why a message 1 is not looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unheard {
    /// Whoever made it does not know whom it is for.
    #[error("its MAC is wrong")]
    WrongMac,
    /// The governor says so.
    #[error(transparent)]
    Turned(#[from] Turned),
}

struct Inner {
    governor: Governor<Origin>,
    /// Whom to wake when a handshake has to make room: as many as are under way.
    under_way: HashMap<Ticket, Arc<Notify>>,
    openings: Openings<Source, u64>,
    /// The same for connections: as many as are open.
    open: HashMap<u64, Arc<Notify>>,
    next: u64,
}

/// See the module.
pub(crate) struct Door {
    mac: MacKey,
    places: Arc<Semaphore>,
    inner: Mutex<Inner>,
}

impl Door {
    /// `limited` is false only in tests that show what the limits are good for.
    pub(super) fn new(executor: &PublicKey, limited: bool) -> Self {
        let governor = Governor::new(Instant::now(), Rates::EXECUTOR);
        let limits = OpeningsLimits {
            all: UNPROVEN_MAX,
            per_source: UNPROVEN_PER_SOURCE_MAX,
        };
        Self {
            mac: MacKey::of(executor),
            places: Arc::new(Semaphore::new(UNPROVEN_MAX)),
            inner: Mutex::new(Inner {
                governor: if limited {
                    governor
                } else {
                    governor.without_limits()
                },
                under_way: HashMap::new(),
                openings: Openings::new(limits),
                open: HashMap::new(),
                next: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come. Waits until there is a place for it, which somebody makes. Cancellation safe.
    pub(super) async fn enter(self: &Arc<Self>, source: Source) -> Stranger {
        let (id, wake) = {
            let mut inner = self.lock();
            let id = inner.next;
            inner.next += 1;
            let wake = Arc::new(Notify::new());
            let evicted = inner.openings.enter(source, id);
            if let Some(evicted) = evicted.and_then(|evicted| inner.open.get(&evicted)) {
                evicted.notify_one();
            }
            inner.open.insert(id, Arc::clone(&wake));
            (id, wake)
        };
        let mut stranger = Stranger {
            door: Arc::clone(self),
            source,
            id,
            wake,
            place: None,
        };
        // Whoever made room gives its place back once it is gone: there are never more than places.
        stranger.place = Arc::clone(&self.places).acquire_owned().await.ok();
        stranger
    }

    /// Whether a message 1 is to be looked into.
    pub(super) fn judge(
        &self,
        preamble: &[u8; PREAMBLE_BYTES],
        message: &[u8],
        (origin, vouching): (Origin, Vouching),
    ) -> Result<Admitted<Origin>, Unheard> {
        // Outside the lock.
        let checked = self.mac.check(preamble, message);
        let mut inner = self.lock();
        let Some((_, mac)) = checked else {
            inner.governor.wrong_mac();
            return Err(Unheard::WrongMac);
        };
        Ok(inner.governor.judge(Instant::now(), origin, vouching, mac)?)
    }

    /// It does not verify, or its client is not served.
    pub(super) fn failed(&self, admitted: Admitted<Origin>) {
        self.lock().governor.failed(Instant::now(), admitted);
    }

    /// Its client is served. `wake` is told when it has to make room for another.
    pub(super) fn answered(
        self: &Arc<Self>,
        admitted: Admitted<Origin>,
        wake: &Arc<Notify>,
    ) -> Result<UnderWay, Turned> {
        let mut inner = self.lock();
        let (ticket, evicted) = inner.governor.answered(admitted)?;
        inner.under_way.insert(ticket, Arc::clone(wake));
        let evicted = evicted.and_then(|evicted| inner.under_way.remove(&evicted));
        drop(inner);
        if let Some(evicted) = evicted {
            evicted.notify_one();
        }
        Ok(UnderWay {
            door: Arc::clone(self),
            ticket,
            over: false,
        })
    }

    /// What became of every message 1, and how many are under way.
    pub(super) fn counts(&self) -> (HandshakeCounts, usize) {
        let inner = self.lock();
        (inner.governor.counts(), inner.governor.pending())
    }

    /// Direct connections whose client has proven nothing.
    pub(super) fn unproven(&self) -> usize {
        UNPROVEN_MAX - self.places.available_permits().min(UNPROVEN_MAX)
    }
}

/// A direct connection whose client has proven nothing. Dropping it gives its place back.
pub(super) struct Stranger {
    door: Arc<Door>,
    source: Source,
    id: u64,
    wake: Arc<Notify>,
    place: Option<OwnedSemaphorePermit>,
}

impl Stranger {
    pub(super) fn origin(&self) -> Origin {
        Origin::Direct(self.source)
    }

    /// Told when it has to make room: as a connection, or as a handshake under way.
    pub(super) fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut inner = self.door.lock();
        inner.openings.leave(self.source, self.id);
        inner.open.remove(&self.id);
    }
}

/// A handshake that was answered and not confirmed. Dropping it ends it.
pub(super) struct UnderWay {
    door: Arc<Door>,
    ticket: Ticket,
    over: bool,
}

impl UnderWay {
    /// Whether it has not made room for another.
    pub(super) fn is_pending(&self) -> bool {
        self.door.lock().governor.is_pending(self.ticket)
    }

    /// Its client's first record has opened. False: it had made room for another.
    pub(super) fn confirm(mut self) -> bool {
        self.over = true;
        let mut inner = self.door.lock();
        inner.under_way.remove(&self.ticket);
        inner.governor.confirmed(Instant::now(), self.ticket)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.over {
            let mut inner = self.door.lock();
            inner.under_way.remove(&self.ticket);
            inner.governor.left(self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn source(number: u8) -> Source {
        Source::V4([192, 0, 2, number])
    }

    #[tokio::test(start_paused = true)]
    async fn with_every_place_taken_the_oldest_of_the_largest_crowd_is_woken_and_waited_for() {
        let door = Arc::new(Door::new(&PublicKey([1; 32]), true));
        let honest = door.enter(source(1)).await;
        let mut crowd = Vec::new();
        for number in 0..UNPROVEN_MAX - 1 {
            crowd.push(door.enter(source(2 + (number % 2) as u8)).await);
        }
        assert_eq!(door.unproven(), UNPROVEN_MAX);
        let mut late = Box::pin(door.enter(source(9)));
        let waited = tokio::time::timeout(Duration::from_secs(1), &mut late).await;
        assert!(waited.is_err(), "nobody has left yet");
        let woken = crowd.remove(0);
        tokio::time::timeout(Duration::from_secs(1), woken.wake.notified())
            .await
            .expect("the oldest is told");
        drop(woken);
        let late = late.await;
        assert_eq!(door.unproven(), UNPROVEN_MAX);
        drop((late, crowd, honest));
        assert_eq!(door.unproven(), 0);
        assert!(door.lock().openings.is_empty() && door.lock().open.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_waiting_for_a_place_leaves_nothing_behind() {
        let door = Arc::new(Door::new(&PublicKey([1; 32]), true));
        let mut all = Vec::new();
        for number in 0..UNPROVEN_MAX {
            all.push(door.enter(source((number % 2) as u8)).await);
        }
        let waited = tokio::time::timeout(Duration::from_secs(1), door.enter(source(9))).await;
        assert!(waited.is_err());
        drop(all);
        assert!(door.lock().openings.is_empty() && door.lock().open.is_empty());
        assert_eq!(door.unproven(), 0);
    }
}
