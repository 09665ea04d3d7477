//! The JSON dialect: what a Codex CLI says to its exec-server, and what it expects to hear. Pure types and their codec.
//!
//! JSON-RPC without its `jsonrpc` member, one object a message. [`Incoming::decode`] judges a message as a whole,
//! [`Call::decode`] the parameters of a request; whatever is wrong is a [`Fault`] that can be answered, never a panic.

mod blob;
mod capabilities;
mod fault;
mod files;
mod follow;
mod frame;
mod http;
mod method;
mod process;
mod sandbox;
mod session;
mod strict;
mod uri;

pub use blob::Blob;
pub use capabilities::{
    ConfigLayer, ConfigStack, DiscoverCapabilities, DiscoverRoots, DiscoveredCapabilities, DiscoveredRoot,
    DiscoveredRoots, EnvironmentConfig, ReadEnvironmentConfig, Root,
};
pub use fault::Fault;
pub use files::{
    Canonical, Canonicalize, CloseFile, Copy, CreateDirectory, DirectoryEntries, DirectoryItem, FileBlock,
    FileContents, FileInfo, GetMetadata, MissingChanged, OpenFile, OpenMode, OpenedFile, ReadBlock,
    ReadDirectory, ReadFile, Remove, Walk, WalkEntry, WalkError, WalkKind, WalkOptions, Walked, WatchMissing,
    Watching, WriteBlock, WriteFile,
};
pub use follow::{FollowError, Follower, Numbered, PENDING_MAX, PENDING_MAX_BYTES, Told};
pub use frame::{
    Carrier, Id, Incoming, Malformed, encode_error, encode_notification, encode_request, encode_response,
};
pub use http::{BodyDelta, Header, HttpAnswer, HttpRequest, RedirectPolicy};
pub use method::{Call, Group, ID_MAX_BYTES, INITIALIZED, Method, notification};
pub use process::{
    Accepted, Chunk, Closed, EnvPolicy, Exited, Interrupt, Output, Read, ReadAnswer, Signal, Start, Started,
    StreamName, Terminate, Terminated, Write, WriteStatus,
};
pub use sandbox::{Unclear, confinement_of};
pub use session::{
    Capabilities, EnvironmentInfo, EnvironmentStatus, InheritName, Initialize, Initialized, ShellInfo,
};
pub use strict::{DEPTH_MAX, VALUES_MAX};
pub use uri::{path_of, uri_of};

/// Bytes of one WebSocket frame, either way: what a stock client reads at the most.
pub const FRAME_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one message that is put together from several frames, and of one line.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Decoded bytes of one chunk of output that a stock client takes.
pub const CHUNK_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of an open file that one request may read or write.
pub const BLOCK_MAX_BYTES: usize = 1024 * 1024;
/// Open files of one connection.
pub const HANDLES_MAX: usize = 128;
/// Bytes of the name that a client gives an open file.
pub const HANDLE_ID_MAX_BYTES: usize = 32;
