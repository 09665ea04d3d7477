//! Transports: what carries the cores' bytes. Nothing in here knows what they mean.

pub mod address;
mod flushed;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod memory;
pub mod net;
mod restraint;
pub mod tcp;
pub mod tls;
pub mod websocket;
mod write;

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::source::Source;

pub use self::address::NetAddress;
pub use self::flushed::{GOODBYE_TIMEOUT, KEEP_ALIVE_INTERVAL};
pub use self::restraint::{ANSWERED_BYTES_MAX, OPENING_BYTES_MAX, Restraint, STRANGERS_BYTES_MAX};
pub use self::write::{WRITE_STALL_TIMEOUT, WriteError, consume, write_all, write_frames};

/// A future on a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One transport connection, in two halves that different tasks may own.
pub struct Connection {
    /// What arrives.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What leaves. Dropping or shutting it down tells the peer that nothing follows.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The other end, for people.
    pub peer: String,
    /// Where the other end is, to tell strangers apart.
    pub source: Source,
    /// What it may make the transport hold. Lift it when it is known who it is.
    pub restraint: Restraint,
    /// What it costs to hold, of which nothing is known yet: one over TCP is 1.
    pub weight: usize,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Something that can be dialled.
pub trait Dial: Send + Sync {
    /// Opens a connection. Dropping the future gives it up.
    ///
    /// # Errors
    /// What the transport says.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;
}

/// Something that connections come to.
pub trait Listen: Send {
    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What the transport says; the listener may still be good for the next call, and is when the kind is
    /// [`io::ErrorKind::ConnectionAborted`]: then one dialler failed to open its connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;

    /// Where it listens, as a dialler would write it.
    fn address(&self) -> String;

    /// Whether only this machine can reach it.
    fn is_loopback(&self) -> bool;

    /// Connections so far that were dropped as they came, because more came than anybody can need.
    fn turned_away(&self) -> u64 {
        0
    }
}
