//! What happens to commands when something happens to the executor: the real binary, as root and as nobody.
//!
//! With `DWELL_SOAK=1` the rounds and the times are those of a release.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(25);

/// Within which all of a dead executor's commands are dead.
const DEATH_MAX: Duration = Duration::from_secs(2);

/// The variable that marks what a test started.
const MARK: &str = "DWELL_SYSTEM_MARK";

const NOBODY: u32 = 65_534;

/// Plain, in a session of its own, orphaned by a double fork, stopped, and deaf to TERM.
const TREES: [&str; 5] = [
    "sleep 1000 & echo up; wait",
    "setsid sleep 1000 & echo up; wait",
    "(setsid sh -c 'sleep 1000 & echo up; wait' &)",
    "sleep 1000 & kill -STOP $!; echo up; kill -STOP $$",
    "trap '' TERM HUP INT QUIT; echo up; while :; do sleep 0.1; done",
];

fn is_soak() -> bool {
    std::env::var_os("DWELL_SOAK").is_some()
}

/// Root runs all of it twice.
fn users() -> Vec<Option<u32>> {
    if geteuid().is_root() {
        vec![None, Some(NOBODY)]
    } else {
        vec![None]
    }
}

/// The binary, as somebody who need not be able to reach its place.
struct Binary(File);

impl Binary {
    fn open() -> Self {
        Self(File::open(env!("CARGO_BIN_EXE_dwell")).unwrap())
    }

    fn command(&self, home: &Path, user: Option<u32>) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .stdin(Stdio::null())
            .current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command
    }
}

/// An executor that listens, and a place for harnesses.
struct Place {
    binary: Binary,
    homes: TempDir,
    user: Option<u32>,
    executor: Child,
    ready: Json,
    mark: String,
}

impl Place {
    fn start(user: Option<u32>) -> Self {
        let binary = Binary::open();
        let homes = TempDir::new().unwrap();
        for role in ["", "harness", "executor"] {
            let home = homes.path().join(role);
            std::fs::create_dir_all(&home).unwrap();
            std::os::unix::fs::chown(&home, user, user).unwrap();
        }
        let home = |role: &str| homes.path().join(role);
        let key = binary
            .command(&home("harness"), user)
            .args(["key", "--json"])
            .output()
            .unwrap();
        let key: Json = serde_json::from_slice(&key.stdout).unwrap();
        let list = homes.path().join("authorized_clients");
        std::fs::write(
            &list,
            format!("{} # the test\n", key["public_key"].as_str().unwrap()),
        )
        .unwrap();
        let mut executor = binary
            .command(&home("executor"), user)
            .args([
                "executor",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--authorized-clients",
            ])
            .arg(&list)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(executor.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let mark = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
            .unwrap()
            .trim()
            .to_owned();
        Self {
            binary,
            homes,
            user,
            executor,
            ready,
            mark,
        }
    }

    /// `dwell run` with these options of a command that has the mark.
    fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.binary.command(&self.homes.path().join("harness"), self.user);
        run.args(["run", "--direct", self.ready["address"].as_str().unwrap()])
            .args(["--executor", self.ready["public_key"].as_str().unwrap()])
            .arg("--env")
            .arg(format!("{MARK}={}", self.mark))
            .args(options)
            .arg("--")
            .args(command);
        run
    }

    fn output(&self, options: &[&str], command: &[&str]) -> Output {
        self.run(options, command).output().unwrap()
    }

    /// Starts a command whose output can be read, and waits until it says that it is up.
    fn stand(&self, options: &[&str], script: &str) -> Standing {
        let mut run = self.run(options, &["sh", "-c", script]);
        let mut child = run
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut standing = Standing { child, out };
        assert_eq!(standing.line(), "up\n");
        standing
    }

    /// How many connections to the executor have bytes that it has not read.
    fn unheard(&self) -> usize {
        let address = self.ready["address"].as_str().unwrap();
        let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
        let end = format!(":{port:04X}");
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_unheard = |line: &&str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let received = fields[4].split(':').nth(1).unwrap();
            fields[1].ends_with(&end) && fields[3] == "01" && received != "00000000"
        };
        sockets.lines().skip(1).filter(is_unheard).count()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.executor), signal).unwrap();
    }

    /// The processes with the mark, the command lines of harnesses not among them.
    fn living(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.mark).into_bytes();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let marked = processes.filter(|entry| {
            std::fs::read(entry.path().join("environ"))
                .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|pair| pair == mark))
        });
        marked
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop((self.executor.kill(), self.executor.wait()));
        for process in self.living() {
            let _ = kill_process(Pid::from_raw(process).unwrap(), Signal::KILL);
        }
    }
}

