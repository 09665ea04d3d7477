//! Between a remote command and this process: its output out, our input in, and Ctrl-C.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::capture::Capture;
use super::exit;
use super::failure::Failure;
use super::output;
use super::roles::{Ended, Heard, Input, Running};
use super::signals::Stop;
use super::terminal::{self, Escape};

/// Time between TERM and KILL when the user ends a command.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// How long a command that was told to end is waited for in silence.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long what a command said is still written when it is left.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Chunks of output on their way to a slow reader; behind them the command itself waits.
const AHEAD_CHUNKS: usize = 16;

/// Where a command's output goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Out at once.
    Out(Writer),
    /// Kept for one JSON object.
    Kept(Box<[Capture; 2]>),
}

/// The thread that writes: a reader that stops reading must not keep Ctrl-C from being heard.
#[derive(Debug)]
pub(crate) struct Writer {
    send: mpsc::Sender<Chunk>,
    written: tokio::sync::oneshot::Receiver<std::io::Result<()>>,
}

#[derive(Debug)]
enum Chunk {
    Out(Bytes),
    Err(Bytes),
}

/// What a request to stop, or the way out that was typed, does to the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnStop {
    /// The first ends it, the second leaves it to its executor.
    Terminate,
    /// It runs on.
    Leave,
}

/// How driving a command ended.
#[derive(Debug)]
pub(crate) enum Pumped {
    /// With the command.
    Ended(Box<Outcome>),
    /// It runs on. Dropping it terminates it, unless its link is gone by then.
    Left(Box<Running>),
}

enum Step {
    Heard(Option<Heard>),
    Stop,
    OutputClosed,
}

impl Sink {
    pub(crate) fn new(json: bool) -> Result<Self, Failure> {
        if json {
            return Ok(Self::Kept(Box::default()));
        }
        let (send, receive) = mpsc::channel(AHEAD_CHUNKS);
        let (done, written) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("dwell-output".into())
            .spawn(move || {
                // Nobody waits for a writer whose command was given up.
                let _ = done.send(write_all(receive));
            })
            .map_err(|error| Failure::because("threads", "output cannot be written", &error))?;
        Ok(Self::Out(Writer { send, written }))
    }

    /// Hands on one chunk. `false` when nobody reads any more.
    async fn take(&mut self, chunk: Chunk) -> bool {
        match self {
            Self::Out(writer) => writer.send.send(chunk).await.is_ok(),
            Self::Kept(kept) => {
                match chunk {
                    Chunk::Out(data) => kept[0].push(&data),
                    Chunk::Err(data) => kept[1].push(&data),
                }
                true
            }
        }
    }

    async fn closed(&self) {
        match self {
            Self::Out(writer) => writer.send.closed().await,
            Self::Kept(_) => std::future::pending().await,
        }
    }

    /// What was kept, once everything else has been written; and whether it all was.
    async fn finish(self) -> (Box<[Capture; 2]>, std::io::Result<()>) {
        match self {
            Self::Out(Writer { send, written }) => {
                drop(send);
                // Without an answer the thread is gone: there is nothing left to wait for.
                (Box::default(), written.await.unwrap_or(Ok(())))
            }
            Self::Kept(kept) => (kept, Ok(())),
        }
    }
}

/// Ends when nothing more comes, or nothing more can be written: then the channel closes, which the pump sees.
fn write_all(mut receive: mpsc::Receiver<Chunk>) -> std::io::Result<()> {
    while let Some(chunk) = receive.blocking_recv() {
        match &chunk {
            Chunk::Out(data) => {
                let mut out = std::io::stdout().lock();
                out.write_all(data).and_then(|()| out.flush())
            }
            Chunk::Err(data) => std::io::stderr().lock().write_all(data),
        }?;
    }
    Ok(())
}

/// Whether somebody went away who read, which ends a pipeline without a word. Any other error is told.
fn is_unread(written: std::io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(output::unwritten(&error)),
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    pub(crate) output: Box<[Capture; 2]>,
    /// The exit code: the command's own, unless its reader went away.
    pub(crate) exit: u8,
}

