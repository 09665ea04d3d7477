//! Standard input and output in place of a socket: one message a line. A thin driver.

use std::rc::Rc;

use bytes::BytesMut;
use dwell_messages::dialect::MESSAGE_MAX_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::Receiver;

use super::connection::{Connection, FAREWELL, Origin};
use super::gateway::Gateway;
use super::line::Liveness;
use super::outbox::{Outbox, Outgoing};
use super::task::Task;

/// Serves one client, until its input is at its end, or is none.
pub(super) async fn serve<R, W>(input: R, output: W, gateway: Rc<Gateway>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + 'static,
{
    let (outbox, outgoing) = Outbox::new();
    let writer = Task::spawn(write(output, outgoing));
    let connection = Connection::new(gateway, Origin::Stdio, outbox, Rc::<Liveness>::default());
    read(input, connection).await;
    // What was answered is still said.
    writer.finish(FAREWELL).await;
}

async fn read<R: AsyncRead + Unpin>(mut input: R, mut connection: Connection) {
    let mut bytes = BytesMut::new();
    let mut searched = 0;
    loop {
        match bytes[searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = bytes.split_to(searched + at + 1);
                searched = 0;
                if !line_of(&mut connection, &line).await {
                    return;
                }
            }
            None => {
                searched = bytes.len();
                if bytes.len() > MESSAGE_MAX_BYTES {
                    return;
                }
                match input.read_buf(&mut bytes).await {
                    Ok(0) | Err(_) => {
                        // The last line needs no end.
                        line_of(&mut connection, &bytes).await;
                        return;
                    }
                    Ok(_) => {}
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

async fn write<W: AsyncWrite + Unpin>(mut output: W, mut outgoing: Receiver<Outgoing>) {
    while let Some(mut message) = outgoing.recv().await {
        message.bytes.push(b'\n');
        let written = async {
            output.write_all(&message.bytes).await?;
            output.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
}
