//! What the targets share: reading a script out of an input, keys that are the same every time, and places for files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dwell_relay::random::RandomnessFailed;
use dwell_relay::{Randomness, StaticKeypair};

/// Set when a target is to break a promise itself, to show that it would be seen: see run.sh.
pub fn is_control() -> bool {
    static CONTROL: OnceLock<bool> = OnceLock::new();
    *CONTROL.get_or_init(|| std::env::var_os("DWELL_FUZZ_CONTROL").is_some())
}

/// An input read as what to do. Past its end everything is zero.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// At most `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// `data` in pieces of the lengths that the script says, the last being what is left.
    pub fn pieces<'d>(&mut self, mut data: &'d [u8], pieces_max: usize) -> Vec<&'d [u8]> {
        let mut pieces = Vec::new();
        for _ in 0..self.below(pieces_max) {
            let (piece, rest) = data.split_at(self.below(256).min(data.len()));
            pieces.push(piece);
            data = rest;
        }
        pieces.push(data);
        pieces
    }
}

/// A small seeded generator (splitmix64): the same seed, the same keys.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Randomness for Seeded {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), RandomnessFailed> {
        for chunk in dest.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// Draws the same every time, so that what a peer answers can be known before it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Constant(pub u64);

impl Randomness for Constant {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), RandomnessFailed> {
        Seeded(self.0).fill(dest)
    }
}

/// The pair of this number.
pub fn keypair(number: u64) -> StaticKeypair {
    StaticKeypair::generate(&mut Seeded(number)).expect("the generator never fails")
}

/// The pair of this number, made once: that costs as much as a step of a handshake.
pub fn identity(number: usize) -> &'static Arc<StaticKeypair> {
    static IDENTITIES: [OnceLock<Arc<StaticKeypair>>; 4] = [const { OnceLock::new() }; 4];
    IDENTITIES[number].get_or_init(|| Arc::new(keypair(number as u64)))
}

/// The same bytes for the same number, and others for another.
pub fn pattern(length: usize, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Seeded(number)
        .fill(&mut bytes)
        .expect("the generator never fails");
    bytes
}

/// A directory of this process's own, in memory where the machine has that.
pub fn scratch() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let base = match std::env::var_os("DWELL_FUZZ_SCRATCH") {
            Some(base) => PathBuf::from(base),
            None => std::env::temp_dir(),
        };
        let place = base.join(format!("dwell-fuzz-{}", std::process::id()));
        let mut private = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut private, 0o700);
        private
            .recursive(true)
            .create(&place)
            .expect("a place for files can be made");
        place
    })
}

/// Makes `name` in the scratch directory hold exactly these bytes, readable by its owner alone.
pub fn scratch_file(name: &str, content: &[u8]) -> PathBuf {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = scratch().join(name);
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(content))
        .expect("a scratch file can be written");
    path
}
