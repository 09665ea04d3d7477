//! This process's own standard input, read on a thread that may block for ever.

use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::failure::Failure;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks read ahead of the command.
const AHEAD_CHUNKS: usize = 4;

/// Whether there is input to forward: everything but a terminal.
pub(crate) fn is_forwarded() -> bool {
    !std::io::stdin().is_terminal()
}

/// Whether it is the device that has nothing in it.
pub(crate) fn is_null() -> bool {
    let device = |path: &str| {
        let found = std::fs::metadata(path).ok()?;
        found.file_type().is_char_device().then(|| found.rdev())
    };
    let input = device("/dev/stdin");
    input.is_some() && input == device("/dev/null")
}

/// The input chunk by chunk; it ends where the input does, and at a read error, which is logged.
pub(crate) fn read() -> Result<mpsc::Receiver<Bytes>, Failure> {
    let (send, receive) = mpsc::channel(AHEAD_CHUNKS);
    std::thread::Builder::new()
        .name("dwell-stdin".into())
        .spawn(move || forward(&send))
        .map_err(|error| Failure::because("threads", "standard input cannot be read", &error))?;
    Ok(receive)
}

fn forward(send: &mpsc::Sender<Bytes>) {
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                if send
                    .blocking_send(Bytes::copy_from_slice(&buffer[..read]))
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "standard input ended early");
                return;
            }
        }
    }
}