/// A `dwell run` whose command is up.
struct Standing {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Standing {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    fn say(&mut self, line: &str) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
    }

    /// Its end, and what was left to read of both outputs.
    fn ended(mut self) -> (ExitStatus, String, String) {
        drop(self.child.stdin.take());
        let (mut rest, mut errors) = (String::new(), String::new());
        self.out.read_to_string(&mut rest).unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        (within(&mut self.child), rest, errors)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

/// A process's end, which comes in time.
fn within(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("it ends", BOUND, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Looks every millisecond at something outside of this program, which announces nothing, until it holds.
fn until(what: &str, bound: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// P-26, with the binary itself.
#[test]
fn an_executor_that_is_killed_leaves_only_what_was_detached() {
    let rounds = if is_soak() { 200 } else { 5 };
    for user in users() {
        for round in 0..rounds {
            let mut place = Place::start(user);
            let detached = place.stand(
                &["--outlive-executor", "--resume-for", "1"],
                "trap '' HUP; echo up; exec sleep 4321",
            );
            // While it executes its program it has no environment to be known by.
            let mut alone = Vec::new();
            until("the detached one stands", BOUND, || {
                alone = place.living();
                alone.len() == 1
            });
            let trees: Vec<_> = TREES
                .iter()
                .map(|script| place.stand(&["--resume-for", "1"], script))
                .collect();
            until("they stand", BOUND, || place.living().len() >= 6);
            place.executor.kill().unwrap();
            place.executor.wait().unwrap();
            let killed = Instant::now();
            until("only the detached one lives", DEATH_MAX, || {
                place.living() == alone
            });
            if round == 0 {
                println!(
                    "{user:?}: all were gone {} ms after the executor",
                    killed.elapsed().as_millis()
                );
            }
            for tree in trees {
                let (status, _, errors) = tree.ended();
                assert_eq!(status.code(), Some(125), "{errors}");
                assert!(errors.contains("outcome is unknown"), "{errors}");
            }
            assert_eq!(detached.ended().0.code(), Some(125));
            assert_eq!(place.living(), alone, "and it lives on");
            kill_process(Pid::from_raw(alone[0]).unwrap(), Signal::KILL).unwrap();
            until("the detached one ends", BOUND, || place.living().is_empty());
        }
    }
}

/// P-27. What it says to its clients is that it ends, and to its commands TERM: they have their grace.
#[test]
fn an_executor_that_is_told_to_end_ends_its_commands_within_their_grace() {
    for user in users() {
        let mut place = Place::start(user);
        let witness = place.homes.path().join("harness/witness");
        let script = format!(
            "trap 'echo bye >{}; exit 7' TERM; echo up; while :; do sleep 0.02; done",
            witness.display()
        );
        let obedient = place.stand(&[], &script);
        let script = "trap '' TERM; setsid sleep 1000 & echo up; while :; do sleep 0.02; done";
        let deaf = place.stand(&[], script);
        let begun = Instant::now();
        place.signal(Signal::TERM);
        let status = within(&mut place.executor);
        let took = begun.elapsed();
        assert_eq!(status.code(), Some(0), "an orderly end, after {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        println!("{user:?}: it ended {} ms after TERM", took.as_millis());
        until("nothing survives", DEATH_MAX, || place.living().is_empty());
        assert_eq!(
            std::fs::read_to_string(witness).unwrap(),
            "bye\n",
            "it heard TERM first"
        );
        // Their clients hear how they ended before the goodbye.
        for (run, code) in [(obedient, 7), (deaf, 137)] {
            let (status, _, errors) = run.ended();
            assert_eq!(status.code(), Some(code), "{errors}");
        }
    }
}

/// P-28.
#[test]
fn an_executor_that_stood_still_goes_on_where_it_was() {
    let mut place = Place::start(None);
    let mut before = place.stand(&[], "echo up; while read line; do echo heard $line; done; exit 5");
    before.say("one\n");
    assert_eq!(before.line(), "heard one\n");
    place.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", place.executor.id());
    let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
    until("it stands still", BOUND, is_stopped);
    before.say("two\n");
    let mut echo = place.run(&[], &["echo", "fine"]);
    let meanwhile = echo
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The old session's question and the new one's first bytes lie before it.
    until("both wait", BOUND, || place.unheard() >= 2);
    if is_soak() {
        let still = Instant::now();
        until("a minute", 2 * Duration::from_secs(60), || {
            still.elapsed() >= Duration::from_secs(60)
        });
    }
    place.signal(Signal::CONT);
    assert_eq!(before.line(), "heard two\n");
    let meanwhile = meanwhile.wait_with_output().unwrap();
    if is_soak() {
        // Nobody waits a minute for a connection, and it says so.
        let errors = String::from_utf8(meanwhile.stderr).unwrap();
        assert_eq!(meanwhile.status.code(), Some(125), "{errors}");
        println!("meanwhile: {errors}");
    } else {
        assert_eq!(meanwhile.stdout, b"fine\n");
    }
    assert_eq!(place.output(&[], &["echo", "again"]).stdout, b"again\n");
    let (status, rest, errors) = before.ended();
    assert_eq!((status.code(), rest.as_str()), (Some(5), ""), "{errors}");
    assert!(place.executor.try_wait().unwrap().is_none());
}

/// Memory of a process, in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// P-16, with the binary itself.
#[test]
fn output_that_nobody_reads_stops_the_command_and_costs_no_memory() {
    const MEMORY_MAX: u64 = 32 << 20;
    let place = Place::start(None);
    assert_eq!(place.output(&[], &["echo", "warm"]).stdout, b"warm\n");
    let before = resident(place.executor.id());
    let mut flood = place.stand(&[], "echo up; exec cat /dev/zero");
    let written = || {
        let count = |process: &i32| {
            let io = std::fs::read_to_string(format!("/proc/{process}/io")).ok()?;
            io.lines()
                .find_map(|line| line.strip_prefix("wchar: "))?
                .parse::<u64>()
                .ok()
        };
        place.living().iter().filter_map(count).sum::<u64>()
    };
    let (mut last, mut since) = (0, Instant::now());
    until("the command stops", BOUND, || {
        let now = written();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        last > 0 && since.elapsed() > Duration::from_millis(300)
    });
    let grown = resident(place.executor.id()).saturating_sub(before);
    println!(
        "stopped after {} KiB, the executor has {} KiB more",
        last >> 10,
        grown >> 10
    );
    assert!(
        last < 32 << 20 && grown < MEMORY_MAX,
        "{last} written, {grown} more"
    );
    assert_eq!(place.output(&[], &["echo", "others"]).stdout, b"others\n");
    // Whoever reads on gets on.
    let mut taken = vec![0; 64 << 20];
    flood.out.read_exact(&mut taken).unwrap();
    assert!(taken.iter().all(|byte| *byte == 0));
    kill_process(Pid::from_child(&flood.child), Signal::TERM).unwrap();
    until("the command ends", BOUND, || place.living().is_empty());
}

#[test]
fn a_time_that_is_over_ends_the_command_with_124_and_a_sentence() {
    let place = Place::start(None);
    let script = "setsid sleep 1000 & echo early; sleep 60";
    let output = place.output(&["--timeout", "5"], &["sh", "-c", script]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(124), "{errors}");
    assert_eq!(output.stdout, b"early\n");
    assert!(
        errors.contains("terminated after 5 s") && errors.contains("--timeout"),
        "{errors}"
    );
    until("all of it ends", BOUND, || place.living().is_empty());
    let output = place.output(&["--timeout", "20"], &["sh", "-c", "exit 3"]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn limits_reach_the_command_and_one_that_cannot_be_had_is_advice() {
    let place = Place::start(None);
    let limits = [
        "--limit",
        "files=77",
        "--limit",
        "memory=1G",
        "--limit",
        "nice=5",
        "--limit",
        "core=0",
    ];
    let script = "ulimit -n; ulimit -v; nice; ulimit -c";
    let output = place.output(&limits, &["bash", "-c", script]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "77\n1048576\n5\n0\n");
    let output = place.output(&["--limit", "files=4294967295"], &["true"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{errors}");
    assert!(
        errors.contains("open files") && errors.contains("within the executor's own"),
        "{errors}"
    );
}
