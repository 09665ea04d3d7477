//! What a finished command's output is kept as: its first and its last bytes, and how many were between.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes kept of each end of each stream unless the command says otherwise.
pub const OUTPUT_LIMIT_BYTES: usize = 1 << 20;

/// One stream's output, complete or with a counted hole in the middle.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Captured {
    /// The first bytes; all of them when `omitted` is 0.
    pub head: Bytes,
    /// The last bytes, empty when `omitted` is 0.
    pub tail: Bytes,
    /// Bytes between head and tail that were not kept.
    pub omitted: u64,
}

impl Captured {
    /// Head and tail together. Says nothing of a hole between them: look at `omitted`.
    pub fn to_vec(&self) -> Vec<u8> {
        [&self.head[..], &self.tail[..]].concat()
    }

    /// The kept bytes as text, with what is not UTF-8 replaced.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.to_vec()).into_owned()
    }

    /// Bytes the process wrote in all.
    pub fn total(&self) -> u64 {
        self.head.len() as u64 + self.omitted + self.tail.len() as u64
    }
}

/// Collects one stream within twice its limit.
#[derive(Debug)]
pub struct Collector {
    limit: usize,
    head_max: usize,
    head: BytesMut,
    tail: VecDeque<Bytes>,
    tail_bytes: usize,
    total: u64,
}

impl Collector {
    /// Keeps `limit` bytes of each end.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            head_max: limit,
            head: BytesMut::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            total: 0,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, mut data: Bytes) {
        self.total += data.len() as u64;
        let room = self.head_max.saturating_sub(self.head.len());
        if room > 0 {
            let first = data.split_to(room.min(data.len()));
            self.head.extend_from_slice(&first);
        }
        if data.is_empty() {
            return;
        }
        self.tail_bytes += data.len();
        self.tail.push_back(data);
        while let Some(front) = self.tail.front_mut() {
            let over = self.tail_bytes.saturating_sub(self.limit);
            if over == 0 {
                break;
            }
            let cut = over.min(front.len());
            self.tail_bytes -= cut;
            if cut == front.len() {
                self.tail.pop_front();
            } else {
                // A slice would keep its whole buffer alive, but only one buffer is ever cut.
                *front = front.slice(cut..);
            }
        }
    }

    /// Bytes of the stream that nobody has: they are counted where they stand, in the middle.
    pub fn skip(&mut self, bytes: u64) {
        self.total += bytes;
        // What was kept so far is the beginning for good.
        self.limit_head();
        self.tail.clear();
        self.tail_bytes = 0;
    }

    fn limit_head(&mut self) {
        self.head_max = self.head_max.min(self.head.len());
    }

    /// What was kept.
    pub fn finish(self) -> Captured {
        let mut tail = BytesMut::with_capacity(self.tail_bytes);
        self.tail.iter().for_each(|chunk| tail.extend_from_slice(chunk));
        let omitted = self.total - self.head.len() as u64 - tail.len() as u64;
        Captured {
            head: self.head.freeze(),
            tail: tail.freeze(),
            omitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(limit: usize, total: usize, chunk: usize) -> (Vec<u8>, Captured) {
        let all: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
        let mut collector = Collector::new(limit);
        all.chunks(chunk)
            .for_each(|chunk| collector.push(Bytes::copy_from_slice(chunk)));
        (all, collector.finish())
    }

    #[test]
    fn output_within_both_limits_is_kept_whole() {
        for (total, chunk) in [(0, 1), (10, 3), (15, 4), (16, 16)] {
            let (all, captured) = collected(8, total, chunk);
            assert_eq!(
                (captured.to_vec(), captured.omitted),
                (all, 0),
                "{total} bytes in chunks of {chunk}"
            );
        }
    }

    #[test]
    fn a_gap_is_counted_and_what_stands_on_both_sides_of_it_is_kept_apart() {
        let mut collector = Collector::new(8);
        collector.push(Bytes::from_static(b"abcd"));
        collector.skip(100);
        collector.push(Bytes::from_static(b"xyz"));
        let captured = collector.finish();
        assert_eq!(
            (&captured.head[..], &captured.tail[..]),
            (&b"abcd"[..], &b"xyz"[..])
        );
        assert_eq!((captured.omitted, captured.total()), (100, 107));
    }

    #[test]
    fn output_past_the_limits_keeps_both_ends_and_counts_the_hole_exactly() {
        for (total, chunk) in [(17, 1), (100, 7), (1_000, 64), (33, 33)] {
            let (all, captured) = collected(8, total, chunk);
            assert_eq!(&captured.head[..], &all[..8]);
            assert_eq!(&captured.tail[..], &all[total - 8..]);
            assert_eq!(captured.omitted, total as u64 - 16);
            assert_eq!(captured.total(), total as u64);
        }
    }
}
