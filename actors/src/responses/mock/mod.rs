//! A server that plays a model, on loopback: for tests, and for `dwell turn --mock`. It speaks the protocol, over a
//! WebSocket and over POST, sideband included, and plays the faults that it is told to play. It understands nothing.

mod script;
mod serve;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

pub use script::{
    call, completed, created, deltas, failed, first_turn, incomplete, message, refused, sideband,
};

use super::endpoint::Endpoint;
use crate::in_flight::unpoisoned;

/// Requests that are remembered; past it the newest are not.
pub const SEEN_MAX: usize = 4_096;
/// Bytes of a request's head, and of its body.
pub(super) const REQUEST_MAX_BYTES: usize = super::request::REQUEST_MAX_BYTES + 64 * 1024;

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection it came on, from 1 on.
    pub connection: u32,
    /// Which request of it, from 1 on.
    pub request: u32,
    /// Whether it was posted.
    pub is_post: bool,
    /// The headers of the connection's first request; names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was asked.
    pub body: Value,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A text of its client metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.body.get("client_metadata")?.get(name)?.as_str()
    }

    /// The last item of its input.
    pub fn last_input(&self) -> Option<&Value> {
        self.body.get("input")?.as_array()?.last()
    }
}

/// One thing that the server does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends an event.
    Event(Value),
    /// Sends this text as a message, whatever it is.
    Text(String),
    /// Sends these bytes as a binary message.
    Binary(Vec<u8>),
    /// Pings.
    Ping,
    /// Waits.
    Pause(Duration),
    /// Waits until somebody lets it go on.
    Hold(Arc<tokio::sync::Notify>),
    /// Counts that it came this far.
    Mark(Arc<std::sync::atomic::AtomicU64>),
    /// Closes the WebSocket in order.
    Close,
    /// Ends the connection without a word.
    Cut,
}

/// What the server does with a question for a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Upgrade {
    /// Says yes.
    #[default]
    Takes,
    /// Says no, with this status.
    Refuses(u16),
    /// Ends the connection.
    Cuts,
    /// Never answers.
    Hangs,
}

/// What the server does with a POST.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Posting {
    /// Answers with events.
    #[default]
    Takes,
    /// Says no.
    Refuses {
        /// With this status.
        status: u16,
        /// More lines of the head, each with its line end.
        head: String,
        /// And this body.
        body: String,
    },
}

type Play = Box<dyn Fn(&Seen) -> Vec<Act> + Send + Sync>;

pub(super) struct Manner {
    pub(super) play: Play,
    pub(super) upgrade: Upgrade,
    pub(super) posting: Posting,
    pub(super) seen: Mutex<Vec<Seen>>,
}

/// See the module. Stops when it is dropped.
pub struct MockModel {
    address: SocketAddr,
    manner: Arc<Manner>,
    task: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for MockModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockModel")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for MockModel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MockModel {
    /// Starts on a free port of loopback, on the runtime this is called on. `play` says what is done with each request.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub async fn start(play: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> std::io::Result<Self> {
        Self::with(Upgrade::Takes, Posting::Takes, play).await
    }

    /// As `start`, with other manners.
    ///
    /// # Errors
    /// As there.
    pub async fn with(
        upgrade: Upgrade,
        posting: Posting,
        play: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let manner = Arc::new(Manner {
            play: Box::new(play),
            upgrade,
            posting,
            seen: Mutex::default(),
        });
        let task = tokio::spawn(serve::listen(listener, Arc::clone(&manner)));
        Ok(Self {
            address,
            manner,
            task,
        })
    }

    /// Where it is.
    pub fn endpoint(&self) -> Endpoint {
        self.url().parse().expect("an address of loopback is an endpoint")
    }

    /// Where it is, as text.
    pub fn url(&self) -> String {
        format!("ws://{}/v1/responses", self.address)
    }

    /// The requests that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        unpoisoned(&self.manner.seen).clone()
    }
}
