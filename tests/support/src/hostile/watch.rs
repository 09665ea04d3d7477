//! Looking for what must not be seen.

/// Byte strings that must not be seen.
#[derive(Debug, Clone, Default)]
pub struct Canaries {
    needles: Vec<Vec<u8>>,
    longest: usize,
}

/// One stream of bytes that is searched as it comes, in pieces cut anywhere.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// The end of what came, in which a needle may begin.
    tail: Vec<u8>,
}

impl Canaries {
    /// These; an empty one is not looked for.
    pub fn new<N: Into<Vec<u8>>>(needles: impl IntoIterator<Item = N>) -> Self {
        let needles: Vec<Vec<u8>> = needles
            .into_iter()
            .map(Into::into)
            .filter(|needle| !needle.is_empty())
            .collect();
        let longest = needles.iter().map(Vec::len).max().unwrap_or(0);
        Self { needles, longest }
    }

    fn at(&self, bytes: &[u8]) -> Option<&[u8]> {
        let found = self.needles.iter().find(|needle| bytes.starts_with(needle));
        found.map(Vec::as_slice)
    }
}

impl Watch {
    /// Searches the next piece; every needle that ends in it comes back.
    pub fn search(&mut self, canaries: &Canaries, piece: &[u8]) -> Vec<Vec<u8>> {
        if canaries.needles.is_empty() {
            return Vec::new();
        }
        let mut is_first = [false; 256];
        for needle in &canaries.needles {
            is_first[usize::from(needle[0])] = true;
        }
        let carried = self.tail.len();
        self.tail.extend_from_slice(piece);
        let mut found = Vec::new();
        for start in 0..self.tail.len() {
            if is_first[usize::from(self.tail[start])]
                && let Some(needle) = canaries.at(&self.tail[start..])
                // One that lies in the tail alone was found when that came.
                && start + needle.len() > carried
            {
                found.push(needle.to_vec());
            }
        }
        let kept = (canaries.longest - 1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - kept);
        found
    }
}
