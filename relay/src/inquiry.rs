//! Asking, in the clear, which executor key is served somewhere: 64 bytes there and 64 bytes back.
//!
//! A harness that was refused wants to tell its user why. The question is a preamble of [`Dialer::Inquirer`] with the
//! key that was expected; the answer is a preamble of the same stream with the key that is served. Nobody is proven by
//! it: the answer is shown to a person, and never pinned, dialled or otherwise acted upon.

use dwell_messages::{PublicKey, StreamId};

use crate::keys::parse_public_key;
use crate::preamble::{Dialer, PREAMBLE_BYTES, Preamble, PreambleError};

/// The answer to an inquiry is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InquiryError {
    /// No preamble.
    #[error("the answer is not a preamble")]
    Preamble(#[from] PreambleError),
    /// A preamble, but not the answer to this question.
    #[error("the answer belongs to another question: ask again")]
    Mismatch,
    /// A key that nobody can have.
    #[error("the answer names a key that proves nothing")]
    Key,
}

/// The question: who is served there, where `expected` was?
///
/// # Panics
/// Never: an empty token always fits.
pub fn question(expected: PublicKey, stream: StreamId) -> [u8; PREAMBLE_BYTES] {
    Preamble::new(Dialer::Inquirer, expected, stream, &[])
        .expect("an empty token fits into every preamble")
        .encode()
}

/// The answer to a question, by whoever serves `served`.
pub fn answer(question: &Preamble, served: PublicKey) -> [u8; PREAMBLE_BYTES] {
    self::question(served, question.stream)
}

/// The key that is served, by the word of whoever answered.
///
/// # Errors
/// [`InquiryError`] when the bytes are no answer to the question of this stream.
pub fn read_answer(bytes: &[u8; PREAMBLE_BYTES], stream: StreamId) -> Result<PublicKey, InquiryError> {
    let preamble = Preamble::decode(bytes)?;
    if preamble.dialer != Dialer::Inquirer || preamble.stream != stream || preamble.token_len != 0 {
        return Err(InquiryError::Mismatch);
    }
    parse_public_key(&preamble.executor.0).map_err(|_| InquiryError::Key)
}
