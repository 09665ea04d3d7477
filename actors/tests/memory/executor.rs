//! The executor, in a process of its own: this binary again, set up as `dwell executor` is.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use dwell_actors::dialect::{DialectOptions, Endpoint};
use dwell_actors::executor::Executor;
use dwell_actors::oversight::Oversight;
use dwell_messages::PublicKey;

use crate::counting::live_bytes;

/// Set where this binary is to be the executor: the client's key, the relay's address or a dash, where traces go.
const ROLE: &str = "DWELL_TEST_MEMORY_EXECUTOR";
/// How long what is allocated may go on changing after the last that anybody did.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Between two looks at it: longer than anything is put off that nobody waits for.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// So many looks in a row see the same.
const SAME_LOOKS: u32 = 3;

pub(crate) struct ExecutorProcess {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    pub(crate) key: PublicKey,
    pub(crate) address: String,
    pub(crate) dialect: String,
    _traces: tempfile::TempDir,
}

impl ExecutorProcess {
    /// One thread for everything, so that no session falls on one that has not served any.
    pub(crate) fn start(client: PublicKey, relay: Option<String>) -> Self {
        let traces = tempfile::TempDir::new().unwrap();
        let relay = relay.unwrap_or("-".to_owned());
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "executor::the_executor_whose_memory_is_counted",
                "--nocapture",
            ])
            .env(ROLE, format!("{client} {relay} {}", traces.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [key, address, dialect] = words[..] else {
            panic!("{line}");
        };
        Self {
            key: key.parse().unwrap(),
            address: address.to_owned(),
            dialect: dialect.to_owned(),
            child,
            lines,
            _traces: traces,
        }
    }

    fn say(&mut self, word: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
        self.lines.next().unwrap().unwrap()
    }

    /// It allocates so many bytes, and never gives them back.
    pub(crate) fn hold(&mut self, bytes: u64) {
        assert_eq!(self.say(&format!("hold {bytes}")), "held");
    }

    /// Sessions it has, and the bytes that its allocator has given out.
    fn live(&mut self) -> (u64, u64) {
        let line = self.say("live");
        let (sessions, live) = line.split_once(' ').unwrap();
        (sessions.parse().unwrap(), live.parse().unwrap())
    }

    /// The bytes that its allocator has given out at this moment.
    pub(crate) fn live_now(&mut self) -> u64 {
        self.live().1
    }

    /// The bytes that its allocator has given out, once nothing changes and it has so many sessions.
    pub(crate) async fn settled(&mut self, sessions: u64) -> u64 {
        let begun = Instant::now();
        let (mut last, mut same) = (0, 0);
        loop {
            let (now, live) = self.live();
            if live == last && now == sessions {
                same += 1;
                if same == SAME_LOOKS {
                    return live;
                }
            } else {
                (last, same) = (live, 0);
            }
            assert!(
                begun.elapsed() < SETTLE_MAX,
                "{now} sessions for {sessions}, and {live} bytes change"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until its allocator has given out no more than so many bytes.
    pub(crate) async fn at_most(&mut self, bytes: u64) {
        let begun = Instant::now();
        loop {
            let live = self.live_now();
            if live <= bytes {
                return;
            }
            assert!(begun.elapsed() < SETTLE_MAX, "{} bytes too many", live - bytes);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for ExecutorProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Not a test of its own: does nothing unless a test started it.
#[test]
fn the_executor_whose_memory_is_counted() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let [client, relay, traces] = role.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{role}");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dialect = DialectOptions::new(Endpoint::WebSocket("127.0.0.1:0".parse().unwrap()));
        let mut builder = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.parse().unwrap())
            .arbiters(1)
            .traces(traces)
            .flight_recorder(true)
            .oversight(Oversight::new())
            .dialect(dialect);
        if relay != "-" {
            builder = builder.relay(relay);
        }
        let executor = builder.serve().await.unwrap();
        if relay != "-" {
            executor.registered().await.unwrap();
        }
        let (key, address) = (executor.public_key(), executor.local_addr().unwrap());
        eprintln!("{key} {address} {}", executor.dialect_url().unwrap());
        let mut held = Vec::new();
        // Blocks this thread only: the executor has its own.
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["live"] => eprintln!("{} {}", executor.sessions(), live_bytes()),
                ["hold", bytes] => {
                    held.push(Vec::<u8>::with_capacity(bytes.parse().unwrap()));
                    eprintln!("held");
                }
                _ => panic!("{line}"),
            }
        }
    });
}
