//! Standard input and output in place of a socket: one message a line. A thin driver.
//!
//! Both are a thread's each: a read that nobody answers must not keep the process from ending.

use std::io::{Read as _, Write as _};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use dwell_messages::dialect::MESSAGE_MAX_BYTES;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::connection::{Connection, FAREWELL, Origin};
use super::gateway::Gateway;
use super::line::Liveness;
use super::outbox::{Outbox, Outgoing};

/// What is read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Reads that may wait.
const READS_MAX: usize = 4;

/// Serves one client, until its input is at its end, or is none.
pub(super) async fn serve(gateway: Rc<Gateway>) {
    let (outbox, outgoing) = Outbox::new();
    let (blocks, input) = channel(READS_MAX);
    let (written, done) = oneshot::channel();
    let threads = [
        thread("dwell-stdin", move || take(&blocks)),
        thread("dwell-stdout", move || {
            give(outgoing);
            written.send(()).ok();
        }),
    ];
    if let Some(error) = threads.into_iter().find_map(Result::err) {
        return tracing::error!(%error, "standard input and output cannot be served");
    }
    let mut connection = Connection::new(gateway, Origin::Stdio, outbox, Rc::<Liveness>::default());
    read(input, &mut connection).await;
    // What was asked for last is still done, and what was answered said.
    let farewell = async move {
        connection.served().await;
        drop(connection);
        drop(done.await);
    };
    drop(tokio::time::timeout(FAREWELL, farewell).await);
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(work).map(drop)
}

fn take(blocks: &Sender<Bytes>) {
    let mut input = std::io::stdin().lock();
    let mut block = vec![0; READ_BYTES];
    loop {
        match input.read(&mut block) {
            Ok(length) if length > 0 => {
                if blocks
                    .blocking_send(Bytes::copy_from_slice(&block[..length]))
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn give(mut outgoing: Receiver<Box<Outgoing>>) {
    let mut output = std::io::stdout().lock();
    while let Some(mut message) = outgoing.blocking_recv() {
        message.bytes.push(b'\n');
        let written = output.write_all(&message.bytes).and_then(|()| output.flush());
        if written.is_err() {
            return;
        }
    }
}

async fn read(mut input: Receiver<Bytes>, connection: &mut Connection) {
    let mut bytes = BytesMut::new();
    let mut searched = 0;
    loop {
        match bytes[searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = bytes.split_to(searched + at + 1);
                searched = 0;
                if !line_of(connection, &line).await {
                    return;
                }
            }
            None => {
                searched = bytes.len();
                if bytes.len() > MESSAGE_MAX_BYTES {
                    return;
                }
                match input.recv().await {
                    Some(block) => bytes.extend_from_slice(&block),
                    None => {
                        // The last line needs no end.
                        line_of(connection, &bytes).await;
                        return;
                    }
                }
            }
        }
    }
}

/// Whether there may be another.
async fn line_of(connection: &mut Connection, line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line) else {
        return false;
    };
    let text = text.trim();
    text.is_empty() || connection.handle(text.as_bytes()).await.is_ok()
}
