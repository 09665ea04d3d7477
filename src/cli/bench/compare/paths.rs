//! The ways to a server: straight, or through a proxy that takes its time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::delay;
use super::peer::Trouble;

/// One proxy for each server and latency, made when it is first gone through.
#[derive(Debug, Default)]
pub(crate) struct Paths(RefCell<HashMap<(SocketAddr, Duration), SocketAddr>>);

impl Paths {
    /// Where to connect so that a round trip to `server` takes so long more.
    pub(crate) fn to(&self, server: SocketAddr, round_trip: Duration) -> Result<SocketAddr, Trouble> {
        if round_trip.is_zero() {
            return Ok(server);
        }
        let mut known = self.0.borrow_mut();
        if let Some(proxy) = known.get(&(server, round_trip)) {
            return Ok(*proxy);
        }
        let proxy = delay::start(server, round_trip / 2)
            .map_err(|error| Trouble::failed("making a slow link", error))?;
        known.insert((server, round_trip), proxy);
        Ok(proxy)
    }
}
