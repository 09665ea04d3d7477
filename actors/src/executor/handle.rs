//! An executor that serves: its handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dwell_messages::PublicKey;
use dwell_relay::driver::memory::{Hub, MemoryListener};
use dwell_relay::driver::tls::Certificate;
use dwell_relay::driver::{Listen, net};
use dwell_relay::strangers::HandshakeCounts;
use tokio::sync::{oneshot, watch};

use super::builder::Inside;
use super::shared::Shared;
use super::{ServeError, port};
use crate::access::watch as watch_access;
use crate::address::Address;
use crate::dialect::{self, DialectError, Plan, Serving};
use crate::harness::Target;
use crate::oversight::Overseen;
use crate::relay_framer::FramerControl;
use crate::runtime::{Place, Runtime};

/// How long `shutdown` waits for processes to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// The name under which an executor's own gateway reaches it.
const INSIDE: &str = "dialect";

/// Who has proven nothing to an executor, and what became of those who asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Strangers {
    /// Every message 1 since the start.
    pub handshakes: HandshakeCounts,
    /// Handshakes that have been answered and not confirmed, at most `PENDING_MAX`.
    pub pending: usize,
    /// Direct connections whose client has proven nothing, at most [`UNPROVEN_MAX`](super::UNPROVEN_MAX).
    pub connections: usize,
}

/// Whether the relay knows this executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    Pending,
    Registered,
    Failed(String),
}

/// An executor that serves. Dropping it ends every session and what they run; `shutdown` does so in order.
pub struct ExecutorHandle {
    pub(super) overseen: Option<Overseen>,
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Runtime,
    pub(super) places: Vec<Place>,
    pub(super) registered: watch::Receiver<Registration>,
    pub(super) listening: Option<String>,
    pub(super) dialect: Option<Serving>,
    pub(super) stop: watch::Sender<bool>,
}

impl fmt::Debug for ExecutorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorHandle")
            .field("public", &self.shared.public)
            .finish_non_exhaustive()
    }
}

impl ExecutorHandle {
    /// The key that harnesses pin.
    pub fn public_key(&self) -> PublicKey {
        self.shared.public
    }

    /// Where it listens itself, if it does.
    pub fn local_addr(&self) -> Option<String> {
        self.listening.clone()
    }

    /// Where it serves the JSON dialect, if it does so over WebSockets.
    pub fn dialect_url(&self) -> Option<&str> {
        self.dialect.as_ref()?.url.as_deref()
    }

    /// Waits until the one client of the JSON dialect on standard input is gone; for ever, where there is none.
    pub async fn dialect_over(&self) {
        match &self.dialect {
            Some(serving) => serving.client_is_gone().await,
            None => std::future::pending().await,
        }
    }

    /// The socket at which it answers `dwell inspect`, if it does.
    pub fn inspect_socket(&self) -> Option<&std::path::Path> {
        self.overseen.as_ref()?.socket()
    }

