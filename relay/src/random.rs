//! Randomness as an argument: cores never reach for a generator of their own.

use ring::rand::{SecureRandom, SystemRandom};

/// The source of randomness failed; whatever needed it was not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the source of randomness failed: check the operating system's generator and try again")]
pub struct RandomnessFailed;

/// Where a core's keys and ids come from. Tests give a seeded one.
pub trait Randomness {
    /// Fills `dest` entirely.
    ///
    /// # Errors
    /// [`RandomnessFailed`]; the contents of `dest` must then not be used.
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), RandomnessFailed>;
}

/// The operating system's generator.
#[derive(Debug)]
pub struct OsRandomness(SystemRandom);

impl Default for OsRandomness {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl OsRandomness {
    /// The operating system's generator.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Randomness for OsRandomness {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), RandomnessFailed> {
        self.0.fill(dest).map_err(|_| RandomnessFailed)
    }
}

impl<R: Randomness + ?Sized> Randomness for Box<R> {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), RandomnessFailed> {
        (**self).fill(dest)
    }
}
