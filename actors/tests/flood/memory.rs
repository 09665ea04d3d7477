//! What a relay and an executor hold for those who have proven nothing, over every transport.
//!
//! Each is this binary again, in a process of its own, so that its memory is its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use bytes::BytesMut;
use dwell_actors::executor::{Executor, UNPROVEN_MAX, UNPROVEN_PER_SOURCE_MAX};
use dwell_actors::relay_server::Relay;
use dwell_messages::PublicKey;
use dwell_messages::kinds::OuterKind;
use dwell_relay::driver::Connection;
use dwell_relay::driver::OPENING_BYTES_MAX;
use dwell_relay::driver::net::{OPENINGS_MAX, dial};
use dwell_relay::driver::tls::{Certificate, Trust};
use dwell_relay::encode_outer;
use dwell_relay::first_message::FIRST_MESSAGE_MAX_BYTES;
use dwell_relay::rendezvous::OPENING_LIMITS;
use dwell_testkit::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::messages::preamble;
use crate::{BOUND, MEMORY_MAX_BYTES, alone, runtime};

/// Set where this binary is one of the two: which, and where its certificate is.
const ROLE: &str = "DWELL_TEST_FLOOD_MEMORY";

/// Of openings that are under way.
const OPENINGS_MAX_BYTES: u64 = MEMORY_MAX_BYTES;

struct Role {
    child: Child,
    address: String,
    /// Whom a harness there asks for.
    executor: PublicKey,
}

impl Role {
    fn start(role: &str, certificates: &Path) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "memory::the_role_whose_memory_is_measured",
                "--nocapture",
            ])
            .env(ROLE, format!("{role} {}", certificates.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        lines.read_line(&mut line).unwrap();
        let (address, executor) = line.trim().split_once(' ').unwrap();
        Self {
            child,
            address: address.to_owned(),
            executor: executor.parse().unwrap(),
        }
    }

    /// Forgets the highest memory so far, and gives what it uses now in bytes.
    fn reset_memory(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.memory("VmRSS:")
    }

    fn memory_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Not a test of its own: does nothing unless a test started it.
#[test]
fn the_role_whose_memory_is_measured() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (role, certificates) = role.split_once(' ').unwrap();
    let certificates = Path::new(certificates);
    let certificate =
        Certificate::load(&certificates.join("cert.pem"), &certificates.join("key.pem")).unwrap();
    runtime().block_on(async {
        let wait = || drop(std::io::stdin().lines().next());
        if role == "relay" {
            let builder = Relay::builder().listen("127.0.0.1:0").tls(certificate);
            let relay = builder.serve().await.unwrap();
            eprintln!("{} {}", relay.local_addr(), PublicKey([7; 32]));
            wait();
        } else {
            let builder = Executor::builder().listen("127.0.0.1:0").arbiters(1);
            let executor = builder.tls(certificate).serve().await.unwrap();
            eprintln!("{} {}", executor.local_addr().unwrap(), executor.public_key());
            wait();
        }
    });
}

/// A connection that has said all but the last byte of the longest message 1.
async fn opened(address: &str, executor: PublicKey, trust: &Trust) -> std::io::Result<Connection> {
    let mut connection = dial(address, trust).await?;
    let preamble = preamble(executor);
    let mut out = BytesMut::from(&preamble.encode()[..]);
    let message = vec![0x5a; FIRST_MESSAGE_MAX_BYTES];
    encode_outer(&mut out, OuterKind::Handshake, preamble.stream, 0, &message);
    connection.writer.write_all(&out[..out.len() - 1]).await?;
    connection.writer.flush().await?;
    Ok(connection)
}

/// Says the last byte too, and waits for what comes of it.
async fn answered(mut connection: Connection) {
    connection.writer.write_all(&[0x5a]).await.unwrap();
    connection.writer.flush().await.unwrap();
    let answer = connection.reader.read_u8();
    // A reset, or the end of the connection.
    drop(tokio::time::timeout(BOUND, answer).await.expect("an answer"));
}

/// As many as one source may have, and a quarter more, which push out the oldest; how much memory they took, in bytes.
async fn held(role: &Role, scheme: &str, trust: &Trust, most: usize) -> u64 {
    let (_, port) = role.address.rsplit_once(':').unwrap();
    let address = format!("{scheme}localhost:{port}");
    // What a process takes once, and the allocator keeps, is no part of it. Each is answered before the next: one that
    // the process has not looked at yet has taken nothing so far.
    for _ in 0..8 {
        answered(opened(&address, role.executor, trust).await.unwrap()).await;
    }
    let before = role.reset_memory();
    let mut held = Vec::new();
    for _ in 0..most + most / 4 {
        // One that is pushed out while it opens is one of those.
        held.extend(opened(&address, role.executor, trust).await.ok());
    }
    assert!(held.len() >= most, "{} of {most} could be opened", held.len());
    role.memory_peak().saturating_sub(before)
}

/// How far a connection's opening is when its client stops.
#[derive(Clone, Copy, Debug)]
enum Opening {
    /// Nearly all of the longest request to upgrade to a WebSocket.
    Upgrade,
    /// Nearly all of the longest ClientHello.
    ClientHello,
    /// TLS, and then as `Upgrade`.
    UpgradeInTls,
}

