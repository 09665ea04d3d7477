//! In place of the role assemblies in a build without them: every attempt says so.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::keys::{self, KeyError};
use dwell_messages::{ExitStatus, PublicKey, TraceContext, TraceId};
use dwell_relay::{Admission, StaticKeypair};
use serde_json::Value;

use super::failure::Failure;
use super::ready::Ready;

fn absent<T>() -> Result<T, Failure> {
    Err(Failure::new("roles", "this build of dwell has no roles").advise("build it with the feature `roles`"))
}

/// How the executor is reached; addresses have a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    Relay(String),
    Direct(String),
}

#[derive(Debug)]
pub(crate) struct ConnectSpec {
    pub(crate) identity: StaticKeypair,
    pub(crate) route: Route,
    pub(crate) executor: PublicKey,
    /// What admits this side to the relay.
    pub(crate) token: Option<Vec<u8>>,
    pub(crate) traces: PathBuf,
    pub(crate) store: PathBuf,
}

#[derive(Debug)]
pub(crate) struct CommandSpec {
    pub(crate) argv: Vec<OsString>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stdin: bool,
    pub(crate) parent: Option<TraceContext>,
}

/// What a running command lets hear.
#[derive(Debug)]
pub(crate) enum Heard {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Names of variables that were kept from it.
    Withheld(Vec<String>),
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) timings: Value,
    pub(crate) timings_text: String,
    pub(crate) trace_id: TraceId,
}

/// A link to an executor.
#[derive(Debug)]
pub(crate) struct Session(Infallible);

/// A command under way; dropping it terminates it.
#[derive(Debug)]
pub(crate) struct Running(Infallible);

/// A command's standard input.
#[derive(Debug)]
pub(crate) struct Input(Infallible);

impl Session {
    pub(crate) async fn connect(spec: ConnectSpec) -> Result<Self, Failure> {
        drop(spec);
        absent()
    }

    pub(crate) fn exec(&self, _: CommandSpec) -> Running {
        match self.0 {}
    }

    pub(crate) async fn shutdown(self) {
        match self.0 {}
    }
}

impl Running {
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        match self.0 {}
    }

    pub(crate) async fn wait(self) -> Result<Ended, Failure> {
        match self.0 {}
    }

    pub(crate) fn terminate(&self, _: Duration) {
        match self.0 {}
    }

    pub(crate) fn input(&mut self) -> Input {
        match self.0 {}
    }
}

impl Input {
    pub(crate) async fn write(&mut self, _: Bytes) -> Result<(), String> {
        match self.0 {}
    }

    pub(crate) async fn close(&mut self) -> Result<(), String> {
        match self.0 {}
    }
}

/// Adds a client to an executor's list.
pub(crate) fn enroll(list: &Path, client: &PublicKey, comment: &str) -> Result<(), KeyError> {
    keys::add(list, client, comment).map(drop)
}

#[derive(Debug)]
pub(crate) struct ExecutorSpec {
    pub(crate) identity: StaticKeypair,
    pub(crate) authorized_clients: PathBuf,
    pub(crate) relay: Option<String>,
    pub(crate) listen: Option<String>,
    pub(crate) traces: PathBuf,
}

#[derive(Debug)]
pub(crate) struct ServingExecutor(Infallible);

impl ServingExecutor {
    pub(crate) async fn start(spec: ExecutorSpec) -> Result<Self, Failure> {
        drop(spec);
        absent()
    }

    pub(crate) async fn registered(&self) -> Result<(), Failure> {
        match self.0 {}
    }

    pub(crate) fn ready(&self) -> Ready {
        match self.0 {}
    }

    pub(crate) async fn shutdown(self) {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct RelaySpec {
    pub(crate) listen: String,
    pub(crate) identity: StaticKeypair,
    pub(crate) admission: Admission,
}

#[derive(Debug)]
pub(crate) struct ServingRelay(Infallible);

impl ServingRelay {
    pub(crate) async fn start(spec: RelaySpec) -> Result<Self, Failure> {
        drop(spec);
        absent()
    }

    pub(crate) fn ready(&self) -> Ready {
        match self.0 {}
    }

    pub(crate) async fn shutdown(self) {
        match self.0 {}
    }
}
