//! Commands that are left, found again and taken up, and what becomes of their input and output where one side cannot take
//! it, with the binary as its users have it: through a relay and directly.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(60);

/// A role's process; killed when dropped.
struct Serving {
    child: Child,
    ready: Value,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, ready }
    }

    fn end(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}

struct World {
    homes: TempDir,
    relay: Option<Serving>,
    executor: Serving,
    list: PathBuf,
}

fn dwell(home: &Path) -> Command {
    std::fs::create_dir_all(home).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwell"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DWELL_HOME", home)
        .stdin(Stdio::null());
    command
}

fn key_of(home: &Path) -> String {
    let made = dwell(home).args(["key", "--json"]).output().unwrap();
    let value: Value = serde_json::from_slice(&made.stdout).unwrap();
    value["public_key"].as_str().unwrap().to_owned()
}

impl World {
    fn start(relayed: bool) -> Self {
        let homes = TempDir::new().unwrap();
        let list = homes.path().join("authorized_clients");
        let keys = ["harness", "stranger"].map(|name| key_of(&homes.path().join(name)));
        std::fs::write(&list, format!("{}\n{}\n", keys[0], keys[1])).unwrap();
        let relay = relayed.then(|| {
            let mut relay = dwell(&homes.path().join("relay"));
            relay.args(["relay", "--listen", "127.0.0.1:0", "--json"]);
            Serving::start(relay)
        });
        let executor = Self::executor(&homes, relay.as_ref(), &list);
        Self {
            homes,
            relay,
            executor,
            list,
        }
    }

    fn executor(homes: &TempDir, relay: Option<&Serving>, list: &Path) -> Serving {
        let mut executor = dwell(&homes.path().join("executor"));
        executor
            .args(["executor", "--json", "--authorized-clients"])
            .arg(list);
        match relay {
            Some(relay) => executor.args(["--relay", relay.ready["address"].as_str().unwrap()]),
            None => executor.args(["--listen", "127.0.0.1:0"]),
        };
        Serving::start(executor)
    }

    /// The binary as this key's user calls it.
    fn as_(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = dwell(&self.homes.path().join(who));
        command.args(arguments).env(
            "DWELL_EXECUTOR",
            self.executor.ready["public_key"].as_str().unwrap(),
        );
        match &self.relay {
            Some(relay) => command.env("DWELL_RELAY", relay.ready["address"].as_str().unwrap()),
            None => command.env("DWELL_DIRECT", self.executor.ready["address"].as_str().unwrap()),
        };
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.as_("harness", arguments).output().unwrap()
    }

    /// Starts a command and leaves it.
    fn detach(&self, options: &[&str], command: &[&str]) -> String {
        let line = [&["run", "--detach"], options, &["--"], command].concat();
        let output = self.run(&line);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let text = out(&output);
        assert_eq!(text.lines().count(), 1, "the id and nothing else: {text:?}");
        text.trim_end().to_owned()
    }