/// As much as is taken of a request to upgrade.
const UPGRADE_BYTES: usize = OPENING_BYTES_MAX - 1;
/// The same of a ClientHello, less the headers of its records.
const CLIENT_HELLO_BYTES: usize = OPENING_BYTES_MAX - 64;

impl Opening {
    fn upgrade() -> Vec<u8> {
        let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
        request.resize(UPGRADE_BYTES, b'x');
        request
    }

    /// A handshake message that announces more than comes, in records of the longest kind.
    fn client_hello() -> Vec<u8> {
        let mut message = vec![1, 0, 0xff, 0xff];
        message.resize(CLIENT_HELLO_BYTES - 1, 0);
        let records = message.chunks(16 * 1024);
        records
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1], &length[..], part].concat()
            })
            .collect()
    }

    /// Says so much, as far as it is taken; holds the connection.
    async fn begin(self, address: &str, trust: &Trust) -> std::io::Result<Box<dyn Send>> {
        match self {
            Self::Upgrade | Self::ClientHello => {
                let mut stream = TcpStream::connect(address).await?;
                let said = match self {
                    Self::Upgrade => Self::upgrade(),
                    Self::ClientHello | Self::UpgradeInTls => Self::client_hello(),
                };
                // Who listens may have had enough before all is said.
                stream.write_all(&said).await.ok();
                Ok(Box::new(stream))
            }
            Self::UpgradeInTls => {
                let (_, port) = address.rsplit_once(':').unwrap();
                let mut connection = dial(&format!("tls://localhost:{port}"), trust).await?;
                connection.writer.write_all(&Self::upgrade()).await.ok();
                connection.writer.flush().await.ok();
                Ok(Box::new(connection))
            }
        }
    }
}

/// What those take whose opening never ends, a quarter more of them than may be open at once.
fn openings(role: &str) {
    let authority = Authority::new().unwrap();
    let trust = Trust::load(&authority.file("ca.pem")).unwrap();
    let certificate = authority.file("cert.pem");
    let directory = certificate.parent().unwrap();
    alone(async {
        let mut over = Vec::new();
        for opening in [Opening::Upgrade, Opening::ClientHello, Opening::UpgradeInTls] {
            let process = Role::start(role, directory);
            // What the process takes once for code and for the allocator's arenas is no part of it, and with a few held at a
            // time that has been taken.
            let mut held = Vec::new();
            for _ in 0..OPENINGS_MAX / 4 {
                held.extend(opening.begin(&process.address, &trust).await.ok());
            }
            drop(held);
            let before = process.reset_memory();
            let mut held = Vec::new();
            for _ in 0..OPENINGS_MAX + OPENINGS_MAX / 4 {
                held.extend(opening.begin(&process.address, &trust).await.ok());
            }
            assert!(held.len() >= OPENINGS_MAX, "{} could begin", held.len());
            // An answer to another shows that what was said before it has been read.
            let (_, port) = process.address.rsplit_once(':').unwrap();
            let last = opened(&format!("localhost:{port}"), process.executor, &trust).await;
            answered(last.unwrap()).await;
            let taken = process.memory_peak().saturating_sub(before);
            println!(
                "{role} {opening:?}: {} KiB for {OPENINGS_MAX} whose opening goes on",
                taken / 1024
            );
            if taken > OPENINGS_MAX_BYTES {
                over.push(format!("{opening:?}: {taken} bytes"));
            }
        }
        assert!(over.is_empty(), "{over:?}");
    });
}

#[test]
fn a_relays_memory_of_openings_that_never_end_is_bounded() {
    openings("relay");
}

#[test]
fn an_executors_memory_of_openings_that_never_end_is_bounded() {
    openings("executor");
}

fn measure(role: &str, most: usize, of: usize) {
    let authority = Authority::new().unwrap();
    let trust = Trust::load(&authority.file("ca.pem")).unwrap();
    let certificate = authority.file("cert.pem");
    let directory = certificate.parent().unwrap();
    alone(async {
        let mut over = Vec::new();
        for scheme in ["", "ws://", "tls://", "wss://"] {
            let process = Role::start(role, directory);
            let taken = held(&process, scheme, &trust, most).await;
            // One source has a share of all; several may have all of it.
            let all = taken * of as u64 / most as u64;
            let name = if scheme.is_empty() { "tcp://" } else { scheme };
            println!(
                "{role} {name}: {} KiB for {most} that have proven nothing, {} KiB for {of}",
                taken / 1024,
                all / 1024
            );
            if all > MEMORY_MAX_BYTES {
                over.push(format!("{name}: {all} bytes"));
            }
        }
        assert!(over.is_empty(), "{over:?}");
    });
}

#[test]
fn all_memory_of_a_relay_before_authentication_is_bounded_over_every_transport() {
    measure("relay", OPENING_LIMITS.per_source, OPENING_LIMITS.all);
}

#[test]
fn all_memory_of_an_executor_before_authentication_is_bounded_over_every_transport() {
    measure("executor", UNPROVEN_PER_SOURCE_MAX, UNPROVEN_MAX);
}
