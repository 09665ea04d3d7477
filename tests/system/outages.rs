//! Networks that fail as networks do, below the program: a route that swallows, a link that is down, packets of one
//! connection that vanish; and clocks that are years apart. In network namespaces of the tests' own.
//!
//! As root, with `ip` (iproute2), `nft` (nftables) and `faketime`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::roles::{Serving, dwell, serve};

const EXECUTOR: &str = "10.77.0.1";
const HARNESS: &str = "10.77.0.2";
/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(60);
/// A dead transport is found within 15 s; what comes on top is for a busy machine.
const FOUND_MAX: Duration = Duration::from_secs(30);
/// How long the network is gone.
const OUTAGE: Duration = Duration::from_secs(3);

/// Runs a tool that the machine must have.
fn tool(program: &str, arguments: &[&str], input: &str) {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.unwrap_or_else(|error| {
        panic!("this needs root, `ip` (iproute2), `nft` (nftables) and `faketime`: {program}: {error}")
    });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
}

/// Two network namespaces with a cable between them.
struct Net {
    executor: String,
    harness: String,
}

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("dwell-{}-{number}-{end}", std::process::id());
        let net = Self {
            executor: name("e"),
            harness: name("h"),
        };
        tool("ip", &["netns", "add", &net.executor], "");
        tool("ip", &["netns", "add", &net.harness], "");
        let (e, h) = (net.executor.as_str(), net.harness.as_str());
        tool(
            "ip",
            &[
                "-n", e, "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", h,
            ],
            "",
        );
        for (namespace, address) in [(e, EXECUTOR), (h, HARNESS)] {
            tool(
                "ip",
                &[
                    "-n",
                    namespace,
                    "addr",
                    "add",
                    &format!("{address}/24"),
                    "dev",
                    "v0",
                ],
                "",
            );
            tool("ip", &["-n", namespace, "link", "set", "lo", "up"], "");
            tool("ip", &["-n", namespace, "link", "set", "v0", "up"], "");
        }
        net
    }

    fn inside(namespace: &str, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace]);
        inside
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        inside.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        inside
    }

    /// The harness's port of the one connection that stands.
    fn port(&self) -> u16 {
        let sockets = Command::new("ip")
            .args(["netns", "exec", &self.harness, "cat", "/proc/net/tcp"])
            .output()
            .unwrap();
        let sockets = String::from_utf8(sockets.stdout).unwrap();
        let established = sockets
            .lines()
            .skip(1)
            .find(|line| line.split_whitespace().nth(3) == Some("01"));
        let local = established.unwrap().split_whitespace().nth(1).unwrap();
        u16::from_str_radix(local.split(':').nth(1).unwrap(), 16).unwrap()
    }

    fn apply(&self, fault: Fault) {
        let (e, h) = (self.executor.as_str(), self.harness.as_str());
        let to = format!("{EXECUTOR}/32");
        match fault {
            Fault::Blackhole => tool("ip", &["-n", h, "route", "add", "blackhole", &to], ""),
            Fault::LinkDown => tool("ip", &["-n", e, "link", "set", "v0", "down"], ""),
            Fault::HalfOpen { up, down } => {
                let port = self.port();
                let mut rules = String::from("table inet dwell {\n");
                if up {
                    rules +=
                        &format!("chain i {{ type filter hook input priority 0; tcp sport {port} drop; }}\n");
                }
                if down {
                    rules += &format!(
                        "chain o {{ type filter hook output priority 0; tcp dport {port} drop; }}\n"
                    );
                }
                rules += "}\n";
                tool("ip", &["netns", "exec", e, "nft", "-f", "-"], &rules);
            }
        }
    }

    fn heal(&self, fault: Fault) {
        let (e, h) = (self.executor.as_str(), self.harness.as_str());
        let to = format!("{EXECUTOR}/32");
        match fault {
            Fault::Blackhole => tool("ip", &["-n", h, "route", "del", "blackhole", &to], ""),
            Fault::LinkDown => tool("ip", &["-n", e, "link", "set", "v0", "up"], ""),
            // That connection is dead for good.
            Fault::HalfOpen { .. } => {}
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.executor, &self.harness] {
            Command::new("ip").args(["netns", "del", namespace]).status().ok();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// What is sent is swallowed by a route.
    Blackhole,
    /// The cable is out.
    LinkDown,
    /// The packets of this one connection vanish, towards the executor or towards the harness; no other's.
    HalfOpen { up: bool, down: bool },
}

/// The harness's key, listed.
fn enlisted(homes: &TempDir) {
    let key = dwell(&homes.path().join("harness"))
        .args(["key", "make", "--json"])
        .output()
        .unwrap();
    let key: Json = serde_json::from_slice(&key.stdout).unwrap();
    let line = format!("{}\n", key["public_key"].as_str().unwrap());
    std::fs::write(homes.path().join("clients"), line).unwrap();
}

/// An executor, and a command that echoes lines over the fault.
struct Echo {
    net: Net,
    executor: Serving,
    run: Child,
    lines: mpsc::Receiver<String>,
    sent: AtomicU64,
    _homes: TempDir,
}

impl Echo {
    fn start() -> Self {
        let homes = TempDir::new().unwrap();
        enlisted(&homes);
        let net = Net::new();
        let mut command = dwell(&homes.path().join("executor"));
        command
            .args([
                "executor",
                "--json",
                "--no-pairing",
                "--listen",
                &format!("{EXECUTOR}:0"),
            ])
            .arg("--authorized-clients")
            .arg(homes.path().join("clients"));
        let executor = serve(Net::inside(&net.executor, &command));
        let mut command = dwell(&homes.path().join("harness"));
        command
            .args(["run", "--direct", executor.ready["address"].as_str().unwrap()])
            .args(["--executor", executor.ready["public_key"].as_str().unwrap()])
            .args(["--", "sh", "-c", "while read line; do echo \"$line $$\"; done"]);
        let mut run = Net::inside(&net.harness, &command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(run.stdout.take().unwrap());
        // Read by a thread, so that silence has a bound.
        let (lines, told) = mpsc::sync_channel(1_024);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            net,
            executor,
            run,
            lines: told,
            sent: AtomicU64::new(0),
            _homes: homes,
        }
    }

    fn say(&mut self) -> u64 {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        writeln!(self.run.stdin.as_mut().unwrap(), "{number}").unwrap();
        number
    }

    /// The next line, which is this one: none is lost, doubled or out of order. The process's id stands behind it.
    fn hear(&self, number: u64, within: Duration) -> Option<String> {
        let line = self.lines.recv_timeout(within).ok()?;
        let (told, pid) = line.split_once(' ').unwrap();
        assert_eq!(told, number.to_string());
        Some(pid.to_owned())
    }

    /// Lines before, during and after.
    fn over(mut self, fault: Fault) {
        let first = self.say();
        let pid = self.hear(first, BOUND).unwrap();
        self.net.apply(fault);
        let begun = Instant::now();
        let asked = self.say();
        if matches!(fault, Fault::HalfOpen { .. }) {
            let heard = self.hear(asked, FOUND_MAX);
            assert_eq!(
                heard.as_deref(),
                Some(pid.as_str()),
                "{fault:?}: found and left in time"
            );
            println!("{fault:?}: gone on after {:?}", begun.elapsed());
            assert!(
                begun.elapsed() > Duration::from_secs(1),
                "{fault:?}: positive control"
            );
        } else {
            assert_eq!(
                self.hear(asked, OUTAGE),
                None,
                "{fault:?}: positive control: nothing comes through"
            );
            self.net.heal(fault);
            let healed = Instant::now();
            assert_eq!(
                self.hear(asked, BOUND).as_deref(),
                Some(pid.as_str()),
                "{fault:?}"
            );
            println!(
                "{fault:?} for {OUTAGE:?}: gone on {:?} after its end",
                healed.elapsed()
            );
        }
        for _ in 0..100 {
            let number = self.say();
            assert_eq!(
                self.hear(number, BOUND).as_deref(),
                Some(pid.as_str()),
                "{fault:?}"
            );
        }
        drop(self.run.stdin.take());
        assert!(self.run.wait().unwrap().success(), "{fault:?}");
        assert!(self.executor.lives());
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.run.kill().ok();
        self.run.wait().ok();
    }
}

/// T-08, T-10, and outages that the kernel makes; side by side, since half-open connections take their time.
#[test]
fn routes_that_swallow_links_that_are_down_and_half_open_connections_cost_time_and_no_line() {
    let faults = [
        Fault::Blackhole,
        Fault::LinkDown,
        Fault::HalfOpen { up: true, down: true },
        Fault::HalfOpen {
            up: true,
            down: false,
        },
        Fault::HalfOpen {
            up: false,
            down: true,
        },
    ];
    let running: Vec<_> = faults
        .map(|fault| (fault, std::thread::spawn(move || Echo::start().over(fault))))
        .into_iter()
        .collect();
    for (fault, running) in running {
        assert!(running.join().is_ok(), "{fault:?}");
    }
}

/// T-23: three clocks that are twenty years apart. Nothing is too early, too late or expired: only durations count.
#[test]
fn clocks_that_are_years_apart_change_nothing() {
    let homes = TempDir::new().unwrap();
    enlisted(&homes);
    let at = |offset: &str, command: &Command| {
        let mut shifted = Command::new("faketime");
        shifted
            .args(["-f", offset])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        shifted.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        // A machine's monotonic clock is not set when its wall clock is.
        shifted.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        shifted
    };
    let mut relay = dwell(&homes.path().join("relay"));
    // `faketime` is a parent of its own: what it started ends with this side of its standard input.
    relay.args(["relay", "--listen", "127.0.0.1:0", "--ready-json"]);
    let relay = serve(at("+10y", &relay));
    let relay_address = relay.ready["address"].as_str().unwrap();
    let mut executor = dwell(&homes.path().join("executor"));
    executor
        .args([
            "executor",
            "--ready-json",
            "--no-pairing",
            "--relay",
            relay_address,
        ])
        .arg("--authorized-clients")
        .arg(homes.path().join("clients"));
    let executor = serve(at("-10y", &executor));
    let mut run = dwell(&homes.path().join("harness"));
    run.args(["run", "--relay", relay_address])
        .args(["--executor", executor.ready["public_key"].as_str().unwrap()])
        .args([
            "--timeout",
            "30",
            "--",
            "sh",
            "-c",
            "date +%Y; sleep 1; echo done",
        ]);
    let output = at("+0", &run).output().unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{errors}");
    assert!(text.ends_with("done\n"), "{text}");
    let year = |offset: &str| {
        let output = at(
            offset,
            Command::new("date").arg("+%Y").env("PATH", "/usr/bin:/bin"),
        )
        .output()
        .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse::<i32>()
            .unwrap()
    };
    assert!(
        year("+10y") - year("-10y") >= 19,
        "positive control: the clocks are apart"
    );
}
