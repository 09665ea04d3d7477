//! How a session is set up.

use std::fmt;
use std::time::Duration;

use dwell_messages::Role;
use dwell_relay::driver::tls::Trust;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::endpoint::Endpoint;
use super::request::MetadataKeys;
use super::secret::ApiKey;
use super::session::Responses;
use crate::harness::Harness;
use crate::runtime::{Runtime, RuntimeError};
use crate::telemetry::{Collector, CollectorOptions, SpanSink};

/// For how long a connection may take: TCP, TLS and the upgrade together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// For how long a server may say nothing while it answers: models think.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// For how long a request may take in all, waiting for its turn included.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Headers of the caller's own.
pub const HEADERS_MAX: usize = 32;
/// What asks a server for its timing sideband.
const TIMING_HEADER: &str = "x-responsesapi-include-timing-metrics";

/// How long things may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadlines {
    /// TCP, TLS and the upgrade together.
    pub connect: Duration,
    /// Between two messages of the server, and for writing the request.
    pub idle: Duration,
    /// The whole request, its wait for earlier ones and a slow consumer included.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            idle: IDLE_TIMEOUT,
            total: TOTAL_TIMEOUT,
        }
    }
}

/// Why a session cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A header's name or value is none, or there are too many of them. Never says which value.
    #[error("header {0} cannot be sent: use visible ASCII, and at most {HEADERS_MAX} headers")]
    Header(String),
    /// The collector's thread cannot be started.
    #[error("the collector's thread could not be started: raise the thread limit")]
    Collector(#[source] std::io::Error),
    /// The actors' thread cannot be started.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Sets up a session with a model's server.
pub struct ResponsesBuilder {
    endpoint: Endpoint,
    key: Option<ApiKey>,
    trust: Trust,
    keys: MetadataKeys,
    deadlines: Deadlines,
    headers: Vec<(String, String)>,
    sinks: Vec<Box<dyn SpanSink>>,
}

impl fmt::Debug for ResponsesBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponsesBuilder")
            .field("endpoint", &self.endpoint)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

impl ResponsesBuilder {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            key: None,
            trust: Trust::default(),
            keys: MetadataKeys::default(),
            deadlines: Deadlines::default(),
            headers: Vec::new(),
            sinks: Vec::new(),
        }
    }

    /// The key to show. Without one nothing is shown, which servers on this machine may not mind.
    #[must_use]
    pub fn key(mut self, key: ApiKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Whose certificates are accepted. Default: those of the authorities that browsers trust.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Where in a request's client metadata its sending is described.
    #[must_use]
    pub fn metadata_keys(mut self, keys: MetadataKeys) -> Self {
        self.keys = keys;
        self
    }

    /// How long things may take.
    #[must_use]
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// One more header of the upgrade and of each POST, as an organisation's or a beta's. Treated as secret.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A place for spans to go, of a session that is opened by itself.
    #[must_use]
    pub fn sink(mut self, sink: impl SpanSink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Opens it on a thread of its own. Nothing is dialled before the first request.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(mut self) -> Result<Responses, OpenError> {
        let collector = Collector::start(CollectorOptions {
            role: Role::Harness,
            keep_recent: false,
            sinks: std::mem::take(&mut self.sinks),
        })
        .map_err(OpenError::Collector)?;
        let runtime = Runtime::start(1, collector)?;
        self.on(&runtime)
    }

    /// Opens it beside a harness: on its threads, with its trace file and its metrics. Sinks of this builder's are not
    /// used.
    ///
    /// # Errors
    /// [`OpenError::Header`].
    pub fn beside(self, harness: &Harness) -> Result<Responses, OpenError> {
        self.on(harness.runtime())
    }

    fn on(self, runtime: &Runtime) -> Result<Responses, OpenError> {
        let headers = self.headers()?;
        let config = Config {
            endpoint: self.endpoint,
            trust: self.trust,
            keys: self.keys,
            deadlines: self.deadlines,
            headers,
            key: self.key,
        };
        Ok(Responses::start(config, runtime.clone()))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, OpenError> {
        if let Some((name, _)) = self.headers.get(HEADERS_MAX) {
            return Err(OpenError::Header(name.clone()));
        }
        self.headers
            .iter()
            .map(|(name, value)| {
                let wrong = || OpenError::Header(name.escape_default().to_string());
                let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
                value.set_sensitive(true);
                Ok((
                    HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?,
                    value,
                ))
            })
            .collect()
    }
}

/// What a session needs to know.
pub(super) struct Config {
    pub(super) endpoint: Endpoint,
    pub(super) trust: Trust,
    pub(super) keys: MetadataKeys,
    pub(super) deadlines: Deadlines,
    headers: Vec<(HeaderName, HeaderValue)>,
    key: Option<ApiKey>,
}

impl Config {
    /// What every connection's first request carries. The key's own copy here is wiped; the one in the header lives as
    /// long as that request.
    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = self.headers.clone();
        headers.push((
            HeaderName::from_static(TIMING_HEADER),
            HeaderValue::from_static("true"),
        ));
        if let Some(Ok(mut value)) = self.key.as_ref().map(|key| HeaderValue::from_str(&key.bearer())) {
            value.set_sensitive(true);
            headers.push((AUTHORIZATION, value));
        }
        headers
    }
}
