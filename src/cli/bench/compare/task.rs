//! A command that a peer is given, and whether what came back is what it must be. Pure.

use std::time::Instant;

use ring::digest::{Context, SHA256};

use super::peer::Trouble;

/// Of an output that is text: so much is kept.
const HEAD_MAX_BYTES: usize = 64;

/// What a command's standard output must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    Nothing,
    /// So many, all of them zero.
    Zeros(u64),
    /// At most 64 bytes.
    Text(&'static str),
    /// So many bytes with this SHA-256.
    Digest {
        bytes: u64,
        sha256: Vec<u8>,
    },
}

/// A command that ends by itself, successfully.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Task {
    /// The program by its path.
    pub(crate) argv: Vec<String>,
    pub(crate) expected: Expected,
}

/// What has come of a task's output.
#[derive(Clone)]
pub(crate) struct Tally {
    bytes: u64,
    /// All bytes, one over the other.
    any: u8,
    head: Vec<u8>,
    digest: Option<Context>,
    /// When the first came.
    pub(crate) first: Option<Instant>,
}

impl Task {
    pub(crate) fn new<const N: usize>(argv: [&str; N], expected: Expected) -> Self {
        Self {
            argv: argv.map(str::to_owned).to_vec(),
            expected,
        }
    }

    /// Whether its end is all that it has to tell.
    pub(crate) fn is_silent(&self) -> bool {
        self.expected == Expected::Nothing
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            bytes: 0,
            any: 0,
            head: Vec::new(),
            digest: matches!(self.expected, Expected::Digest { .. }).then(|| Context::new(&SHA256)),
            first: None,
        }
    }

    /// Whether it ended as it must, with the output that it must have.
    ///
    /// # Errors
    /// Says what was wrong.
    pub(crate) fn judge(&self, code: Option<i32>, tally: &Tally) -> Result<(), Trouble> {
        if code != Some(0) {
            return Err(Trouble::wrong("the exit code", format!("{code:?}")));
        }
        let right = match &self.expected {
            Expected::Nothing => tally.bytes == 0,
            Expected::Zeros(bytes) => tally.bytes == *bytes && tally.any == 0,
            Expected::Text(text) => tally.head == text.as_bytes() && tally.bytes == text.len() as u64,
            Expected::Digest { bytes, sha256 } => {
                tally.bytes == *bytes && tally.sha256().as_deref() == Some(sha256)
            }
        };
        if right {
            return Ok(());
        }
        let wanted = match &self.expected {
            Expected::Nothing => 0,
            Expected::Zeros(bytes) | Expected::Digest { bytes, .. } => *bytes,
            Expected::Text(text) => text.len() as u64,
        };
        let why = format!(
            "{} bytes came of {wanted}, or others than were written",
            tally.bytes
        );
        Err(Trouble::wrong("the output", why))
    }
}

impl Tally {
    /// The next bytes.
    pub(crate) fn take(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.first.get_or_insert_with(Instant::now);
        self.bytes += data.len() as u64;
        self.any |= data.iter().fold(0, |any, byte| any | byte);
        let room = HEAD_MAX_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(&data[..data.len().min(room)]);
        if let Some(digest) = &mut self.digest {
            digest.update(data);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of all that came, where the task asks for it.
    pub(crate) fn sha256(&self) -> Option<Vec<u8>> {
        let digest = self.digest.clone()?;
        Some(digest.finish().as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(task: &Task, code: i32, pieces: &[&[u8]]) -> bool {
        let mut tally = task.tally();
        for piece in pieces {
            tally.take(piece);
        }
        task.judge(Some(code), &tally).is_ok()
    }

    #[test]
    fn a_task_is_done_with_its_code_and_every_byte_and_with_nothing_else() {
        let silent = Task::new(["true"], Expected::Nothing);
        assert!(judged(&silent, 0, &[]) && !judged(&silent, 1, &[]) && !judged(&silent, 0, &[b"x"]));
        assert!(silent.judge(None, &silent.tally()).is_err(), "killed");
        let zeros = Task::new(["head"], Expected::Zeros(4));
        assert!(judged(&zeros, 0, &[&[0; 3], &[0]]));
        assert!(!judged(&zeros, 0, &[&[0; 3]]), "one was lost");
        assert!(!judged(&zeros, 0, &[&[0, 0, 1, 0]]), "one is another");
        let text = Task::new(["echo"], Expected::Text("ab\n"));
        assert!(judged(&text, 0, &[b"a", b"b\n"]) && !judged(&text, 0, &[b"ab\nc"]));
    }

    #[test]
    fn a_digest_sees_that_bytes_changed_places() {
        let counted = Task::new(
            ["seq"],
            Expected::Digest {
                bytes: 0,
                sha256: Vec::new(),
            },
        );
        let mut tally = counted.tally();
        tally.take(b"1\n2\n");
        let right = Expected::Digest {
            bytes: tally.bytes(),
            sha256: tally.sha256().unwrap(),
        };
        let task = Task::new(["seq"], right);
        assert!(judged(&task, 0, &[b"1\n", b"2\n"]));
        assert!(!judged(&task, 0, &[b"2\n", b"1\n"]));
    }
}
