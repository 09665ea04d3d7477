//! The root that the instructions' load found, for the skills' load next to it, and for no other.

use crate::find_up::path;

/// A root that was found: a marker was there, it is no fallback. Has no `Clone`: whoever loads skills takes it by value,
/// and after that there is none, so that the next load sees a marker that has come nearer.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "without the hint the skills' load looks for the root again"]
pub struct RootHint {
    environment: String,
    cwd: Vec<u8>,
    root: Vec<u8>,
    markers: Vec<Vec<u8>>,
}

/// What became of a hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HintCounts {
    /// Hints whose root was taken over.
    pub used: u32,
    /// Hints that did not fit: the root was looked for as if there had been none.
    pub rejected: u32,
}

impl RootHint {
    /// What a search in this environment, from `cwd` for these markers, has found.
    pub fn new(environment: &str, cwd: &[u8], root: &[u8], markers: &[Vec<u8>]) -> Self {
        Self {
            environment: environment.to_owned(),
            cwd: cwd.to_vec(),
            root: root.to_vec(),
            markers: markers.to_vec(),
        }
    }

    /// The root, if a search there would be the very one that found it: the same environment, the same directory byte for
    /// byte, the same markers in their order, and the directory at or below the root.
    #[must_use]
    pub fn accept(self, environment: &str, cwd: &[u8], markers: &[Vec<u8>]) -> Option<Vec<u8>> {
        let fits = self.environment == environment
            && self.cwd == cwd
            && self.markers == markers
            && path::is_within(&self.root, cwd);
        fits.then_some(self.root)
    }
}
