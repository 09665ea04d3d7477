//! `dwell inspect` and `dwell trace top` against processes that live, hang and have ended.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(60);

fn dwell(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwell"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DWELL_HOME", home)
        .stdin(Stdio::null());
    command
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    dwell(home, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A relay's process, which has said that it serves; killed when dropped.
struct Relay(Child);

impl Relay {
    fn start(home: &Path, arguments: &[&str]) -> Self {
        let all = [&["relay", "--listen", "127.0.0.1:0", "--ready-json"], arguments].concat();
        let mut child = dwell(home, &all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.contains("\"ready\":true"), "{line}");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn where_nothing_runs_that_is_said_and_a_named_process_is_missed() {
    let home = TempDir::new().unwrap();
    let nothing = run(home.path(), &["inspect"]);
    assert_eq!(nothing.status.code(), Some(0));
    assert!(text(&nothing.stderr).contains("no process of this user answers"));
    let missed = run(home.path(), &["inspect", "executor"]);
    assert_eq!(missed.status.code(), Some(125));
    assert!(
        text(&missed.stderr).contains("dwell inspect"),
        "{}",
        text(&missed.stderr)
    );
    let wrong = run(home.path(), &["inspect", "nonsense"]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("a process id"));
}

#[test]
fn a_relay_answers_for_people_and_programs_until_it_hangs_which_is_said_and_not_waited_for() {
    let home = TempDir::new().unwrap();
    let relay = Relay::start(home.path(), &[]);
    let shown = run(home.path(), &["inspect"]);
    let pid = relay.0.id();
    assert!(
        text(&shown.stdout).starts_with(&format!("relay {pid} (dwell ")),
        "{}",
        text(&shown.stdout)
    );
    let one: Value =
        serde_json::from_slice(&run(home.path(), &["inspect", &pid.to_string(), "--json"]).stdout).unwrap();
    let process = &one["processes"][0];
    assert_eq!(
        (&process["role"], &process["table"]["version"]),
        (&"relay".into(), &1.into())
    );
    let live = run(home.path(), &["trace", "top", "--once"]);
    assert!(
        text(&live.stdout).starts_with("1 dwell processes, 0 calls in flight"),
        "{}",
        text(&live.stdout)
    );
    relay.signal(Signal::STOP);
    let begun = Instant::now();
    let hung = run(home.path(), &["inspect", "relay"]);
    assert!(begun.elapsed() < BOUND / 2, "{:?}", begun.elapsed());
    assert_eq!(hung.status.code(), Some(1));
    let said = text(&hung.stderr);
    assert!(
        said.contains("does not answer within 2 s") && said.contains("it is stopped"),
        "{said}"
    );
    relay.signal(Signal::CONT);
    assert_eq!(run(home.path(), &["inspect", "relay"]).status.code(), Some(0));
}

#[test]
fn the_socket_of_a_relay_that_was_killed_is_cleared_away() {
    let home = TempDir::new().unwrap();
    let sockets = || std::fs::read_dir(home.path().join("run")).unwrap().count();
    let relay = Relay::start(home.path(), &[]);
    assert_eq!(sockets(), 1);
    drop(relay);
    assert_eq!(sockets(), 1, "whoever is killed removes nothing");
    let nothing = run(home.path(), &["inspect"]);
    assert_eq!(
        (nothing.status.code(), sockets()),
        (Some(0), 0),
        "{}",
        text(&nothing.stderr)
    );
}

#[test]
fn who_declines_is_not_seen_and_a_home_that_others_may_enter_only_costs_the_answer() {
    let home = TempDir::new().unwrap();
    let relay = Relay::start(home.path(), &["--no-inspect"]);
    assert!(!home.path().join("run").exists());
    drop(relay);
    let open = home.path().join("run");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let _relay = Relay::start(home.path(), &[]);
    assert_eq!(
        std::fs::read_dir(&open).unwrap().count(),
        0,
        "it serves, and answers nobody"
    );
}

#[test]
fn metrics_are_served_where_they_are_asked_for_and_not_to_others() {
    let home = TempDir::new().unwrap();
    let refused = run(
        home.path(),
        &["relay", "--listen", "127.0.0.1:0", "--metrics", "192.0.2.1:9"],
    );
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        text(&refused.stderr).contains("could be read by others"),
        "{}",
        text(&refused.stderr)
    );
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let _relay = Relay::start(home.path(), &["--metrics", &free.to_string()]);
    let (status, body) = get(free, "/metrics");
    assert!(
        status == 200 && body.contains("dwell_ready 1\n"),
        "{status}: {body}"
    );
    assert_eq!(
        (get(free, "/livez").0, get(free, "/readyz").0, get(free, "/").0),
        (200, 200, 404)
    );
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (answer[9..12].parse().unwrap(), body)
}
