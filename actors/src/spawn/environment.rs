//! What a command finds in its environment, and what is kept from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Names that a command needs to find its programs, its user, its terminal and its language. `PWD` is not among
/// them: it would name the executor's directory.
const CORE_NAMES: [&[u8]; 12] = [
    b"COLORTERM",
    b"HOME",
    b"LANG",
    b"LANGUAGE",
    b"LOGNAME",
    b"PATH",
    b"SHELL",
    b"TERM",
    b"TMPDIR",
    b"TZ",
    b"TZDIR",
    b"USER",
];

/// Locale categories are core, whatever their name.
const CORE_PREFIX: &[u8] = b"LC_";

/// What a name must not contain, in any case of its letters, to be inherited.
const SECRET_MARKS: [&[u8]; 4] = [b"KEY", b"SECRET", b"TOKEN", b"PASSWORD"];

/// The final environment of one command: names are unique and sorted.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Environment {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How the environment of a command is made.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EnvironmentPolicy {
    /// What passes from the executor's own environment.
    pub inherit: Inherit,
    /// Patterns of names, `*` for any run of bytes and `?` for one. Not empty: only these are inherited.
    pub include: Vec<Vec<u8>>,
    /// Patterns of names that are not inherited.
    pub exclude: Vec<Vec<u8>>,
    /// Whether names that look like secrets are inherited like any other.
    pub secrets: bool,
    /// What is set whatever was inherited; of two equal names the later counts. `TRACEPARENT` and `TRACESTATE` come
    /// to the command this way.
    pub set: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names that are not inherited. A name that is also in `set` is set.
    pub unset: Vec<Vec<u8>>,
}

/// What passes from the executor's own environment. Names that look like secrets only do when asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inherit {
    /// What a command needs to find its programs, its user, its terminal and its language.
    #[default]
    Core,
    /// Everything.
    All,
    /// Nothing.
    None,
}

/// A resolved environment, and the names that did not make it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedEnvironment {
    /// What the command gets.
    pub environment: Environment,
    /// Names that the executor has and the command does not, because the policy withheld them: sorted, without those
    /// the request itself unset. Names only.
    pub withheld: Vec<Vec<u8>>,
}

impl Environment {
    /// Exactly these pairs; of two equal names the later counts.
    #[must_use]
    pub fn exact(pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
        Self {
            pairs: pairs.into_iter().collect(),
        }
    }

    /// Applies a policy to the executor's own environment, `parent` (usually [`std::env::vars_os`]).
    #[must_use]
    pub fn resolve(
        policy: &EnvironmentPolicy,
        parent: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> ResolvedEnvironment {
        let unset: BTreeSet<&[u8]> = policy.unset.iter().map(Vec::as_slice).collect();
        let mut kept = BTreeMap::new();
        let mut withheld = BTreeSet::new();
        for (name, value) in parent {
            let name = name.into_vec();
            if unset.contains(name.as_slice()) {
                continue;
            }
            if policy.passes(&name) {
                kept.insert(name, value.into_vec());
            } else {
                withheld.insert(name);
            }
        }
        for (name, value) in &policy.set {
            withheld.remove(name);
            kept.insert(name.clone(), value.clone());
        }
        ResolvedEnvironment {
            environment: Self {
                pairs: kept.into_iter().collect(),
            },
            withheld: withheld.into_iter().collect(),
        }
    }

    /// The pairs of name and value, sorted by name.
    #[must_use]
    pub fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.pairs
    }

    /// The value under a name.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self
            .pairs
            .binary_search_by(|(candidate, _)| candidate.as_slice().cmp(name))
            .ok()?;
        self.pairs.get(at).map(|(_, value)| value.as_slice())
    }
}

impl EnvironmentPolicy {
    fn passes(&self, name: &[u8]) -> bool {
        let matches = |patterns: &[Vec<u8>]| patterns.iter().any(|pattern| matches(pattern, name));
        is_well_formed(name)
            && (self.secrets || !looks_secret(name))
            && self.inherit.passes(name)
            && (self.include.is_empty() || matches(&self.include))
            && !matches(&self.exclude)
    }
}

impl Inherit {
    fn passes(self, name: &[u8]) -> bool {
        match self {
            Self::Core => name.starts_with(CORE_PREFIX) || CORE_NAMES.contains(&name),
            Self::All => true,
            Self::None => false,
        }
    }
}

/// Values never reach a log by way of `Debug`.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.pairs.iter().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_tuple("Environment")
            .field(&names.collect::<Vec<_>>())
            .finish()
    }
}

impl std::fmt::Debug for EnvironmentPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names =
            |pairs: &[(Vec<u8>, Vec<u8>)]| pairs.iter().map(|(name, _)| lossy(name)).collect::<Vec<_>>();
        f.debug_struct("EnvironmentPolicy")
            .field("inherit", &self.inherit)
            .field("secrets", &self.secrets)
            .field("set", &names(&self.set))
            .field(
                "unset",
                &self.unset.iter().map(|name| lossy(name)).collect::<Vec<_>>(),
            )
            .finish()
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn is_well_formed(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'=')
}

/// Whether a name fits a pattern: `*` is any run of bytes, `?` any one, and every other byte itself. Takes steps in the
/// product of both lengths at the most.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: behind the last star, with one byte more given to it.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match retry {
                Some((behind, given)) => {
                    retry = Some((behind, given + 1));
                    p = behind;
                    n = given + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether a name looks like one that holds a secret: values under such names are withheld unless asked for.
pub(crate) fn looks_secret(name: &[u8]) -> bool {
    let upper = name.to_ascii_uppercase();
    SECRET_MARKS
        .iter()
        .any(|mark| upper.windows(mark.len()).any(|window| window == *mark))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    /// The same by its definition.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, _) => name.is_empty(),
            (Some((b'*', rest)), Some((_, behind))) => slow(rest, name) || slow(pattern, behind),
            (Some((b'*', rest)), None) => slow(rest, name),
            (Some((byte, rest)), Some((first, behind))) => {
                (*byte == b'?' || byte == first) && slow(rest, behind)
            }
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_fits_as_by_its_definition(
            pattern in proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'?'), Just(b'A'), Just(b'B')], 0..7),
            name in proptest::collection::vec(prop_oneof![Just(b'A'), Just(b'B')], 0..8),
        ) {
            prop_assert_eq!(matches(&pattern, &name), slow(&pattern, &name));
        }
    }
}
