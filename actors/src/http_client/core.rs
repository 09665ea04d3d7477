//! Which exchanges a session has, and what their requests hold. Pure.

use std::collections::HashMap;

use dwell_messages::http::{ExchangeId, Open};
use dwell_messages::{ErrorCode, WireError};

use super::{BODIES_MAX_BYTES, EXCHANGES_MAX};

/// One life of an exchange: a number that was closed may be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life(u64);

struct Entry<T> {
    life: Life,
    body_bytes: u64,
    it: T,
}

/// See the module. `T` is the way to an exchange's task; dropping it ends that.
pub(super) struct Exchanges<T> {
    entries: HashMap<ExchangeId, Entry<T>>,
    lives: u64,
    bodies_bytes: u64,
}

impl<T> Default for Exchanges<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            lives: 0,
            bodies_bytes: 0,
        }
    }
}

pub(super) fn unknown() -> WireError {
    let text = "there is no such exchange: it is over, or was given up";
    WireError::new(ErrorCode::UnknownHandle, text)
}

impl<T> Exchanges<T> {
    /// Takes one more in, made by `begin`.
    ///
    /// # Errors
    /// `Busy` past a bound, `BadRequest` where there is one of this number.
    pub(super) fn open(&mut self, open: &Open, begin: impl FnOnce(Life) -> T) -> Result<(), WireError> {
        if self.entries.contains_key(&open.exchange) {
            let text = "an exchange of this number is there already";
            return Err(WireError::new(ErrorCode::BadRequest, text));
        }
        if self.entries.len() >= EXCHANGES_MAX {
            let text = "too many HTTP requests of this session are under way";
            return Err(WireError::new(ErrorCode::Busy, text)
                .with_limit(EXCHANGES_MAX as u64, EXCHANGES_MAX as u64 + 1));
        }
        let bodies_bytes = self.bodies_bytes.saturating_add(open.body_bytes);
        if bodies_bytes > BODIES_MAX_BYTES {
            let text = "the bodies of this session's HTTP requests are too large together";
            return Err(WireError::new(ErrorCode::Busy, text).with_limit(BODIES_MAX_BYTES, bodies_bytes));
        }
        self.bodies_bytes = bodies_bytes;
        self.lives += 1;
        let life = Life(self.lives);
        let entry = Entry {
            life,
            body_bytes: open.body_bytes,
            it: begin(life),
        };
        self.entries.insert(open.exchange, entry);
        Ok(())
    }

    /// The exchange of this number.
    ///
    /// # Errors
    /// `UnknownHandle`.
    pub(super) fn of(&self, exchange: ExchangeId) -> Result<&T, WireError> {
        self.entries
            .get(&exchange)
            .map(|entry| &entry.it)
            .ok_or_else(unknown)
    }

    /// It is given up.
    pub(super) fn close(&mut self, exchange: ExchangeId) -> Option<T> {
        let entry = self.entries.remove(&exchange)?;
        self.bodies_bytes -= entry.body_bytes;
        Some(entry.it)
    }

    /// That life of it is over, if it still is that one.
    pub(super) fn over(&mut self, exchange: ExchangeId, life: Life) {
        if self
            .entries
            .get(&exchange)
            .is_some_and(|entry| entry.life == life)
        {
            drop(self.close(exchange));
        }
    }

    /// All are given up.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bodies_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dwell_messages::http::{BODY_MAX_BYTES, Redirects};

    use super::*;

    fn open(exchange: u64, body_bytes: u64) -> Open {
        Open {
            exchange: ExchangeId(exchange),
            method: "GET".into(),
            url: "http://localhost".into(),
            headers: Vec::new(),
            redirects: Redirects::Follow,
            timeout_ms: None,
            body_bytes,
            data: Bytes::new(),
        }
    }

    fn refusal(outcome: Result<(), WireError>) -> Option<ErrorCode> {
        outcome.err().map(|error| error.code)
    }

    #[test]
    fn a_session_has_so_many_exchanges_and_one_more_when_one_is_over() {
        let mut exchanges = Exchanges::default();
        let mut lives = Vec::new();
        for id in 0..EXCHANGES_MAX as u64 {
            exchanges.open(&open(id + 1, 0), |life| lives.push(life)).unwrap();
        }
        let one_more = open(1_000, 0);
        let refused = refusal(exchanges.open(&one_more, |_| panic!("it was begun")));
        assert_eq!(refused, Some(ErrorCode::Busy));
        exchanges.over(ExchangeId(1), lives[0]);
        assert_eq!(refusal(exchanges.open(&one_more, |_| ())), None);
    }

    #[test]
    fn what_their_bodies_hold_is_counted_until_they_are_over() {
        let mut exchanges = Exchanges::default();
        let room = BODIES_MAX_BYTES / BODY_MAX_BYTES;
        for id in 1..=room {
            exchanges.open(&open(id, BODY_MAX_BYTES), |_| ()).unwrap();
        }
        let refused = exchanges
            .open(&open(100, 1), |_| panic!("it was begun"))
            .unwrap_err();
        assert_eq!(
            (refused.code, refused.limit),
            (ErrorCode::Busy, Some(BODIES_MAX_BYTES))
        );
        assert_eq!(refusal(exchanges.open(&open(100, 0), |_| ())), None);
        exchanges.close(ExchangeId(1));
        assert_eq!(refusal(exchanges.open(&open(101, BODY_MAX_BYTES), |_| ())), None);
        exchanges.clear();
        assert_eq!(exchanges.bodies_bytes, 0);
    }

    /// The end of a life is told by a task, and may come when its number has another life.
    #[test]
    fn the_end_of_a_life_ends_no_other_life_of_its_number() {
        let mut exchanges = Exchanges::default();
        let mut lives = Vec::new();
        exchanges.open(&open(1, 0), |life| lives.push(life)).unwrap();
        let twice = exchanges.open(&open(1, 0), |_| panic!("it was begun"));
        assert_eq!(refusal(twice), Some(ErrorCode::BadRequest));
        exchanges.close(ExchangeId(1));
        exchanges.open(&open(1, 0), |life| lives.push(life)).unwrap();
        exchanges.over(ExchangeId(1), lives[0]);
        assert!(exchanges.of(ExchangeId(1)).is_ok());
        exchanges.over(ExchangeId(1), lives[1]);
        let gone = exchanges.of(ExchangeId(1)).unwrap_err();
        assert_eq!(gone.code, ErrorCode::UnknownHandle);
    }
}
