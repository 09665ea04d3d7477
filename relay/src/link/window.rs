//! Send windows: how many bytes of DATA frames a stream may have sent in all, across a relay.

/// What may be sent on a fresh stream before the first WINDOW frame, in bytes of DATA frames with their headers.
pub const SEND_WINDOW_INITIAL_BYTES: u64 = 256 * 1024;

/// The sender's half.
#[derive(Debug)]
pub(super) struct SendWindow {
    limit: u64,
    sent: u64,
}

impl SendWindow {
    pub(super) fn new(windowed: bool) -> Self {
        let limit = if windowed {
            SEND_WINDOW_INITIAL_BYTES
        } else {
            u64::MAX
        };
        Self { limit, sent: 0 }
    }

    /// A limit is absolute and only ever grows, so a repeated or late frame does no harm.
    pub(super) fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    pub(super) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

/// The receiver's half, where this endpoint grants windows itself.
#[derive(Debug)]
pub(super) struct GrantWindow {
    granted: Option<u64>,
    received: u64,
}

impl GrantWindow {
    pub(super) fn new(grants: bool) -> Self {
        Self {
            granted: grants.then_some(SEND_WINDOW_INITIAL_BYTES),
            received: 0,
        }
    }

    /// Counts a DATA frame; the overrun, if it is one, as (received, granted).
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), (u64, u64)> {
        self.received += bytes as u64;
        match self.granted {
            Some(granted) if self.received > granted => Err((self.received, granted)),
            Some(_) | None => Ok(()),
        }
    }

    /// None also for a peer that overran its limit: the link ends by that, and what is over grants nothing.
    fn next(&self) -> Option<u64> {
        let left = self.granted?.checked_sub(self.received)?;
        (left <= SEND_WINDOW_INITIAL_BYTES / 2).then_some(self.received + SEND_WINDOW_INITIAL_BYTES)
    }

    pub(super) fn is_due(&self) -> bool {
        self.next().is_some()
    }

    /// The new limit, once half of the old one is used.
    pub(super) fn take_due(&mut self) -> Option<u64> {
        let limit = self.next()?;
        self.granted = Some(limit);
        Some(limit)
    }
}
