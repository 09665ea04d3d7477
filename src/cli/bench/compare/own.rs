//! dwell's own client, on the arbiter of whoever asks, as `dwell run` has it. Nothing is traced and nothing is kept.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::harness::{Command, Harness, Run, RunEvent, Target};
use dwell_messages::{ExitStatus, PublicKey};
use dwell_relay::StaticKeypair;

use super::paths::Paths;
use super::peer::{Client, Live, Name, Peer, Ran, Soon, Stands, Trouble};
use super::task::Task;

/// Rows and columns of a terminal.
const TERMINAL: (u16, u16) = (24, 80);
/// An event that no process here has: a read after it waits.
const NEVER: u64 = 1_000_000;
/// What a read would bring at most.
const READ_MAX_BYTES: u32 = 1_024;

/// An executor, directly or through its relay.
#[derive(Debug)]
pub(crate) struct OwnPeer {
    pub(crate) name: Name,
    /// Of the executor, or of the relay.
    pub(crate) address: SocketAddr,
    pub(crate) executor: PublicKey,
    pub(crate) identity: StaticKeypair,
    pub(crate) servers: Vec<u32>,
    /// The executor alone.
    pub(crate) holders: Vec<u32>,
    pub(crate) paths: Rc<Paths>,
}

impl Peer for OwnPeer {
    fn name(&self) -> Name {
        self.name
    }

    fn connect(&self, round_trip: Duration) -> Soon<'_, Rc<dyn Client>> {
        Box::pin(async move {
            let address = self.paths.to(self.address, round_trip)?.to_string();
            let target = if self.name == Name::Relay {
                Target::relay(address, self.executor)
            } else {
                Target::direct(address, self.executor)
            };
            let identity =
                StaticKeypair::from_private(zeroize::Zeroizing::new(*self.identity.expose_private()));
            let builder = Harness::builder().identity(identity).sampled(false).here();
            let harness = builder
                .connect(target)
                .await
                .map_err(|error| Trouble::failed("connecting", error))?;
            Ok(Rc::new(OwnClient(harness)) as Rc<dyn Client>)
        })
    }

    fn servers(&self) -> Vec<u32> {
        self.servers.clone()
    }

    fn holders(&self) -> Vec<u32> {
        self.holders.clone()
    }
}

#[derive(Debug)]
struct OwnClient(Harness);

fn failed(what: &'static str) -> impl Fn(dwell_actors::harness::RunError) -> Trouble {
    move |error| Trouble::failed(what, error)
}

impl Client for OwnClient {
    fn round_trip(&self) -> Option<Soon<'_, ()>> {
        Some(Box::pin(async {
            let answered = self.0.environment_info().await;
            answered.map(drop).map_err(failed("a call"))
        }))
    }

    fn run<'a>(&'a self, task: &'a Task) -> Soon<'a, Ran> {
        Box::pin(async move {
            let mut run = self.0.exec(Command::from_argv(&task.argv));
            let mut tally = task.tally();
            if !task.is_silent() {
                while let Some(event) = run.next().await {
                    match event {
                        RunEvent::Stdout(data) => tally.take(&data),
                        RunEvent::Gap(gap) => {
                            return Err(Trouble::wrong(
                                "the output",
                                format!("{} bytes were lost", gap.bytes()),
                            ));
                        }
                        RunEvent::Started { .. } | RunEvent::Stderr(_) | RunEvent::Exited(_) => {}
                    }
                }
            }
            let finished = run.wait().await.map_err(failed("a command"))?;
            if finished.output_bytes[0] != tally.bytes() {
                let why = format!("{} bytes came of {}", tally.bytes(), finished.output_bytes[0]);
                return Err(Trouble::wrong("the output", why));
            }
            let code = match finished.status {
                ExitStatus::Code(code) => Some(code),
                ExitStatus::Signal(_) => None,
            };
            task.judge(code, &tally)?;
            Ok(Ran { first: tally.first })
        })
    }

    fn open(&self, stands: Stands, argv: Vec<String>) -> Option<Soon<'_, Box<dyn Live>>> {
        let command = Command::from_argv(argv).stdin_piped();
        let command = match stands {
            Stands::Pipes => command,
            Stands::Terminal => command.pty(TERMINAL.0, TERMINAL.1),
        };
        let run = self.0.exec(command);
        Some(Box::pin(async { Ok(Box::new(OwnLive(run)) as Box<dyn Live>) }))
    }

    fn close(self: Rc<Self>) -> Soon<'static, ()> {
        Box::pin(async move {
            // Somebody may still use it, who has given up already.
            if let Some(client) = Rc::into_inner(self) {
                client.0.shutdown().await;
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct OwnLive(Run);

impl Live for OwnLive {
    fn write<'a>(&'a mut self, data: &'a [u8]) -> Soon<'a, ()> {
        Box::pin(async move {
            let written = self.0.write_stdin(Bytes::copy_from_slice(data)).await;
            written.map_err(failed("writing input"))
        })
    }

    fn read(&mut self) -> Soon<'_, Bytes> {
        Box::pin(async move {
            loop {
                match self.0.next().await {
                    Some(RunEvent::Stdout(data)) => return Ok(data),
                    Some(RunEvent::Started { .. } | RunEvent::Stderr(_)) => {}
                    Some(RunEvent::Gap(_) | RunEvent::Exited(_)) | None => {
                        return Err(Trouble::failed("reading output", "the command ended"));
                    }
                }
            }
        })
    }

    fn poll(&self, wait: Duration) -> Option<Soon<'_, ()>> {
        Some(Box::pin(async move {
            let read = self.0.read(NEVER, READ_MAX_BYTES, wait).await;
            read.map(drop).map_err(failed("a read that waits"))
        }))
    }

    fn end(self: Box<Self>) -> Soon<'static, ()> {
        Box::pin(async move {
            self.0.terminate(Duration::ZERO);
            let ended = self.0.wait().await;
            ended.map(drop).map_err(failed("ending a command"))
        })
    }
}
