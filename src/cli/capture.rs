//! Output kept for a JSON answer: both ends of it when it is long.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Bytes kept of each end of each stream.
pub(crate) const KEPT_MAX_BYTES: usize = 1024 * 1024;

/// One stream's output.
#[derive(Debug)]
pub(crate) struct Capture {
    limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    omitted: u64,
}

impl Default for Capture {
    fn default() -> Self {
        Self::new(KEPT_MAX_BYTES)
    }
}

impl Capture {
    /// Keeps this many bytes of each end.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            head: Vec::new(),
            tail: VecDeque::new(),
            omitted: 0,
        }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        let room = (self.limit - self.head.len()).min(data.len());
        let (head, rest) = data.split_at(room);
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.limit);
        self.tail.drain(..excess);
        self.omitted += excess as u64;
    }

    /// Text with what is not UTF-8 replaced; only then the exact bytes too.
    pub(crate) fn to_json(&self) -> Value {
        let mut bytes = self.head.clone();
        bytes.extend(&self.tail);
        let text = String::from_utf8_lossy(&bytes);
        let exact = matches!(text, std::borrow::Cow::Borrowed(_));
        json!({
            "text": text,
            "base64": (!exact).then(|| STANDARD.encode(&bytes)),
            "omitted_at_byte": (self.omitted > 0).then_some(self.head.len()),
            "omitted_bytes": self.omitted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit: usize, chunks: &[&[u8]]) -> Value {
        let mut capture = Capture::new(limit);
        chunks.iter().for_each(|chunk| capture.push(chunk));
        capture.to_json()
    }

    #[test]
    fn text_is_given_as_text_only() {
        let expected = json!({ "text": "hé\n", "base64": null, "omitted_at_byte": null, "omitted_bytes": 0 });
        assert_eq!(of(8, &["hé\n".as_bytes()]), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_given_exactly_as_well() {
        let value = of(8, &[b"\xff", b"a"]);
        assert_eq!(
            (value["text"].as_str(), value["base64"].as_str()),
            (Some("\u{fffd}a"), Some("/2E="))
        );
    }

    #[test]
    fn both_ends_are_kept_and_what_is_between_is_counted_however_it_was_cut() {
        let whole = of(3, &[b"abcdefghij"]);
        assert_eq!(whole, of(3, &[b"a", b"bcde", b"fghi", b"j"]));
        assert_eq!(whole["text"], "abchij");
        assert_eq!(
            (&whole["omitted_at_byte"], &whole["omitted_bytes"]),
            (&json!(3), &json!(4))
        );
        assert_eq!(of(3, &[b"abcdef"])["omitted_bytes"], 0);
    }
}
