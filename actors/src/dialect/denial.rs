//! Whether a confined command seems to have failed of what confines it. A guess, and a pure core: what it wrote sounds like
//! a system that refuses. Nobody tells for certain: to the command a refusal is an error like any other.

use dwell_messages::OutputStream;

/// What a refusal sounds like, in small letters.
const MARKS: [&[u8]; 6] = [
    b"read-only file system",
    b"operation not permitted",
    b"permission denied",
    b"network is unreachable",
    b"temporary failure in name resolution",
    b"bwrap: ",
];
/// One byte less than the longest of them.
const TAIL_MAX_BYTES: usize = 35;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Denial {
    /// The end of what each output said: a mark may come in two pieces.
    tails: [Vec<u8>; 2],
    is_likely: bool,
}

impl Denial {
    /// The command wrote.
    pub(super) fn heard(&mut self, stream: OutputStream, data: &[u8]) {
        if self.is_likely {
            return;
        }
        let tail = &mut self.tails[stream.index()];
        tail.extend(data.iter().map(u8::to_ascii_lowercase));
        self.is_likely = MARKS
            .iter()
            .any(|mark| tail.windows(mark.len()).any(|window| window == *mark));
        tail.drain(..tail.len().saturating_sub(TAIL_MAX_BYTES));
    }

    /// Whether it sounded so.
    pub(super) fn is_likely(&self) -> bool {
        self.is_likely
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_heard_also_in_pieces_and_of_one_output_alone() {
        let longest = MARKS.iter().map(|mark| mark.len()).max();
        assert_eq!(longest, Some(TAIL_MAX_BYTES + 1));
        for at in 0..=MARKS[4].len() {
            let mut denial = Denial::default();
            let (one, two) = MARKS[4].split_at(at);
            denial.heard(
                OutputStream::Stderr,
                &[b"x".repeat(70_000).as_slice(), one].concat(),
            );
            denial.heard(OutputStream::Stderr, &[two, b"\n"].concat());
            assert!(denial.is_likely(), "{at}");
        }
        let mut denial = Denial::default();
        denial.heard(OutputStream::Stdout, b"touch: cannot touch 'x': Read-only ");
        denial.heard(OutputStream::Stderr, b"file system\n");
        assert!(!denial.is_likely(), "the control: two outputs are no sentence");
        denial.heard(OutputStream::Stdout, b"file SYSTEM\n");
        assert!(denial.is_likely());
    }
}
