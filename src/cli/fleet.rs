//! A relay and an executor on this machine, for a command that has none: each started, heard, and ended on every way out.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dwell_messages::{PublicKey, Role};
use dwell_relay::fingerprint;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::failure::Failure;
use super::output;
use super::ready::{READY_LINE_MAX_BYTES, Ready, role_name};

/// The longest a role takes until it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between TERM and KILL.
const END_GRACE: Duration = Duration::from_secs(3);
const LOOPBACK_ANY_PORT: &str = "127.0.0.1:0";
/// How long a killed process is waited for.
const BURIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Variables that would tell a member of the fleet something else than its parent does.
const OVERRIDING: [&str; 11] = [
    "DWELL_RELAY",
    "DWELL_DIRECT",
    "DWELL_EXECUTOR",
    "DWELL_RELAY_LISTEN",
    "DWELL_RELAY_ALLOW",
    "DWELL_EXECUTOR_LISTEN",
    "DWELL_AUTHORIZED_CLIENTS",
    "DWELL_TLS_CA",
    "DWELL_TLS_CERT",
    "DWELL_TLS_KEY",
    "DWELL_HOME",
];

/// Roles running as processes of their own. Those still there when it is dropped are killed.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    /// A variable that is none of their business.
    hidden: Option<String>,
}

#[derive(Debug)]
struct Member {
    role: Role,
    child: Child,
    /// Kept after the ready line too, so that the member can still write to it.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Fleet {
    /// Its members do not inherit this variable.
    pub(crate) fn without(mut self, variable: &str) -> Self {
        self.hidden = Some(variable.to_owned());
        self
    }

    /// Relay first, then the executor that registers there; the client is listed before it serves.
    ///
    /// Cancellation: what has been started is part of the fleet.
    pub(crate) async fn serve(
        &mut self,
        place: &Path,
        client: &PublicKey,
    ) -> Result<(Ready, Ready), Failure> {
        let relay_home = place.join("relay");
        let relay = self
            .start(Role::Relay, &relay_home, &["--listen", LOOPBACK_ANY_PORT])
            .await?;
        let address = relay.address.clone().unwrap_or_default();
        let executor_home = place.join("executor");
        let arguments = ["--relay", &address, "--authorize", &client.to_string()];
        let executor = self.start(Role::Executor, &executor_home, &arguments).await?;
        Ok((relay, executor))
    }

    /// Starts this same program in a role and waits, at most 10 s, until it says that it serves.
    ///
    /// Cancellation: the process is part of the fleet from its start on.
    pub(crate) async fn start(
        &mut self,
        role: Role,
        home: &Path,
        arguments: &[&str],
    ) -> Result<Ready, Failure> {
        self.spawn(role, home, arguments)?.ready().await
    }

    /// Starts an executor that serves a Codex CLI, and waits for the address: that is the one line it prints.
    ///
    /// Cancellation: as `start`.
    pub(crate) async fn start_dialect(&mut self, home: &Path) -> Result<String, Failure> {
        let arguments = ["--listen", "ws://127.0.0.1:0"];
        self.spawn(Role::Executor, home, &arguments)?.line().await
    }

    /// The process that was started last; 0 without one.
    pub(crate) fn newest(&self) -> u32 {
        self.members
            .last()
            .and_then(|member| member.child.id())
            .unwrap_or(0)
    }

    fn spawn(&mut self, role: Role, home: &Path, arguments: &[&str]) -> Result<&mut Member, Failure> {
        let name = role_name(role);
        let program = std::env::current_exe()
            .map_err(|error| Failure::because("demo", "this program's own file is not known", &error))?;
        let mut command = Command::new(program);
        for variable in OVERRIDING.into_iter().chain(self.hidden.as_deref()) {
            command.env_remove(variable);
        }
        command
            .arg(name)
            .arg("--ready-json")
            .args(arguments)
            .env("DWELL_HOME", home)
            // Its end tells the member that we are gone, however that came about.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us alone: a relay that stops first would cut the command off.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| Failure::because("demo", &format!("the {name} cannot be started"), &error))?;
        let stdout = child.stdout.take().map(BufReader::new);
        self.members.push(Member { role, child, stdout });
        Ok(self.members.last_mut().expect("one was pushed just now"))
    }

    /// Ends all of them, last started first: TERM, a grace, KILL.
    pub(crate) async fn end(mut self) {
        while let Some(mut member) = self.members.pop() {
            member.end().await;
        }
    }
}

/// Says who is there, and by which key.
pub(crate) fn introduce(relay: &Ready, executor: &Ready, client: &PublicKey) {
    let row = |role: &str, does: &str, key: &PublicKey| {
        output::note(&format!("{role:<9} {does:<49} {}", fingerprint(key)));
    };
    row("harness", "this process: asks", client);
    let listens = format!(
        "forwards what it cannot read, {}",
        relay.address.as_deref().unwrap_or("?")
    );
    row("relay", &listens, &relay.public_key);
    row(
        "executor",
        "runs the command, registered there",
        &executor.public_key,
    );
    output::note("");
}

impl Member {
    async fn ready(&mut self) -> Result<Ready, Failure> {
        let name = role_name(self.role);
        let line = self.line().await?;
        Ready::parse(&line, self.role).ok_or_else(|| {
            Failure::new(
                "demo",
                format!("the {name} said something else than that it serves"),
            )
        })
    }

    /// The first line that it prints.
    async fn line(&mut self) -> Result<String, Failure> {
        let name = role_name(self.role);
        let stdout = self.stdout.as_mut().expect("its standard output is a pipe");
        let mut line = String::new();
        let mut bounded = stdout.take(READY_LINE_MAX_BYTES);
        match tokio::time::timeout(READY_TIMEOUT, bounded.read_line(&mut line)).await {
            Err(_) => {
                let message = format!("the {name} did not serve within {} s", READY_TIMEOUT.as_secs());
                Err(Failure::new("demo", message).advise("DWELL_LOG=debug dwell demo says more"))
            }
            Ok(Err(error)) => Err(Failure::because(
                "demo",
                &format!("the {name} cannot be heard"),
                &error,
            )),
            Ok(Ok(0)) => Err(Failure::new("demo", format!("the {name} ended before it served"))
                .advise("what it said of that is above")),
            Ok(Ok(_)) => Ok(line),
        }
    }

    async fn end(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(END_GRACE, self.child.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(role = role_name(self.role), "did not end in time and is killed");
        self.signal(Signal::KILL);
        drop(tokio::time::timeout(BURIAL_TIMEOUT, self.child.wait()).await);
    }

    /// The id is the child's own until it has been waited for: then tokio gives none.
    fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!(%error, role = role_name(self.role), "cannot be signalled");
        }
    }
}
