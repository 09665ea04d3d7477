//! The executor, in a process of its own: this binary again, and what it costs there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStderr, Stdio};

use dwell_actors::executor::Executor;
use dwell_messages::PublicKey;

use crate::runtime;

/// Set where this binary is to be the executor: the client's key, the relay's address or a dash, and whether limits hold.
const ROLE: &str = "DWELL_TEST_FLOOD_EXECUTOR";

/// What it says of strangers.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) wrong_mac: u64,
    pub(crate) repeated: u64,
    pub(crate) admitted: u64,
    pub(crate) pending: u64,
    pub(crate) connections: u64,
}

pub(crate) struct ExecutorProcess {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    pub(crate) key: PublicKey,
    pub(crate) address: std::net::SocketAddr,
}

impl ExecutorProcess {
    /// One thread for everything, so that what is to be slowed down shares it with what slows down.
    pub(crate) fn start(client: PublicKey, relay: Option<std::net::SocketAddr>, limited: bool) -> Self {
        let relay = relay.map_or("-".to_owned(), |address| address.to_string());
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "executor::the_executor_of_the_floods", "--nocapture"])
            .env(ROLE, format!("{client} {relay} {limited}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let (key, address) = line.split_once(' ').expect("the executor says where it is");
        Self {
            key: key.parse().unwrap(),
            address: address.parse().unwrap(),
            child,
            lines,
        }
    }

    pub(crate) fn counts(&mut self) -> Counts {
        writeln!(self.child.stdin.as_mut().unwrap(), "count").unwrap();
        let line = self.lines.next().unwrap().unwrap();
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [wrong_mac, repeated, admitted, pending, connections] = numbers[..] else {
            panic!("{line}");
        };
        Counts {
            wrong_mac,
            repeated,
            admitted,
            pending,
            connections,
        }
    }

    /// Seconds of processor time so far, of all its threads.
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name in brackets: fields 14 and 15 of all, 12 and 13 of these.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Forgets the highest memory so far, and gives what it uses now in bytes.
    pub(crate) fn reset_memory(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.memory("VmRSS:")
    }

    /// The highest memory since, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for ExecutorProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Not a test of its own: does nothing unless a flood started it.
#[test]
fn the_executor_of_the_floods() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    runtime().block_on(async {
        let mut builder = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(words[0].parse().unwrap())
            .arbiters(1);
        if words[1] != "-" {
            builder = builder.relay(words[1]);
        }
        if words[2] == "false" {
            builder = builder.without_limits_for_strangers();
        }
        let executor = builder.serve().await.unwrap();
        if words[1] != "-" {
            executor.registered().await.unwrap();
        }
        eprintln!("{} {}", executor.public_key(), executor.local_addr().unwrap());
        // Blocks this thread only: the executor has its own.
        for line in std::io::stdin().lines() {
            assert_eq!(line.unwrap(), "count");
            let strangers = executor.strangers();
            let counts = strangers.handshakes;
            eprintln!(
                "{} {} {} {} {}",
                counts.wrong_mac, counts.repeated, counts.admitted, strangers.pending, strangers.connections
            );
        }
    });
}
