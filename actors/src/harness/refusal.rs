//! Why a handshake was refused, as far as it can be told: asks in the clear which key is served, and reports it.
//!
//! The answer is nobody's proven word. It makes the sentence for the user, and changes nothing else.

use std::time::Duration;

use dwell_messages::{PublicKey, StreamId};
use dwell_relay::inquiry::{question, read_answer};
use dwell_relay::preamble::PREAMBLE_BYTES;
use dwell_relay::{OsRandomness, Randomness as _, ResetCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::session::Failed;
use super::{ConnectError, RefusedBy, Target};
use crate::address::Address;
use crate::relay_framer::LinkLost;
use crate::runtime::Place;

/// How long the question and its answer may take together.
pub const INQUIRY_TIMEOUT: Duration = Duration::from_secs(3);

/// The error for a link that did not come up.
pub(super) async fn explain(
    failed: Failed,
    target: Target,
    client: PublicKey,
    place: &Place,
) -> ConnectError {
    let refused = is_refusal(&failed);
    let address = target.address.to_string();
    if target.relayed || target.foreign.is_some() || !(refused || is_broken(&failed)) {
        return failed.into_error(address, client);
    }
    // On the library's own thread: the caller's runtime may have neither timers nor sockets.
    let (tell, told) = oneshot::channel();
    let (asked, pinned) = (target.address.clone(), target.executor);
    place.arbiter().spawn(async move {
        let answer = tokio::time::timeout(INQUIRY_TIMEOUT, ask(&asked, pinned)).await;
        tell.send(answer.ok().flatten()).ok();
    });
    match told.await.ok().flatten() {
        Some(served) if served != pinned => ConnectError::ExecutorKeyMismatch {
            address,
            pinned,
            served,
        },
        answer if refused => ConnectError::HandshakeRefused {
            address,
            client,
            by: answer.map_or(RefusedBy::Silent, |_| RefusedBy::Executor),
        },
        Some(_) | None => failed.into_error(address, client),
    }
}

fn is_refusal(failed: &Failed) -> bool {
    matches!(
        failed,
        Failed::Lost(LinkLost::Reset {
            code: ResetCode::Unavailable,
            ..
        })
    )
}

/// Somebody answered, and not as the holder of the pinned key does.
fn is_broken(failed: &Failed) -> bool {
    matches!(failed, Failed::Lost(LinkLost::Failed(_)))
}

/// Which key is served there, by the word of whoever answers.
async fn ask(address: &Address, expected: PublicKey) -> Option<PublicKey> {
    let mut stream = StreamId::default();
    OsRandomness::new().fill(&mut stream.0).ok()?;
    let mut connection = address.dial().await.ok()?;
    let asked = question(expected, stream);
    connection.writer.write_all(&asked).await.ok()?;
    let mut answer = [0; PREAMBLE_BYTES];
    connection.reader.read_exact(&mut answer).await.ok()?;
    read_answer(&answer, stream).ok()
}
