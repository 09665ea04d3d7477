//! Looking at a role from outside while it runs: the inspection socket, the watchdog, the metrics' endpoint.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::inspect::{Place, PlaceError, Server};
#[cfg(feature = "otlp")]
use crate::metrics::otlp::Exporter;
use crate::metrics::{Http, Source, Verdict, gather, render};
use crate::runtime::Runtime;
use crate::telemetry::{Collector, Tick};
use crate::watchdog::{STUCK_AFTER, Watchdog};

/// After how long an actor thread that runs nothing makes `/livez` fail, unless it is said otherwise.
pub const LIVE_AFTER: Duration = Duration::from_secs(10);

/// What looks at a role while it runs. Without it nothing does: the table is kept, and nobody reads it.
///
/// The watchdog always runs with it: one warning for each place that has not moved for a second, until it moves again.
/// With the feature `otlp` the metrics are exported, too, where `OTEL_EXPORTER_OTLP_ENDPOINT` names a place for them.
#[derive(Clone, Debug)]
#[must_use = "it is given to a role's builder"]
pub struct Oversight {
    inspect: Option<PathBuf>,
    /// Whether it goes on without.
    inspect_at_will: bool,
    metrics: Option<SocketAddr>,
    metrics_beyond_loopback: bool,
    stuck_after: Duration,
    live_after: Duration,
}

impl Default for Oversight {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a role is not looked at. Nothing of it was started.
#[derive(Debug, thiserror::Error)]
pub enum OversightError {
    /// There is no socket for inspection.
    #[error(transparent)]
    Inspect(#[from] PlaceError),
    /// The metrics would be there for everybody.
    #[error(
        "metrics on {address} could be read by others: listen on loopback (127.0.0.1), or allow it explicitly where the \
         network is yours"
    )]
    BeyondLoopback {
        /// Where.
        address: SocketAddr,
    },
    /// The metrics' address cannot be listened on.
    #[error("{address} cannot be listened on for metrics; choose another port, or end what listens there")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("a thread that looks at this role could not be started: raise the thread limit")]
    Thread(#[source] std::io::Error),
}

impl Oversight {
    /// The watchdog alone.
    pub fn new() -> Self {
        Self {
            inspect: None,
            inspect_at_will: false,
            metrics: None,
            metrics_beyond_loopback: false,
            stuck_after: STUCK_AFTER,
            live_after: LIVE_AFTER,
        }
    }

    /// Answers `dwell inspect` at a socket in this directory, which is made with mode 0700 and must have it.
    pub fn inspect(mut self, dir: impl Into<PathBuf>) -> Self {
        self.inspect = Some(dir.into());
        self
    }

    /// As `inspect`; a socket that cannot be made is logged, and the role goes on without.
    pub fn inspect_or_warn(mut self, dir: impl Into<PathBuf>) -> Self {
        self.inspect_at_will = true;
        self.inspect(dir)
    }

    /// Serves `/metrics`, `/livez` and `/readyz` over HTTP there. Port 0 takes a free one. Loopback only, unless
    /// `metrics_beyond_loopback` says otherwise: whoever reaches it reads how much is done here.
    pub fn metrics(mut self, address: SocketAddr) -> Self {
        self.metrics = Some(address);
        self
    }

    /// The metrics may be served on an address that others can reach.
    pub fn metrics_beyond_loopback(mut self) -> Self {
        self.metrics_beyond_loopback = true;
        self
    }

    /// After how long without a move a place is told of. Default: a second. At least 4 ms, since it is looked four times
    /// within.
    pub fn stuck_after(mut self, after: Duration) -> Self {
        self.stuck_after = after.max(Duration::from_millis(4));
        self
    }

    /// After how long an actor thread that runs nothing makes `/livez` fail. Default: `LIVE_AFTER`.
    pub fn live_after(mut self, after: Duration) -> Self {
        self.live_after = after;
        self
    }

    /// Begins to look.
    ///
    /// # Errors
    /// Nothing was begun then.
    pub(crate) fn start(self, collector: &Collector, runtime: &Runtime) -> Result<Overseen, OversightError> {
        let place = match &self.inspect {
            Some(dir) => match Place::make(dir, collector.board().role()) {
                Ok(place) => Some(place),
                Err(error) if self.inspect_at_will => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "`dwell inspect` is not answered"
                    );
                    None
                }
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let http = match self.metrics {
            Some(address) if !address.ip().is_loopback() && !self.metrics_beyond_loopback => {
                return Err(OversightError::BeyondLoopback { address });
            }
            Some(address) => {
                let source = Arc::new(Role {
                    collector: collector.clone(),
                    live_after: self.live_after,
                });
                let http = Http::start(address, source);
                Some(http.map_err(|source| OversightError::Listen { address, source })?)
            }
            None => None,
        };
        let server = match place {
            Some(place) => Some(Server::start(place, collector.clone()).map_err(OversightError::Thread)?),
            None => None,
        };
        let board = collector.board();
        board.set_watched();
        board.arbiters().watch(runtime.handles());
        let watchdog =
            Watchdog::start(Arc::clone(board), self.stuck_after).map_err(OversightError::Thread)?;
        #[cfg(feature = "otlp")]
        let exporter = match Exporter::from_environment(collector, |name| std::env::var(name).ok()) {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::warn!(%error, "metrics are not exported over OTLP");
                None
            }
        };
        Ok(Overseen {
            #[cfg(feature = "otlp")]
            _exporter: exporter,
            _watchdog: watchdog,
            server,
            http,
        })
    }
}

/// A role that is looked at, until this is dropped.
#[derive(Debug)]
pub(crate) struct Overseen {
    _watchdog: Watchdog,
    #[cfg(feature = "otlp")]
    _exporter: Option<Exporter>,
    server: Option<Server>,
    http: Option<Http>,
}

impl Overseen {
    /// The socket that answers `dwell inspect`.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.server.as_ref().map(Server::path)
    }

    /// Where the metrics are.
    pub(crate) fn metrics_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Http::address)
    }
}

/// What the endpoint tells of a role.
struct Role {
    collector: Collector,
    live_after: Duration,
}

impl Source for Role {
    fn metrics(&self) -> String {
        render(&gather(&self.collector))
    }

    fn live(&self) -> Verdict {
        let now = Tick::now();
        for arbiter in self.collector.board().look().arbiters {
            let waited = arbiter.asked.map_or(0, |asked| now.micros_since(asked));
            if Duration::from_micros(waited) >= self.live_after {
                return Verdict::Ill(format!(
                    "actor thread {} has run nothing for {} s",
                    arbiter.thread,
                    waited / 1_000_000
                ));
            }
        }
        Verdict::Well
    }

    fn ready(&self) -> Verdict {
        if self.collector.board().meters().is_ready() {
            Verdict::Well
        } else {
            Verdict::Ill("it does not serve: it does not listen, or its relay does not know it".into())
        }
    }
}
