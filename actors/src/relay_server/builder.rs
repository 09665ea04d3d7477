//! `Relay`: where to listen, whom to admit, then serve.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dwell_messages::Role;
use dwell_relay::driver::memory::Hub;
use dwell_relay::driver::tls::Certificate;
use dwell_relay::driver::{BoxFuture, Listen, net};
use dwell_relay::{Admission, OsRandomness, StaticKeypair};
use tokio::sync::oneshot;

use super::connection::envelope;
use super::error::RelayError;
use super::handle::{RelayHandle, Running};
use super::server::{MAILBOX_MAX, RelayServer, ToRelay};
use crate::config::RELAY_PORT_DEFAULT;
use crate::mailbox::{HostOptions, Mailbox, start_here};
use crate::oversight::Oversight;
use crate::runtime::Runtime;
use crate::rush_log::RushLog;
use crate::telemetry::{Collector, CollectorOptions};

/// How long no connection is accepted after the system refused one, as it does while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A relay: pairs harnesses with the executors they ask for and passes sealed frames between them.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// A relay on loopback, open to every process of this machine, with a fresh key.
    pub fn builder() -> RelayBuilder {
        RelayBuilder {
            place: Place::Tcp(format!("127.0.0.1:{RELAY_PORT_DEFAULT}")),
            identity: None,
            admission: Admission::Open,
            certificate: None,
            runtime: None,
            oversight: None,
        }
    }
}

#[derive(Debug)]
enum Place {
    Tcp(String),
    Memory(Hub, String),
}

impl Place {
    async fn listen(self, certificate: Option<Certificate>) -> Result<Box<dyn Listen>, RelayError> {
        match self {
            Self::Tcp(address) => match net::Listener::bind(&address, certificate).await {
                Ok(listener) => Ok(Box::new(listener)),
                Err(source) => Err(RelayError::Listen { address, source }),
            },
            Self::Memory(hub, name) => match hub.listen(&name) {
                Ok(listener) => Ok(Box::new(listener)),
                Err(source) => Err(RelayError::Listen {
                    address: name,
                    source,
                }),
            },
        }
    }
}

/// What a relay is made of.
#[must_use = "a relay runs once it is told to serve"]
#[derive(Debug)]
pub struct RelayBuilder {
    place: Place,
    identity: Option<StaticKeypair>,
    admission: Admission,
    certificate: Option<Certificate>,
    runtime: Option<Runtime>,
    oversight: Option<Oversight>,
}

impl RelayBuilder {
    /// Listens on `host:port`, for TCP and WebSockets alike. Port 0 takes a free one. Replaces what was said before about where to listen.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.place = Place::Tcp(address.into());
        self
    }

    /// Listens under a name inside this process. Replaces what was said before about where to listen.
    pub fn memory(mut self, hub: Hub, name: impl Into<String>) -> Self {
        self.place = Place::Memory(hub, name.into());
        self
    }

    /// The key that the relay proves to executors. Without one it draws a fresh key at every start.
    pub fn identity(mut self, identity: StaticKeypair) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Who may use it. `Admission::Open` is for loopback and memory only.
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// Serves TLS, too, on the port it listens on.
    pub fn tls(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Runs on one arbiter of this pool instead of a thread of its own.
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Looks at this relay while it runs: see there. Default: nobody does.
    pub fn oversight(mut self, oversight: Oversight) -> Self {
        self.oversight = Some(oversight);
        self
    }

    /// Starts. May be called on any tokio runtime. Cancellation safe: a dropped future leaves nothing running.
    ///
    /// # Errors
    /// [`RelayError`]: nothing listens then.
    pub async fn serve(self) -> Result<RelayHandle, RelayError> {
        self.boxed().await
    }

    /// Boxed, so that what it starts is compiled with this library and not again in every program that awaits it.
    fn boxed(self) -> BoxFuture<'static, Result<RelayHandle, RelayError>> {
        Box::pin(self.begin())
    }

    async fn begin(self) -> Result<RelayHandle, RelayError> {
        let identity = match self.identity {
            Some(identity) => identity,
            None => StaticKeypair::generate(&mut OsRandomness::new())?,
        };
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => own_runtime()?,
        };
        let overseen = match self.oversight {
            Some(oversight) => Some(oversight.start(runtime.collector(), &runtime)?),
            None => None,
        };
        let seat = runtime.place();
        let public_key = identity.public();
        let (place, admission, certificate) = (self.place, self.admission, self.certificate);
        let (answer, started) = oneshot::channel();
        seat.arbiter().spawn_fn(move || {
            tokio::task::spawn_local(async move {
                // A caller that went away drops what was started, and that ends it.
                drop(answer.send(start(place, certificate, identity, admission).await));
            });
        });
        let (address, running) = started.await.map_err(|_| RelayError::RuntimeEnded)??;
        tracing::info!(%address, relay = %dwell_relay::fingerprint(&public_key), "the relay listens");
        runtime.collector().board().meters().set_ready(true);
        Ok(RelayHandle::new(
            address,
            public_key,
            running,
            (seat, runtime),
            overseen,
        ))
    }
}

fn own_runtime() -> Result<Runtime, RelayError> {
    let collector = Collector::start(CollectorOptions {
        role: Role::Relay,
        keep_recent: false,
        sinks: Vec::new(),
    })
    .map_err(RelayError::Collector)?;
    Ok(Runtime::start(1, collector)?)
}

/// Listens and starts the actor, both on this arbiter.
async fn start(
    place: Place,
    certificate: Option<Certificate>,
    identity: StaticKeypair,
    admission: Admission,
) -> Result<(String, Running), RelayError> {
    let listener = place.listen(certificate).await?;
    let address = listener.address();
    if matches!(admission, Admission::Open) && !listener.is_loopback() {
        return Err(RelayError::OpenBeyondLoopback { address });
    }
    let next_conn = Rc::new(Cell::new(0));
    let mailbox = start_here(HostOptions::new(MAILBOX_MAX).restarting(), move || {
        RelayServer::new(admission.clone(), &identity, Rc::clone(&next_conn))
    });
    let accepting = tokio::task::spawn_local(accept(listener, mailbox.clone()));
    Ok((address, Running::new(accepting, mailbox)))
}

/// Accepts until the actor is gone.
async fn accept(mut listener: Box<dyn Listen>, mailbox: Mailbox<RelayServer>) {
    let mut rush = RushLog::default();
    loop {
        let accepted = listener.accept().await;
        rush.look(Instant::now(), listener.as_ref());
        match accepted {
            Ok(connection) => {
                if mailbox
                    .tell(envelope(ToRelay::Accepted(connection)))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {
                tracing::debug!(%error, "a connection was given up");
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted: check the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
