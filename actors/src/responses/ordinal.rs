//! Which request of its connection: what the server's timing sideband is matched by. Pure.
//!
//! Matching is by number and never by time: a sideband may come during its response, after it, twice, or not at all.

use std::collections::VecDeque;
use std::fmt;

/// Requests of one connection whose sideband may still come. Older ones are forgotten: theirs is then unknown.
pub const REMEMBERED_MAX: usize = 16;

/// A request's place on its connection, from 1 on. Prewarming requests count like any other; a fresh connection begins
/// anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ordinal(u64);

impl Ordinal {
    /// As a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a sideband says of the request it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Label {
    /// Nothing: it can only be about the one request that holds the stream.
    None,
    /// This one.
    Ordinal(u64),
    /// Something that is no ordinal. Not the same as nothing: it is about some request, and nobody knows which.
    Malformed,
}

/// Whose a sideband is.
#[derive(Debug, PartialEq, Eq)]
pub enum Attribution<'a, T> {
    /// The first about this request.
    First(Ordinal, &'a T),
    /// One more about a request that has its own already.
    Duplicate,
    /// About no request that is known here, or about none at all.
    Unknown,
}

#[derive(Debug)]
struct Known<T> {
    ordinal: Ordinal,
    what: T,
    has_timing: bool,
}

/// The requests of one connection, as far as a sideband may be about them. `T` is what is known of each.
#[derive(Debug)]
pub struct Correlation<T> {
    last: u64,
    known: VecDeque<Known<T>>,
    holder: Option<Ordinal>,
}

impl<T> Default for Correlation<T> {
    fn default() -> Self {
        Self {
            last: 0,
            known: VecDeque::new(),
            holder: None,
        }
    }
}

impl<T> Correlation<T> {
    /// The next request takes the stream.
    pub fn begin(&mut self, what: T) -> Ordinal {
        self.last = self.last.saturating_add(1);
        let ordinal = Ordinal(self.last);
        if self.known.len() == REMEMBERED_MAX {
            self.known.pop_front();
        }
        self.known.push_back(Known {
            ordinal,
            what,
            has_timing: false,
        });
        self.holder = Some(ordinal);
        ordinal
    }

    /// The response is over: until the next request nobody holds the stream.
    pub fn release(&mut self) {
        self.holder = None;
    }

    /// Whether a request holds the stream.
    pub fn is_held(&self) -> bool {
        self.holder.is_some()
    }

    /// What is known of a request, for whoever learns more of it.
    pub fn known_mut(&mut self, ordinal: Ordinal) -> Option<&mut T> {
        self.known
            .iter_mut()
            .find(|known| known.ordinal == ordinal)
            .map(|known| &mut known.what)
    }

    /// Finds whose a sideband is, and remembers that it came.
    pub fn attribute(&mut self, label: Label) -> Attribution<'_, T> {
        let about = match label {
            Label::None => self.holder,
            Label::Ordinal(number) => Some(Ordinal(number)),
            Label::Malformed => None,
        };
        let known = about.and_then(|about| self.known.iter_mut().find(|known| known.ordinal == about));
        match known {
            None => Attribution::Unknown,
            Some(known) if known.has_timing => Attribution::Duplicate,
            Some(known) => {
                known.has_timing = true;
                Attribution::First(known.ordinal, &known.what)
            }
        }
    }
}
