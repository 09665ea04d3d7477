//! An open invitation: one code, for one client, for ten minutes.
//!
//! Message 1 can be a replay, so presenting the code only binds it to the key that presented it; the client is listed,
//! and the code used up, when its first record has opened.

use std::time::{Duration, Instant};

use dwell_messages::PublicKey;
use dwell_relay::pairing::{PairingHash, presented};

use crate::keys::{Grant, PairingCode};

/// How long a code is good.
pub const PAIRING_LIFE: Duration = Duration::from_secs(600);
/// Wrong codes after which the right one is void too.
pub const PAIRING_TRIES_MAX: u32 = 5;

/// An executor's side of a one-time code. Only its hash is kept.
#[derive(Debug)]
pub struct PairingOffer {
    hash: PairingHash,
    grant: Grant,
    until: Instant,
    wrong: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nobody has presented it.
    Open,
    /// This key has, and is not listed yet.
    Claimed(PublicKey),
    /// A client is listed by it.
    Used,
}

/// Why a code lists nobody. The peer is never told which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClaimRefused {
    /// It is another code.
    #[error("wrong code")]
    Wrong,
    /// Too many wrong ones came before it.
    #[error("code void after too many wrong ones")]
    Void,
    /// It is too late.
    #[error("code expired")]
    Expired,
    /// Another client was first.
    #[error("code used")]
    Used,
}

impl ClaimRefused {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Wrong => "wrong code",
            Self::Void => "code void after too many wrong ones",
            Self::Expired => "code expired",
            Self::Used => "code used",
        }
    }
}

impl PairingOffer {
    /// Whoever presents this code within [`PAIRING_LIFE`] of `now` gets this grant.
    pub fn new(now: Instant, code: &PairingCode, grant: Grant) -> Self {
        Self {
            hash: PairingHash::of(code.expose()),
            grant,
            until: now.checked_add(PAIRING_LIFE).unwrap_or(now),
            wrong: 0,
            state: State::Open,
        }
    }

    /// A client presents what may be a code; `None` when it is none at all. The comparison takes the same time
    /// whatever the code, and comes before every other look.
    pub fn claim(
        &mut self,
        now: Instant,
        client: &PublicKey,
        authorization: &[u8],
    ) -> Option<Result<(), ClaimRefused>> {
        let code = presented(authorization)?;
        let right = self.hash.matches(code);
        Some(self.judge(now, client, right))
    }

    fn judge(&mut self, now: Instant, client: &PublicKey, right: bool) -> Result<(), ClaimRefused> {
        if self.wrong >= PAIRING_TRIES_MAX {
            return Err(ClaimRefused::Void);
        }
        if !right {
            self.wrong += 1;
            return Err(ClaimRefused::Wrong);
        }
        match self.state {
            _ if now >= self.until => Err(ClaimRefused::Expired),
            State::Open => {
                self.state = State::Claimed(*client);
                Ok(())
            }
            // The same client again: its first link died before it said anything.
            State::Claimed(first) if first == *client => Ok(()),
            State::Claimed(_) | State::Used => Err(ClaimRefused::Used),
        }
    }

    /// What the client whose claim was good is listed with, once its first record has opened.
    pub fn claimed(&self, client: &PublicKey) -> Option<Grant> {
        (self.state == State::Claimed(*client)).then_some(self.grant)
    }

    /// The client is listed: the code lists nobody else.
    pub fn use_up(&mut self) {
        self.state = State::Used;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: [u8; 16] = [7; 16];

    fn offer(now: Instant) -> PairingOffer {
        PairingOffer::new(now, &PairingCode::from(RIGHT), Grant::default())
    }

    fn says(code: u8) -> Vec<u8> {
        PairingCode::from([code; 16]).authorization()
    }

    fn client(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    #[test]
    fn the_right_code_is_good_once_and_for_whom_it_was_good() {
        let now = Instant::now();
        let mut offer = offer(now);
        assert_eq!(offer.claimed(&client(1)), None);
        assert_eq!(offer.claim(now, &client(1), &says(7)), Some(Ok(())));
        assert_eq!(offer.claimed(&client(1)), Some(Grant::default()));
        assert_eq!(offer.claimed(&client(2)), None);
        // Its link died before its first record: it may come again, and nobody else may.
        assert_eq!(offer.claim(now, &client(1), &says(7)), Some(Ok(())));
        assert_eq!(
            offer.claim(now, &client(2), &says(7)),
            Some(Err(ClaimRefused::Used))
        );
        offer.use_up();
        for late in [1, 2] {
            assert_eq!(
                offer.claim(now, &client(late), &says(7)),
                Some(Err(ClaimRefused::Used))
            );
            assert_eq!(offer.claimed(&client(late)), None);
        }
    }

    #[test]
    fn a_code_is_good_for_ten_minutes_and_not_a_moment_longer() {
        let now = Instant::now();
        let (last, late) = (now + PAIRING_LIFE - Duration::from_nanos(1), now + PAIRING_LIFE);
        assert_eq!(offer(now).claim(last, &client(1), &says(7)), Some(Ok(())));
        let mut offer = offer(now);
        assert_eq!(
            offer.claim(late, &client(1), &says(7)),
            Some(Err(ClaimRefused::Expired))
        );
        assert_eq!(offer.claimed(&client(1)), None);
    }

    #[test]
    fn five_wrong_codes_void_the_right_one_and_four_do_not() {
        let now = Instant::now();
        for wrong in [PAIRING_TRIES_MAX - 1, PAIRING_TRIES_MAX] {
            let mut offer = offer(now);
            for _ in 0..wrong {
                assert_eq!(
                    offer.claim(now, &client(9), &says(8)),
                    Some(Err(ClaimRefused::Wrong))
                );
            }
            let expected = if wrong < PAIRING_TRIES_MAX {
                Ok(())
            } else {
                Err(ClaimRefused::Void)
            };
            assert_eq!(offer.claim(now, &client(1), &says(7)), Some(expected));
        }
    }

    /// C-18: an authorization of any bytes is no code, and not a try either.
    #[test]
    fn what_is_no_code_is_not_counted_as_a_wrong_one() {
        let now = Instant::now();
        let mut offer = offer(now);
        let blobs: [&[u8]; 6] = [b"", b"\0", &[0xff; 4096], b"pair1:", b"pair1:short", &[b'p'; 22]];
        for blob in blobs {
            assert_eq!(offer.claim(now, &client(9), blob), None, "{blob:?}");
        }
        assert_eq!(offer.claim(now, &client(1), &says(7)), Some(Ok(())));
    }
}
