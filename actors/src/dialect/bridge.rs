//! A gateway for an executor that is elsewhere: beside its client, and over a sealed link.

use std::fmt;

use dwell_messages::Role;
use dwell_relay::StaticKeypair;
use dwell_relay::driver::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::{DialectError, DialectOptions, Plan, Serving, serve};
use crate::harness::Target;
use crate::runtime::{Place, Runtime};
use crate::telemetry::{Collector, CollectorOptions};

/// A gateway that serves. Dropping it closes every connection and ends every session, and with them what they run.
pub struct Bridge {
    serving: Serving,
    stop: watch::Sender<bool>,
    _place: Place,
    _runtime: Runtime,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("serving", &self.serving)
            .finish_non_exhaustive()
    }
}

impl Bridge {
    /// Connects to an executor as this client, and serves the JSON dialect in its name. The client's key has to be listed
    /// there; each session of the dialect is a session of that key.
    ///
    /// # Errors
    /// `DialectError` says what to change. Cancellation: what was begun goes on until it is ready, and then ends.
    pub async fn serve(
        options: DialectOptions,
        identity: StaticKeypair,
        target: Target,
    ) -> Result<Self, DialectError> {
        Self::boxed(options, identity, target).await
    }

    /// Boxed, so that what it starts is compiled with this library and not again in every program that awaits it.
    fn boxed(
        options: DialectOptions,
        identity: StaticKeypair,
        target: Target,
    ) -> BoxFuture<'static, Result<Self, DialectError>> {
        Box::pin(Self::begin(options, identity, target))
    }

    async fn begin(
        options: DialectOptions,
        identity: StaticKeypair,
        target: Target,
    ) -> Result<Self, DialectError> {
        let collector = Collector::start(CollectorOptions {
            role: Role::Harness,
            keep_recent: false,
            sinks: Vec::new(),
        })
        .map_err(|_| DialectError::Ended)?;
        let runtime = Runtime::start(1, collector).map_err(|_| DialectError::Ended)?;
        let (ready, wait) = oneshot::channel();
        let (stop, stopped) = watch::channel(false);
        let plan = Plan {
            options,
            identity,
            target,
            is_local: false,
            ready,
            stop: stopped,
        };
        let place = runtime.place();
        place.arbiter().spawn_fn(move || {
            actix_rt::spawn(serve(plan));
        });
        Ok(Self {
            serving: wait.await.unwrap_or(Err(DialectError::Ended))?,
            stop,
            _place: place,
            _runtime: runtime,
        })
    }

    /// Where it listens, unless it serves standard input.
    pub fn url(&self) -> Option<&str> {
        self.serving.url.as_deref()
    }

    /// Waits until its one client on standard input is gone; for ever, where it listens.
    pub async fn over(&self) {
        self.serving.client_is_gone().await;
    }

    /// Closes every connection and ends every session; returns when they were told to.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let mut over = self.serving.over.clone();
        // A gateway that failed is over as well.
        drop(over.wait_for(|over| *over).await);
    }
}