/// Drives a command to its end, or until it is left.
pub(crate) async fn pump(
    mut running: Running,
    input: Option<mpsc::Receiver<Bytes>>,
    mut sink: Sink,
    stop: &mut Stop,
    (raw, on_stop): (bool, OnStop),
) -> Result<Pumped, Failure> {
    let mut resizing = std::pin::pin!(follow_size(running.input(), raw));
    let mut forwarded = std::pin::pin!(forward(running.input(), input, raw));
    let (mut forwarding, mut stopping, mut unread) = (true, false, false);
    let mut patience = std::pin::pin!(tokio::time::sleep(PATIENCE));
    let mut refused = None;
    let left = loop {
        let step = tokio::select! {
            heard = running.next() => Step::Heard(heard),
            () = stop.recv() => Step::Stop,
            () = sink.closed(), if !unread => Step::OutputClosed,
            forwarded = &mut forwarded, if forwarding => {
                forwarding = false;
                match forwarded {
                    Forwarded::All => {}
                    Forwarded::Left => break true,
                    Forwarded::Refused(failure, _) if on_stop == OnStop::Leave => {
                        // Not this side's command to end: it is looked at without writing to it.
                        output::note(&format!("dwell: {}; what it says is shown all the same", failure.message()));
                    }
                    Forwarded::Refused(failure, mut input) => {
                        // Before the command can have ended. It is not to go on with half of what it was to read; and where this
                        // client may not end it either, it must not wait for ever: the input's end may always be told.
                        refused = Some(failure);
                        running.terminate(INTERRUPT_GRACE);
                        let closed = stop.or(async { Ok(input.close().await) }).await?;
                        if let Err(error) = closed {
                            tracing::debug!(error, "the command's input was not closed");
                        }
                    }
                }
                continue;
            }
            () = &mut patience, if stopping && !patience.is_elapsed() => {
                output::note(
                    "dwell: the command has not ended yet: its executor may be out of reach; interrupt again to leave it",
                );
                continue;
            }
            () = &mut resizing => continue,
        };
        match step {
            Step::Heard(None) => break false,
            Step::Stop | Step::OutputClosed if on_stop == OnStop::Leave => break true,
            Step::Heard(Some(heard)) => {
                if unread {
                    continue;
                }
                let was_stopping = stopping;
                let handed = hand_on(heard, &mut sink, stop, (&mut stopping, on_stop), &running).await?;
                if stopping && !was_stopping {
                    patience.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
                }
                match handed {
                    Handed::On => {}
                    Handed::Left => break true,
                    Handed::Unread if on_stop == OnStop::Leave => break true,
                    Handed::Unread => {
                        unread = true;
                        running.terminate(INTERRUPT_GRACE);
                    }
                }
            }
            Step::Stop => {
                end(&running, &mut stopping)?;
                patience.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
            }
            Step::OutputClosed => {
                unread = true;
                running.terminate(INTERRUPT_GRACE);
            }
        }
    };
    if left {
        // What was shown is shown; a reader that takes nothing is not waited for.
        drop(tokio::time::timeout(LAST_WORDS, sink.finish()).await);
        return Ok(Pumped::Left(Box::new(running)));
    }
    let ended = stop.or(running.wait()).await;
    if let Some(refused) = refused {
        drop(tokio::time::timeout(LAST_WORDS, sink.finish()).await);
        return Err(refused.advise("or give the command no input: </dev/null"));
    }
    let ended = ended?;
    let (output, written) = stop.or(async { Ok(sink.finish().await) }).await?;
    unread |= is_unread(written)?;
    let exit = if unread {
        exit::OUTPUT_CLOSED
    } else {
        exit::of_status(ended.status)
    };
    Ok(Pumped::Ended(Box::new(Outcome { ended, output, exit })))
}

/// What became of one event.
enum Handed {
    /// The sink has it.
    On,
    /// Nobody reads any more.
    Unread,
    /// The command is to be left.
    Left,
}

/// Gives one event to the sink, hearing requests to stop while the sink is full.
async fn hand_on(
    heard: Heard,
    sink: &mut Sink,
    stop: &mut Stop,
    (stopping, on_stop): (&mut bool, OnStop),
    running: &Running,
) -> Result<Handed, Failure> {
    let chunk = match heard {
        Heard::Stdout(data) => Chunk::Out(data),
        Heard::Stderr(data) => Chunk::Err(data),
        Heard::Withheld(names) => {
            tracing::info!(
                ?names,
                "variables that look like secrets were withheld from the command"
            );
            return Ok(Handed::On);
        }
    };
    let mut taken = std::pin::pin!(sink.take(chunk));
    loop {
        tokio::select! {
            read = &mut taken => return Ok(if read { Handed::On } else { Handed::Unread }),
            () = stop.recv() => {
                if on_stop == OnStop::Leave {
                    return Ok(Handed::Left);
                }
                end(running, stopping)?;
            }
        }
    }
}

fn end(running: &Running, stopping: &mut bool) -> Result<(), Failure> {
    if *stopping {
        return Err(Failure::interrupted().advise(
            "the command was told to end, which its executor sees to; out of its reach the command runs on, until its \
             session's time is over",
        ));
    }
    *stopping = true;
    running.terminate(INTERRUPT_GRACE);
    Ok(())
}

/// What became of our input.
enum Forwarded {
    /// The command has it, or takes no more.
    All,
    /// The way out was typed.
    Left,
    /// This client may give it none.
    Refused(Box<Failure>, Input),
}

/// Follows this terminal's size; never ends.
async fn follow_size(input: Input, raw: bool) {
    let changed = raw.then(|| signal(SignalKind::window_change())).transpose();
    let Ok(Some(mut changed)) = changed else {
        return std::future::pending().await;
    };
    while changed.recv().await.is_some() {
        let (rows, columns) = terminal::size();
        if let Err(error) = input.resize(rows, columns).await {
            tracing::debug!(error, "the command's terminal keeps its size");
        }
    }
    std::future::pending().await
}

/// Our input to the command, beside its output: a command that writes more than it reads must not wait for itself.
async fn forward(input: Input, source: Option<mpsc::Receiver<Bytes>>, raw: bool) -> Forwarded {
    let mut input = input;
    let mut escape = Escape::default();
    let Some(mut source) = source else {
        return Forwarded::All;
    };
    while let Some(data) = source.recv().await {
        if raw && escape.typed(&data) {
            return Forwarded::Left;
        }
        // A command that closed its input, or ended, says so in its own status.
        match input.write(data).await {
            Ok(()) => {}
            Err(None) => return Forwarded::All,
            Err(Some(refused)) => return Forwarded::Refused(Box::new(refused), input),
        }
    }
    if let Err(error) = input.close().await {
        tracing::debug!(error, "the command's input was closed before its end was sent");
    }
    Forwarded::All
}
