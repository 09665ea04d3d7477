//! Output as text, for whoever wants it: bytes stay bytes everywhere else.

/// Decodes UTF-8 that comes in pieces. A character split over pieces comes out whole; bytes that are no UTF-8 become
/// U+FFFD in what comes out, and nowhere else. Keeps at most 3 bytes between two pieces.
#[derive(Clone, Debug, Default)]
pub struct TextDecoder {
    held: Vec<u8>,
}

impl TextDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text that `bytes` completes. A character that is not complete is kept for the next piece.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = &self.held[..];
        let kept = loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break 0;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(invalid) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[invalid..];
                        }
                        None => break after.len(),
                    }
                }
            }
        };
        self.held.drain(..self.held.len() - kept);
        text
    }

    /// What is left at the end of the stream: a character cut off there becomes one U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_pieces(bytes: &[u8], size: usize) -> String {
        let mut decoder = TextDecoder::new();
        let mut text: String = bytes.chunks(size).map(|piece| decoder.push(piece)).collect();
        text.push_str(&decoder.finish());
        text
    }

    #[test]
    fn a_character_split_over_pieces_comes_out_whole() {
        assert_eq!(in_pieces("a é € 😀 z".as_bytes(), 1), "a é € 😀 z");
    }

    #[test]
    fn a_character_cut_off_by_the_end_is_replaced_once() {
        assert_eq!(in_pieces(b"x\xf0\x9f\x98", 1), "x\u{fffd}");
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_text_of_the_whole(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x7f_u8..0xf8], 0..200),
            size in 1_usize..9,
        ) {
            prop_assert_eq!(in_pieces(&bytes, size), String::from_utf8_lossy(&bytes));
        }
    }
}