    fn ps(&self, who: &str, all: bool) -> Vec<Value> {
        let arguments: &[&str] = if all {
            &["ps", "--all", "--json"]
        } else {
            &["ps", "--json"]
        };
        let output = self.as_(who, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["commands"].as_array().unwrap().clone()
    }

    fn state(&self, id: &str) -> Option<Value> {
        self.ps("harness", true).into_iter().find(|line| line["id"] == id)
    }

    /// Its line, once nothing more comes of it and its client's leaving has arrived as well.
    fn until_ended(&self, id: &str) -> Value {
        self.until(id, |line| line["state"] == "closed" && line["connected"] == false)
    }

    fn until(&self, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            // A session that is slow to answer is not listed.
            let line = self.state(id);
            if let Some(line) = line.as_ref().filter(|line| is_so(line)) {
                return line.clone();
            }
            assert!(begun.elapsed() < BOUND, "{line:?}");
        }
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn both(test: impl Fn(&World)) {
    for relayed in [false, true] {
        test(&World::start(relayed));
    }
}

/// A command that is left says where it is, is listed, and is taken up to its end with its exit code.
#[test]
fn a_command_is_left_listed_read_and_taken_up_with_its_exit_code() {
    both(|world| {
        let id = world.detach(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
        let line = world.until_ended(&id);
        assert_eq!(
            (&line["program"], &line["status"]["code"]),
            (&"sh".into(), &7.into())
        );
        assert_eq!((&line["connected"], &line["owner"]), (&false.into(), &1.into()));
        assert!(
            world.ps("harness", false).is_empty(),
            "without --all only what runs"
        );
        let logs = world.run(&["logs", &id]);
        assert_eq!(
            (logs.status.code(), out(&logs).as_str(), err(&logs).as_str()),
            (Some(0), "out\n", "err\n")
        );
        let only = world.run(&["logs", "--stderr", &id]);
        assert_eq!((out(&only).as_str(), err(&only).as_str()), ("", "err\n"));
        let json: Value = serde_json::from_slice(&world.run(&["logs", "--json", &id]).stdout).unwrap();
        assert_eq!(
            (&json["stdout"]["text"], &json["ended"]),
            (&"out\n".into(), &true.into())
        );
        // To look takes nothing; the end is taken by whoever attaches, and stays a while after that.
        let attached = world.run(&["attach", &id]);
        assert_eq!(
            (
                attached.status.code(),
                out(&attached).as_str(),
                err(&attached).as_str()
            ),
            (Some(7), "out\n", "err\n")
        );
        let table = world.run(&["ps", "--all"]);
        let text = out(&table);
        assert!(
            text.starts_with("ID ") && text.contains(&id) && text.contains("exited 7"),
            "{text}"
        );
    });
}

/// K-11: a client that is killed loses nothing; another one takes its command up.
#[test]
fn a_command_whose_client_was_killed_is_taken_up_by_a_new_one() {
    both(|world| {
        let mut client = world
            .as_(
                "harness",
                &[
                    "run",
                    "--",
                    "sh",
                    "-c",
                    "echo first; read line; echo \"got $line\"; exit 3",
                ],
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(client.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "first\n");
        client.kill().unwrap();
        client.wait().unwrap();
        let running = world.ps("harness", false);
        assert_eq!(running.len(), 1, "{running:?}");
        let id = running[0]["id"].as_str().unwrap();
        let mut next = world
            .as_("harness", &["attach", id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        next.stdin.take().unwrap().write_all(b"line\n").unwrap();
        let mut text = String::new();
        next.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(
            (next.wait().unwrap().code(), text.as_str()),
            (Some(3), "first\ngot line\n")
        );
    });
}

/// Somebody who attaches to what another client has takes it over, and the other one is told.
#[test]
fn whoever_attaches_takes_over_and_the_other_is_told() {
    both(|world| {
        let first = world
            .as_("harness", &["run", "--", "sh", "-c", "echo up; exec sleep 1000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let id = loop {
            if let Some(line) = world.ps("harness", false).first() {
                break line["id"].as_str().unwrap().to_owned();
            }
            assert!(begun.elapsed() < BOUND);
        };
        let mut second = world
            .as_("harness", &["attach", &id])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(second.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "up\n");
        let told = first.wait_with_output().unwrap();
        assert_eq!(told.status.code(), Some(125));
        assert!(err(&told).contains("taken over"), "{}", err(&told));
        let killed = world.run(&["kill", &id]);
        assert_eq!(killed.status.code(), Some(0), "{}", err(&killed));
        assert_eq!(second.wait().unwrap().code(), Some(128 + 15));
    });
}

/// An interrupted `attach` leaves the command running; `kill` ends it, and says so when there is nothing to end.
#[test]
fn an_interrupt_leaves_what_was_attached_and_kill_ends_it() {
    both(|world| {
        let id = world.detach(
            &[],
            &[
                "sh",
                "-c",
                "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done",
            ],
        );
        let mut attached = world
            .as_("harness", &["attach", &id])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(attached.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let pid = rustix::process::Pid::from_raw(attached.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(attached.wait().unwrap().code(), Some(0));
        assert_eq!(world.state(&id).unwrap()["state"], "running");
        let mut follow = world
            .as_("harness", &["logs", "--follow", &id])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut followed = BufReader::new(follow.stdout.take().unwrap());
        line.clear();
        followed.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        let signalled = world.run(&["kill", "--signal", "HUP", &id]);
        assert_eq!(signalled.status.code(), Some(0), "{}", err(&signalled));
        line.clear();
        followed.read_line(&mut line).unwrap();
        assert_eq!(line, "hup\n", "what comes later is followed");
        let killed = world.run(&["kill", "--json", &id]);
        let report: Value = serde_json::from_slice(&killed.stdout).unwrap();
        assert_eq!(
            (&report["id"], &report["unkillable"]),
            (&id.as_str().into(), &0.into())
        );
        assert_eq!(
            follow.wait().unwrap().code(),
            Some(0),
            "a followed command that ends is no error"
        );
        let again = world.run(&["kill", &id]);
        assert_eq!(again.status.code(), Some(125));
        assert!(err(&again).contains("has ended already"), "{}", err(&again));
        assert!(
            err(&again).contains(&format!("dwell logs {id}")),
            "{}",
            err(&again)
        );
    });
}

/// What is wrong with an id is told, each in its way: another life, another key, none at all.
#[test]
fn an_id_that_names_nothing_here_is_told_why() {
    let mut world = World::start(false);
    let id = world.detach(&[], &["sleep", "1000"]);
    assert!(world.ps("stranger", true).is_empty(), "another key sees nothing");
    for verb in ["attach", "logs", "kill"] {
        let other = world.as_("stranger", &[verb, &id]).output().unwrap();
        assert_eq!(other.status.code(), Some(125));
        assert!(
            err(&other).contains("another key started it"),
            "{verb}: {}",
            err(&other)
        );
        let gone = world.run(&[verb, &format!("{}9", id.split('.').next().unwrap())]);
        assert!(err(&gone).contains("dwell ps --all"), "{verb}: {}", err(&gone));
        let none = world.run(&[verb, "12"]);
        assert_eq!(none.status.code(), Some(125));
        assert!(err(&none).contains("k3f9x-12.1"), "{verb}: {}", err(&none));
    }
    assert_eq!(world.state(&id).unwrap()["state"], "running");
    world.executor.end();
    world.executor = World::executor(&world.homes, None, &world.list);
    for verb in ["attach", "logs", "kill"] {
        let refused = world.run(&[verb, &id, "--json"]);
        assert_eq!(refused.status.code(), Some(125));
        let value: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert_eq!(value["error"]["kind"], "restarted", "{verb}: {value}");
    }
}

/// A detached command has an input and a terminal only where that was asked for.
#[test]
fn a_detached_command_has_input_and_terminal_where_asked_for() {
    both(|world| {
        let without = world.detach(&[], &["sh", "-c", "test -t 1 || echo none; cat; echo over"]);
        world.until_ended(&without);
        assert_eq!(out(&world.run(&["logs", &without])), "none\nover\n");
        let with = world.detach(
            &["--tty=always", "--stdin"],
            &["sh", "-c", "test -t 1 && echo terminal; read l; echo \"<$l>\""],
        );
        let line = world.state(&with).unwrap();
        assert_eq!(
            (&line["tty"], &line["stdin"], &line["state"]),
            (&true.into(), &true.into(), &"running".into())
        );
        let mut attached = world
            .as_("harness", &["attach", &with])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        attached.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = attached.wait_with_output().unwrap();
        assert!(
            out(&output).contains("terminal") && out(&output).contains("<typed>"),
            "{}: {:?}",
            output.status,
            out(&output)
        );
    });
}

/// K-15: a detached command that says more than is retained, with nobody there: attach has every byte, logs says what it
/// has not.
#[test]
fn what_a_detached_command_said_is_there_to_the_last_byte() {
    both(|world| {
        let id = world.detach(&[], &["sh", "-c", "seq 1 1000000"]);
        let expected: String = (1..=1_000_000).map(|number| format!("{number}\n")).collect();
        // It has exited before the last of it is read from its pipe, and is not closed before somebody takes it.
        world.until(&id, |line| {
            (&line["state"], &line["connected"]) == (&"exited".into(), &false.into())
                && line["written_bytes"][0] == expected.len()
        });
        let logs = world.run(&["logs", &id]);
        let shown = out(&logs);
        assert!(expected.ends_with(&shown) && shown.len() > 900_000 && shown.len() < 1_100_000);
        let missing = expected.len() - shown.len();
        assert!(
            err(&logs).contains(&format!("{missing} bytes of stdout")),
            "{}",
            err(&logs)
        );
        let attached = world.run(&["attach", &id]);
        assert_eq!(attached.status.code(), Some(0), "{}", err(&attached));
        assert!(out(&attached) == expected, "every byte, in order");
    });
}

/// Waits for a process's end, and not for ever.
fn ended(mut child: Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > BOUND {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    child.wait_with_output().unwrap()
}

/// Regression: the end was told before the exit, and whoever followed never heard how it ended.
#[test]
fn logs_that_follow_a_command_end_with_its_status() {
    both(|world| {
        let gate = world.homes.path().join("gate");
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let script = format!("echo said; read line < {}; exit 5", gate.display());
        let id = world.detach(&[], &["sh", "-c", &script]);
        let mut following = world
            .as_("harness", &["logs", "--follow", "--json", &id])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
        let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
        assert_eq!(next()["text"], "said\n");
        std::fs::write(&gate, "go\n").unwrap();
        let last = next();
        assert_eq!(
            (&last["ended"], &last["status"]["code"]),
            (&true.into(), &5.into())
        );
        assert_eq!(ended(following).status.code(), Some(0));
    });
}

/// Regression: the command waited for ever for the end of an input that its client could not give it, and so did the client.
#[test]
fn input_that_a_key_may_not_give_is_an_error_that_names_the_scope() {
    both(|world| {
        let key = key_of(&world.homes.path().join("stranger"));
        std::fs::write(&world.list, format!("{key} scopes=spawn\n")).unwrap();
        let mut running = world
            .as_("stranger", &["run", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        running.stdin.take().unwrap().write_all(b"hello\n").unwrap();
        let output = ended(running);
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(125), ""));
        let said = err(&output);
        assert!(
            said.contains("scope stdin") && said.contains("</dev/null"),
            "{said}"
        );
        // The control: without input the same key runs the same command.
        let output = world.as_("stranger", &["run", "--", "cat"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    });
}

/// Regression: a key stroke that was refused ended a command that was only looked at.
#[test]
fn input_that_a_key_may_not_give_ends_nothing_that_it_is_attached_to() {
    let world = World::start(false);
    let key = key_of(&world.homes.path().join("stranger"));
    std::fs::write(&world.list, format!("{key} scopes=spawn+attach+signal\n")).unwrap();
    let as_stranger = |arguments: &[&str]| world.as_("stranger", arguments);
    let started = as_stranger(&["run", "--detach", "--stdin", "--", "cat"])
        .output()
        .unwrap();
    let id = out(&started).trim_end().to_owned();
    let mut attached = as_stranger(&["attach", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    attached.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let mut said = String::new();
    BufReader::new(attached.stderr.as_mut().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert!(said.contains("scope stdin"), "{said}");
    // Whoever had been told to end it would be told here, in the order of one link.
    attached.kill().unwrap();
    ended(attached);
    let line = world
        .ps("stranger", true)
        .into_iter()
        .find(|line| line["id"] == id);
    assert_eq!(line.unwrap()["state"], "running");
    let killed = as_stranger(&["kill", &id]).output().unwrap();
    assert_eq!(killed.status.code(), Some(0), "{}", err(&killed));
}

/// Regression: it was lost with exit code 0, or with that of a reader that went away.
#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_went_away_is_none() {
    let world = World::start(false);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [
        &["run", "--", "echo", "important"][..],
        &["run", "--", "sh", "-c", "seq 1 100000"],
        &["run", "--json", "--", "true"],
        &["run", "--detach", "--", "true"],
        &["ps"],
    ] {
        let output = world.as_("harness", arguments).stdout(full()).output().unwrap();
        let said = err(&output);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {said}");
        assert!(said.contains("No space left"), "{arguments:?}: {said}");
    }
    for arguments in [
        &["run", "--", "echo", "important"][..],
        &["run", "--", "sh", "-c", "seq 1 100000"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = world.as_("harness", arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(141), ""));
    }
}

#[test]
fn a_program_that_is_not_there_is_named_once_with_what_to_do() {
    let world = World::start(false);
    let output = world.run(&["run", "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        err(&output),
        "dwell: no-such-program: the program was not found (No such file or directory (os error 2)): install it, or \
         check the name and the command's PATH\n"
    );
}
