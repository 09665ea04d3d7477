//! What an event of the kernel means for a watch: no clock, no file.

use std::collections::{HashMap, HashSet};

use rustix::fs::inotify::ReadFlags;

/// Whatever these are about, the way to a path is not what it was, or something was not told.
const AT_ANY_RATE: ReadFlags = ReadFlags::QUEUE_OVERFLOW
    .union(ReadFlags::IGNORED)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::DELETE_SELF)
    .union(ReadFlags::MOVE_SELF);
/// These are told of what is watched, without a name, and of what lies in it, with one.
const OF_ITSELF: ReadFlags = ReadFlags::ATTRIB.union(ReadFlags::MODIFY);
/// A name in a directory leads to something that it did not lead to.
const APPEARED: ReadFlags = ReadFlags::CREATE.union(ReadFlags::MOVED_TO);

/// Which names are waited for, and where. Directories on the way have none.
#[derive(Debug, Default)]
pub(super) struct Rule {
    names: HashMap<i32, HashSet<Vec<u8>>>,
}

impl Rule {
    /// In this directory, by the kernel's number for it, that name is waited for.
    pub(super) fn awaits(&mut self, directory: i32, name: &[u8]) {
        self.names.entry(directory).or_default().insert(name.to_vec());
    }

    /// Whether it is time to look again.
    pub(super) fn is_seen(&self, watched: i32, flags: ReadFlags, name: Option<&[u8]>) -> bool {
        if flags.intersects(AT_ANY_RATE) {
            return true;
        }
        match name {
            None => flags.intersects(OF_ITSELF),
            Some(name) => {
                let is_awaited = || self.names.get(&watched).is_some_and(|names| names.contains(name));
                flags.intersects(APPEARED) && is_awaited()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: i32 = 1;
    const ON_THE_WAY: i32 = 2;

    fn rule() -> Rule {
        let mut rule = Rule::default();
        rule.awaits(HERE, b"wanted");
        rule.awaits(HERE, b"also");
        rule
    }

    #[test]
    fn a_name_that_is_waited_for_is_seen_where_it_is_waited_for_and_nowhere_else() {
        for flags in [
            ReadFlags::CREATE,
            ReadFlags::MOVED_TO,
            ReadFlags::CREATE | ReadFlags::ISDIR,
        ] {
            assert!(rule().is_seen(HERE, flags, Some(b"wanted")));
            assert!(rule().is_seen(HERE, flags, Some(b"also")));
            assert!(!rule().is_seen(HERE, flags, Some(b"another")));
            assert!(!rule().is_seen(ON_THE_WAY, flags, Some(b"wanted")));
        }
    }

    #[test]
    fn what_goes_or_is_written_beside_it_is_not_seen() {
        for flags in [
            ReadFlags::DELETE,
            ReadFlags::MOVED_FROM,
            OF_ITSELF,
            ReadFlags::OPEN,
        ] {
            assert!(!rule().is_seen(HERE, flags, Some(b"another")), "{flags:?}");
            assert!(!rule().is_seen(HERE, flags, Some(b"wanted")), "{flags:?}");
        }
    }

    #[test]
    fn what_becomes_of_a_watched_place_itself_is_seen() {
        for flags in [AT_ANY_RATE, OF_ITSELF] {
            for one in flags.iter() {
                assert!(rule().is_seen(HERE, one, None), "{one:?}");
                assert!(rule().is_seen(ON_THE_WAY, one, None), "{one:?}");
            }
        }
    }

    #[test]
    fn what_the_kernel_could_not_tell_is_seen() {
        assert!(rule().is_seen(-1, ReadFlags::QUEUE_OVERFLOW, None));
    }
}
