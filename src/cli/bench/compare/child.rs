//! Processes of this one: commands that are run here, and clients that are programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::peer::{Live, Ran, Soon, Trouble};
use super::task::{Tally, Task};

/// One read of a pipe.
const READ_BYTES: usize = 64 * 1024;
/// Of a program's own complaint: so much is told.
const COMPLAINT_MAX_BYTES: usize = 400;
/// Time between TERM and KILL, and for a killed process.
const END_GRACE: Duration = Duration::from_secs(3);
/// Where programs are looked for without a `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// What commands are found by.
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| PATH_DEFAULT.to_owned())
}

/// A program's whole path, so that every peer starts the same one, and none a shell's own.
pub(crate) fn program(name: &str) -> Result<String, Trouble> {
    let found = search_path()
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_absolute() && path.is_file());
    let found =
        found.ok_or_else(|| Trouble::failed("looking for a program", format!("no {name} in PATH")))?;
    Ok(found.to_string_lossy().into_owned())
}

pub(crate) fn command(argv: &[String]) -> Command {
    let (program, arguments) = argv
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs it to its end and sees that it is what it must be.
pub(crate) async fn run(command: Command, task: &Task) -> Result<Ran, Trouble> {
    let (code, tally, complaint) = tally(command, task).await?;
    task.judge(code, &tally).map_err(|trouble| match trouble {
        Trouble::Wrong { what, why } if !complaint.is_empty() => {
            Trouble::wrong(what, format!("{why}; it said: {complaint}"))
        }
        Trouble::Wrong { .. } | Trouble::Failed { .. } | Trouble::Timeout { .. } => trouble,
    })?;
    Ok(Ran { first: tally.first })
}

/// Runs it to its end, both outputs read: its code, its output, and the beginning of what it complained of.
pub(crate) async fn tally(
    mut command: Command,
    task: &Task,
) -> Result<(Option<i32>, Tally, String), Trouble> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| Trouble::failed("a start", error))?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let mut tally = task.tally();
    let (counted, complaint) = tokio::join!(count(stdout.as_mut(), &mut tally), complaint(stderr.as_mut()));
    counted.map_err(|error| Trouble::failed("reading output", error))?;
    let status = child
        .wait()
        .await
        .map_err(|error| Trouble::failed("waiting for a command", error))?;
    Ok((status.code(), tally, complaint))
}

async fn count(pipe: Option<&mut ChildStdout>, tally: &mut Tally) -> std::io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        tally.take(&buffer[..read]);
    }
}

/// The beginning of what it says; the rest is read and dropped.
async fn complaint(pipe: Option<&mut (impl AsyncRead + Unpin)>) -> String {
    let Some(pipe) = pipe else { return String::new() };
    let mut said = Vec::new();
    let mut buffer = [0; 4_096];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let room = COMPLAINT_MAX_BYTES.saturating_sub(said.len());
        said.extend_from_slice(&buffer[..read.min(room)]);
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// A command that stays, by its pipes.
#[derive(Debug)]
pub(crate) struct LocalChild {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    buffer: BytesMut,
}

impl LocalChild {
    pub(crate) fn start(mut command: Command) -> Result<Box<dyn Live>, Trouble> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| Trouble::failed("a start", error))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Trouble::failed("a start", "its pipes are not there"));
        };
        Ok(Box::new(Self {
            child,
            stdin,
            stdout,
            buffer: BytesMut::with_capacity(READ_BYTES),
        }))
    }
}

impl Live for LocalChild {
    fn write<'a>(&'a mut self, data: &'a [u8]) -> Soon<'a, ()> {
        Box::pin(async move {
            let written = self.stdin.write_all(data).await;
            written.map_err(|error| Trouble::failed("writing input", error))
        })
    }

    fn read(&mut self) -> Soon<'_, Bytes> {
        Box::pin(async move {
            self.buffer.reserve(READ_BYTES);
            match self.stdout.read_buf(&mut self.buffer).await {
                Ok(0) => Err(Trouble::failed("reading output", "it ended")),
                Ok(_) => Ok(self.buffer.split().freeze()),
                Err(error) => Err(Trouble::failed("reading output", error)),
            }
        })
    }

    fn poll(&self, _: Duration) -> Option<Soon<'_, ()>> {
        None
    }

    fn end(mut self: Box<Self>) -> Soon<'static, ()> {
        Box::pin(async move {
            let killed = self.child.kill().await;
            killed.map_err(|error| Trouble::failed("ending a command", error))
        })
    }
}

/// A foreign program that serves: started, heard, ended by its own id.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where its complaints go.
    log: PathBuf,
}

impl Server {
    /// Its standard error goes to `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Result<Self, Trouble> {
        let file = std::fs::File::create(&log).map_err(|error| Trouble::failed("a server's log", error))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // Ctrl-C is for us: what is measured ends behind its clients.
            .process_group(0)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .map_err(|error| Trouble::failed("starting a server", error))?;
        Ok(Self { child, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The last that it said.
    pub(crate) fn complaint(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing")
            .chars()
            .take(COMPLAINT_MAX_BYTES)
            .collect()
    }

    /// TERM, a grace, KILL.
    pub(crate) async fn end(mut self) {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            tracing::debug!(%error, "a server cannot be signalled");
        }
        if tokio::time::timeout(END_GRACE, self.child.wait()).await.is_err() {
            drop(tokio::time::timeout(END_GRACE, self.child.kill()).await);
        }
    }
}