    /// Where its metrics are, if they are anywhere.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.overseen.as_ref()?.metrics_addr()
    }

    /// Sessions at the moment.
    pub fn sessions(&self) -> usize {
        self.shared.running().len()
    }

    /// What became of every handshake that was asked for, and what is under way.
    pub fn strangers(&self) -> Strangers {
        let (handshakes, pending) = self.shared.door.counts();
        Strangers {
            handshakes,
            pending,
            connections: self.shared.door.unproven(),
        }
    }

    /// Waits until the relay has registered this executor. Cancellation safe.
    ///
    /// # Errors
    /// When there is no relay, or it refuses for good; a relay that cannot be reached is tried again and again.
    pub async fn registered(&self) -> Result<(), ServeError> {
        let mut registered = self.registered.clone();
        loop {
            let now = registered.borrow_and_update().clone();
            match now {
                Registration::Registered => return Ok(()),
                Registration::Failed(why) => {
                    return Err(ServeError::Register {
                        address: "its address".into(),
                        why,
                    });
                }
                Registration::Pending => {}
            }
            if registered.changed().await.is_err() {
                return Err(ServeError::Nowhere);
            }
        }
    }

    /// Admits nobody new, tells every client, ends every process (TERM, then KILL) and waits for that, at most
    /// `SHUTDOWN_GRACE`. Cancellation: what was begun goes on.
    pub async fn shutdown(self) {
        self.shared.collector.board().meters().set_ready(false);
        self.shared.stopping.store(true, Ordering::Release);
        self.stop.send_replace(true);
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                let running = self.shared.running();
                if running.is_empty() {
                    break;
                }
                for framer in running {
                    let why = "the executor is shutting down";
                    drop(framer.control(FramerControl::WindDown(why.into())));
                }
                changed.await;
            }
            if let Some(dialect) = &self.dialect {
                dialect.ended().await;
            }
        };
        // The library's own timer: the caller's runtime may have none.
        let (done, over) = oneshot::channel();
        let place = self.runtime.place();
        place.arbiter().spawn(async move {
            tokio::time::sleep(SHUTDOWN_GRACE).await;
            done.send(()).ok();
        });
        let mut over = std::pin::pin!(over);
        let mut wait = std::pin::pin!(wait);
        std::future::poll_fn(|cx| {
            if wait.as_mut().poll(cx).is_ready() || over.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
        self.shared.gate.audit().flush().await;
        self.shared.collector.flush().await;
    }

    /// Starts the gateway on a thread of this executor's, and its sessions over connections that are none.
    pub(super) async fn serve_dialect(&mut self, inside: Inside) -> Result<(), ServeError> {
        let hub = Hub::new();
        let listener = hub
            .listen(INSIDE)
            .map_err(|error| ServeError::Local(error.to_string()))?;
        self.start_memory(listener);
        let (ready, wait) = oneshot::channel();
        let plan = Plan {
            options: inside.options,
            identity: inside.identity,
            target: Target::direct(Address::Memory(hub, INSIDE.into()), self.shared.public),
            is_local: true,
            ready,
            stop: self.stop.subscribe(),
        };
        let place = self.runtime.place();
        place.arbiter().spawn_fn(move || {
            actix_rt::spawn(dialect::serve(plan));
        });
        self.places.push(place);
        self.dialect = Some(wait.await.unwrap_or(Err(DialectError::Ended))?);
        Ok(())
    }

    fn start_memory(&mut self, listener: MemoryListener) {
        let place = self.runtime.place();
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.subscribe());
        let arbiters = self.runtime.clone();
        place.arbiter().spawn_fn(move || {
            let listener: Box<dyn Listen> = Box::new(listener);
            actix_rt::spawn(port::accept(listener, shared, stop, arbiters));
        });
        self.places.push(place);
    }

    pub(super) async fn start(
        &mut self,
        listen: Option<(String, Option<Certificate>)>,
        hub: Option<MemoryListener>,
        relay: Option<Address>,
    ) -> Result<(), ServeError> {
        let place = self.runtime.place();
        let (gate, stop) = (Arc::clone(&self.shared.gate), self.stop.subscribe());
        place.arbiter().spawn_fn(move || {
            actix_rt::spawn(watch_access(gate, stop));
        });
        self.places.push(place);
        if let Some((address, certificate)) = listen {
            let (ready, wait) = oneshot::channel();
            let place = self.runtime.place();
            let (shared, stop) = (Arc::clone(&self.shared), self.stop.subscribe());
            let arbiters = self.runtime.clone();
            let wanted = address.clone();
            place.arbiter().spawn_fn(move || {
                actix_rt::spawn(async move {
                    match net::Listener::bind(&wanted, certificate).await {
                        Ok(listener) => {
                            drop(ready.send(Ok(listener.local_addr().to_string())));
                            port::accept(Box::new(listener), shared, stop, arbiters).await;
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                });
            });
            let bound = wait
                .await
                .map_err(|_| ServeError::Local("the listener ended early".into()))?;
            self.listening = Some(bound.map_err(|source| ServeError::Listen { address, source })?);
            self.places.push(place);
        }
        if let Some(listener) = hub {
            self.start_memory(listener);
        }
        if relay.is_none() {
            self.shared.collector.board().meters().set_ready(true);
        }
        if let Some(address) = relay {
            let place = self.runtime.place();
            let (progress, registered) = watch::channel(Registration::Pending);
            self.registered = registered;
            let (shared, stop) = (Arc::clone(&self.shared), self.stop.subscribe());
            place.arbiter().spawn_fn(move || {
                actix_rt::spawn(port::register(address, shared, stop, progress));
            });
            self.places.push(place);
        }
        Ok(())
    }
}

impl Drop for ExecutorHandle {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.stop.send_replace(true);
        for framer in self.shared.running() {
            drop(framer.control(FramerControl::End("the executor is gone".into())));
        }
    }
}
