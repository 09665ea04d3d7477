//! Writing under a deadline: a peer that takes nothing must not hold a task for ever.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a peer may take nothing at all.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most slices in one vectored write.
const SLICES_MAX: usize = 64;

/// Bytes could not be written: drop the connection, how much arrived is not known.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The peer took nothing for too long.
    #[error("the peer took no byte for {} ms: it is stuck or the path to it is; dial again", stalled.as_millis())]
    Stalled {
        /// The limit.
        stalled: Duration,
    },
    /// The transport failed.
    #[error("the connection broke while writing")]
    Io(#[from] io::Error),
}

/// Writes all of it. Each step forward has `stall` of its own. Not cancel-safe: a dropped future leaves half a frame.
///
/// # Errors
/// [`WriteError`].
pub async fn write_all<W: AsyncWrite + Unpin + ?Sized>(
    writer: &mut W,
    mut bytes: &[u8],
    stall: Duration,
) -> Result<(), WriteError> {
    while !bytes.is_empty() {
        let written = within(stall, writer.write(bytes)).await?;
        bytes = &bytes[written..];
    }
    within(stall, async {
        writer.flush().await?;
        Ok(1)
    })
    .await?;
    Ok(())
}

/// Writes and empties a queue of frames, many in one call where the transport can, and gives the number of bytes
/// written. `written` hears of every step, for [`crate::rendezvous::Rendezvous::drained`]. Not cancel-safe.
///
/// # Errors
/// [`WriteError`].
pub async fn write_frames<W: AsyncWrite + Unpin + ?Sized>(
    writer: &mut W,
    frames: &mut VecDeque<Bytes>,
    stall: Duration,
    mut written: impl FnMut(usize),
) -> Result<usize, WriteError> {
    let mut total = 0;
    while !frames.is_empty() {
        let step = if writer.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = frames.len().min(SLICES_MAX);
            for (slice, frame) in slices.iter_mut().zip(frames.iter()) {
                *slice = IoSlice::new(frame);
            }
            within(stall, writer.write_vectored(&slices[..count])).await?
        } else {
            within(stall, writer.write(frames.front().map_or(&[][..], |frame| frame))).await?
        };
        consume(frames, step);
        total += step;
        written(step);
    }
    within(stall, async {
        writer.flush().await?;
        Ok(1)
    })
    .await?;
    Ok(total)
}

/// Takes that many bytes off the front of a queue of frames.
pub fn consume(frames: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(front) = frames.front_mut() {
        if front.len() > bytes {
            front.advance(bytes);
            return;
        }
        bytes -= front.len();
        frames.pop_front();
    }
}

async fn within(stall: Duration, step: impl Future<Output = io::Result<usize>>) -> Result<usize, WriteError> {
    match timeout(stall, step).await {
        Ok(Ok(0)) => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
        Ok(result) => Ok(result?),
        Err(_) => Err(WriteError::Stalled { stalled: stall }),
    }
}
