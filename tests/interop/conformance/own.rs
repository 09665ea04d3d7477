//! A server that a case has for itself.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::lab::{BOUND, Client, Lab};

/// What makes it listen.
pub(crate) const LISTEN: [&str; 2] = ["--listen", "ws://127.0.0.1:0"];

/// Ended when dropped.
pub(crate) struct Own(pub(crate) Child);

impl Drop for Own {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Own {
    pub(crate) fn start(lab: &Lab, arguments: &[&str]) -> Self {
        Self::start_with(lab, arguments, |_| ())
    }

    /// With something more than its arguments.
    pub(crate) fn start_with(lab: &Lab, arguments: &[&str], more: impl FnOnce(&mut Command)) -> Self {
        let mut command = lab.server.command();
        command.args(arguments);
        Self::spawn(lab, command, more)
    }

    /// Started by another program, which is given its line behind these.
    pub(crate) fn start_by(lab: &Lab, before: &[&str], arguments: &[&str]) -> Self {
        let own = lab.server.command();
        let mut command = Command::new(before[0]);
        command
            .args(&before[1..])
            .arg(own.get_program())
            .args(own.get_args())
            .args(arguments)
            .env_clear();
        for (name, value) in own.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Self::spawn(lab, command, |_| ())
    }

    fn spawn(lab: &Lab, mut command: Command, more: impl FnOnce(&mut Command)) -> Self {
        command
            .env("DWELL_HOME", lab.path("home"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        more(&mut command);
        Self(command.spawn().unwrap())
    }

    /// The first line; nothing where there is none before its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn exit(&mut self) -> Option<i32> {
        let until = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it ends in time");
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
    }

    /// Connected to it where it listens, and ready for requests.
    pub(crate) async fn begin(&mut self) -> Client {
        let mut client = Client::connect(&self.line()).await;
        client.initialize(Value::Null).await;
        client
    }
}
