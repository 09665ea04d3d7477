//! A turn of the CLI, against an executor of dwell's.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dwell_actors::trace_file::{current_path, read_traces};
use dwell_messages::{Role, Span};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::mock::{Mock, Step};

/// The package whose client is served.
const PACKAGE: &str = "@openai/codex@0.169.0-linux-x64";
/// The stage of a command of which is told last.
const LAST_STAGE: &str = "exit watcher";
const BOUND: Duration = Duration::from_secs(20);
/// The longest one turn may take.
const TURN_MAX_SECONDS: &str = "120";
/// Set where the network is a loopback alone.
const INSIDE: &str = "DWELL_INTEROP_INSIDE";

/// Runs a test in a network namespace of its own. True: this is the inside.
pub(crate) fn confined(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // Before there is no way out any more.
    let codex = codex();
    let flags = if rustix::process::geteuid().is_root() {
        "-n"
    } else {
        "-rn"
    };
    let inside = Command::new("unshare")
        .args([flags, "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env("DWELL_CODEX", codex)
        .status()
        .unwrap();
    assert!(inside.success(), "{test}, inside");
    false
}

/// The CLI's binary; fetched once.
pub(crate) fn codex() -> PathBuf {
    if let Some(given) = std::env::var_os("DWELL_CODEX") {
        return given.into();
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("codex-0.169.0");
    let binary = cache.join("package/vendor/x86_64-unknown-linux-musl/bin/codex");
    if !binary.exists() {
        std::fs::create_dir_all(&cache).unwrap();
        // Tests run beside each other, and one fetches. It is there when all of it is.
        let script = format!(
            "exec 9>lock; flock 9; [ -e {} ] || {{ rm -rf new; mkdir new; cd new; \
             npm pack --silent --fetch-retries 5 {PACKAGE}; tar xzf *.tgz; mv package ..; }}",
            binary.display()
        );
        let fetched = Command::new("sh")
            .args(["-ec", &script])
            .current_dir(&cache)
            .status()
            .unwrap();
        assert!(fetched.success() && binary.exists(), "{PACKAGE} was fetched");
    }
    binary
}

pub(crate) struct World {
    dir: TempDir,
    /// Killed when dropped, the last first.
    roles: Vec<Child>,
    pub(crate) url: String,
}

impl Drop for World {
    fn drop(&mut self) {
        for role in self.roles.iter_mut().rev() {
            role.kill().ok();
            role.wait().ok();
        }
    }
}

/// A role of dwell's, and the first line that it prints.
fn role(home: &Path, arguments: &[&str]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dwell"))
        .args(arguments)
        .env("DWELL_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line.trim_end().to_owned())
}

fn member(line: &str, name: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap();
    value[name].as_str().unwrap().to_owned()
}

/// Asks a role to end and waits until it has: what it traced is written then.
fn end(mut role: Child) {
    kill_process(Pid::from_child(&role), Signal::TERM).unwrap();
    role.wait().unwrap();
}

/// Whether a span is the other's, or below it.
fn is_below<'a>(spans: &'a [Span], mut span: &'a Span, above: [u8; 8]) -> bool {
    // No trace of one command is deeper.
    for _ in 0..spans.len() {
        if span.span_id == above {
            return true;
        }
        match spans.iter().find(|other| other.span_id == span.parent) {
            Some(parent) => span = parent,
            None => return false,
        }
    }
    false
}

/// What came of a turn.
pub(crate) struct Turn {
    pub(crate) outputs: Vec<String>,
    /// What the CLI said beside that.
    pub(crate) said: String,
}

impl World {
    fn dir() -> TempDir {
        let dir = TempDir::new().unwrap();
        for name in ["work", "codex"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        dir
    }

    pub(crate) fn start(arguments: &[&str]) -> Self {
        let dir = Self::dir();
        let line = [&["executor", "--listen", "ws://127.0.0.1:0"], arguments].concat();
        let (executor, url) = role(&dir.path().join("dwell"), &line);
        Self {
            dir,
            roles: vec![executor],
            url,
        }
    }

    /// The executor is behind a relay, and a bridge beside the CLI.
    pub(crate) fn start_bridged() -> Self {
        let dir = Self::dir();
        let home = |name: &str| dir.path().join(name);
        let key = Command::new(env!("CARGO_BIN_EXE_dwell"))
            .args(["key", "--json"])
            .env("DWELL_HOME", home("dwell"))
            .output()
            .unwrap();
        let key = member(std::str::from_utf8(&key.stdout).unwrap(), "public_key");
        let (relay, line) = role(&home("relay"), &["relay", "--listen", "127.0.0.1:0", "--json"]);
        let relay_address = member(&line, "address");
        let asked = [
            "executor",
            "--json",
            "--relay",
            &relay_address,
            "--authorize",
            &key,
        ];
        let (executor, line) = role(&home("executor"), &asked);
        let served = member(&line, "public_key");
        let asked = ["bridge", "--relay", &relay_address, "--executor", &served];
        let (bridge, url) = role(&home("dwell"), &asked);
        Self {
            dir,
            roles: vec![relay, executor, bridge],
            url,
        }
    }

    /// Ends the roles. So many commands were asked for, and each is one trace: from the request of the CLI to the
    /// exit of its child.
    pub(crate) fn traced(mut self, commands: usize) {
        if self.roles.len() > 1 {
            // What the executor has of a command is told to the bridge behind the command's end.
            let begun = Instant::now();
            let is_told = |spans: &Vec<Span>| spans.iter().any(|span| span.name == LAST_STAGE);
            while self.traces().values().filter(|spans| is_told(spans)).count() < commands
                && begun.elapsed() < BOUND
            {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
        // Who asks the executor ends first: what a command cost is told to it.
        while let Some(role) = self.roles.pop() {
            end(role);
        }
        let traces = self.traces();
        let mut found = 0;
        for spans in traces.values() {
            let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
            let asked = named("process/start");
            // What was refused has no child.
            let Some(first) = asked.first().filter(|asked| asked.error.is_none()) else {
                continue;
            };
            found += 1;
            let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
            assert_eq!(asked.len(), 1, "one command a trace: {names:?}");
            for stage in ["call", "process", "spawn", LAST_STAGE] {
                assert!(
                    named(stage)
                        .iter()
                        .any(|span| is_below(spans, span, first.span_id)),
                    "{stage} is below the CLI's request: {names:?}"
                );
            }
        }
        assert_eq!(found, commands, "each command is a trace");
    }

    /// The spans of each trace that this end's files have.
    fn traces(&self) -> BTreeMap<[u8; 16], Vec<Span>> {
        let dir = self.home().join("traces");
        let mut traces = BTreeMap::<[u8; 16], Vec<Span>>::new();
        for role in [Role::Harness, Role::Executor] {
            let path = current_path(&dir, role);
            if !path.exists() {
                continue;
            }
            // A line that cannot be read is a mistake here.
            for span in read_traces(&path).unwrap().flat_map(|line| line.unwrap().spans) {
                let spans = traces.entry(span.trace_id).or_default();
                if spans.iter().all(|known| known.span_id != span.span_id) {
                    spans.push(span);
                }
            }
        }
        traces
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("dwell")
    }

    /// One turn of the CLI by this URL. `None`: its own default sandbox.
    pub(crate) fn turn(&self, url: &str, sandbox: Option<&str>, script: Vec<Step>) -> Turn {
        let mock = Mock::start(script);
        let config = format!(
            "model = \"gpt-5\"\nmodel_provider = \"mock\"\n[model_providers.mock]\nname = \"mock\"\nbase_url = \"{}\"\n\
             wire_api = \"responses\"\nrequires_openai_auth = false\n",
            mock.url()
        );
        let home = self.dir.path().join("codex");
        std::fs::write(home.join("config.toml"), config).unwrap();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", TURN_MAX_SECONDS]).arg(codex());
        command.args(["exec", "--skip-git-repo-check"]);
        if let Some(sandbox) = sandbox {
            command.args(["-s", sandbox]);
        }
        let said = self.dir.path().join("said");
        let log = std::fs::File::create(&said).unwrap();
        let ended = command
            .arg("do it")
            .current_dir(self.work())
            .env("CODEX_HOME", &home)
            .env("CODEX_EXEC_SERVER_URL", url)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        let said = std::fs::read_to_string(said).unwrap();
        assert_ne!(ended.code(), Some(124), "a turn ends in time: {said}");
        Turn {
            outputs: mock.outputs(),
            said,
        }
    }
}
