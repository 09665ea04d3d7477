//! Which probes a search sends, and what their answers mean. No clock, no I/O.

use std::collections::VecDeque;

use dwell_messages::workspace::{FindUp, FoundUp, MARKERS_MAX, NAME_MAX_BYTES, OnError};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

use super::path;

/// A search that can be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    from: Vec<u8>,
    markers: Vec<Vec<u8>>,
    on_error: OnError,
}

impl Query {
    /// From a directory upwards, that one first, for these names.
    ///
    /// # Errors
    /// `BadPath` for a directory that is no path (see `path::normal`), `BadRequest` for more than `MARKERS_MAX` markers
    /// and for one that is no name: empty, longer than `NAME_MAX_BYTES`, `.`, `..`, or with `/` or NUL in it.
    pub fn new<M: AsRef<[u8]>>(
        from: &[u8],
        markers: impl IntoIterator<Item = M>,
        on_error: OnError,
    ) -> Result<Self, WireError> {
        let from = path::normal(from)?;
        let mut names = Vec::new();
        for marker in markers {
            let marker = marker.as_ref();
            check_name(marker)?;
            if names.len() == MARKERS_MAX {
                let limit = MARKERS_MAX as u64;
                let error = WireError::new(ErrorCode::BadRequest, "too many markers to look for");
                return Err(error.with_limit(limit, limit + 1));
            }
            names.push(marker.to_vec());
        }
        Ok(Self {
            from,
            markers: names,
            on_error,
        })
    }

    /// The directory it begins at, as `path::normal` has it.
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// What it looks for.
    pub fn markers(&self) -> &[Vec<u8>] {
        &self.markers
    }
}

impl TryFrom<&FindUp> for Query {
    type Error = WireError;

    fn try_from(find: &FindUp) -> Result<Self, WireError> {
        Self::new(&find.from, &find.markers, find.on_error)
    }
}

impl From<&Query> for FindUp {
    fn from(query: &Query) -> Self {
        Self {
            from: ByteBuf::from(query.from.clone()),
            markers: query.markers.iter().cloned().map(ByteBuf::from).collect(),
            on_error: query.on_error,
        }
    }
}

/// Refuses what is no file's name.
pub(crate) fn check_name(name: &[u8]) -> Result<(), WireError> {
    let bad = |why: &str| Err(WireError::new(ErrorCode::BadRequest, why));
    if name.is_empty() || name == b"." || name == b".." {
        return bad("a name is empty, `.` or `..`");
    }
    if name.contains(&b'/') || name.contains(&0) {
        return bad("a name holds `/` or NUL");
    }
    if name.len() > NAME_MAX_BYTES {
        let error = WireError::new(ErrorCode::BadRequest, "a name is too long");
        return Err(error.with_limit(NAME_MAX_BYTES as u64, name.len() as u64));
    }
    Ok(())
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The directory, as `path::normal` has it.
    pub root: Option<Vec<u8>>,
    /// Which of the markers it holds: the first in their order.
    pub marker: Option<usize>,
    /// Directories looked at, up to the one that decided: the same however many probes are in flight.
    pub visited: u32,
    /// Probes sent, those among them that turned out not to matter.
    pub probed: u32,
    /// Failed probes that counted as nothing found, up to the one that decided.
    pub ignored: u32,
}

impl From<Found> for FoundUp {
    fn from(found: Found) -> Self {
        Self {
            root: found.root.map(ByteBuf::from),
            marker: found.marker.and_then(|marker| u32::try_from(marker).ok()),
            visited: found.visited,
            probed: found.probed,
            ignored: found.ignored,
        }
    }
}

impl From<FoundUp> for Found {
    fn from(found: FoundUp) -> Self {
        Self {
            root: found.root.map(ByteBuf::into_vec),
            marker: found.marker.map(|marker| marker as usize),
            visited: found.visited,
            probed: found.probed,
            ignored: found.ignored,
        }
    }
}

/// What a probe says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The marker is there.
    Hit,
    /// It is not.
    Miss,
    /// Nobody knows.
    Failed(WireError),
}

impl Answer {
    /// From whether there is any metadata.
    pub fn of<T>(metadata: Result<T, WireError>) -> Self {
        match metadata {
            Ok(_) => Self::Hit,
            Err(error) if is_absence(error.code) => Self::Miss,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Whether an error says that there is nothing under this name, as opposed to that it cannot be told.
pub(crate) fn is_absence(code: ErrorCode) -> bool {
    code == ErrorCode::NotFound || code == ErrorCode::NotADirectory
}

/// One probe that was sent and not judged yet.
#[derive(Debug)]
struct Probe {
    directory_length: usize,
    marker: usize,
    answer: Option<Answer>,
}

/// A search under way.
///
/// `next_probe` hands out probes in order: directories from near to far, within one the markers in theirs. `answer` takes
/// what they say, in any order, and judges them in the order in which they were handed out; so the nearest marker wins,
/// whichever answer came first. Once `outcome` has something, answers that still come are ignored.
#[derive(Debug)]
pub struct FindUpCore<'q> {
    query: &'q Query,
    in_flight_max: usize,
    /// The next probe; `None`: there is none any more.
    next: Option<(usize, usize)>,
    /// Sent and not judged, oldest first. Bounded by `in_flight_max`.
    window: VecDeque<Probe>,
    /// Probes that were judged: the number of the window's first.
    judged: u64,
    /// An answer is known that ends the search, unless a nearer one does: nothing behind it needs to be asked.
    decided: bool,
    found: Found,
    /// The directory that was judged last, by its length.
    visiting: Option<usize>,
    outcome: Option<Result<Found, WireError>>,
}

impl<'q> FindUpCore<'q> {
    /// A search with at most so many probes in flight, at least one.
    pub fn new(query: &'q Query, in_flight_max: usize) -> Self {
        let first = (!query.markers.is_empty()).then_some((query.from.len(), 0));
        let mut search = Self {
            query,
            in_flight_max: in_flight_max.max(1),
            next: first,
            window: VecDeque::new(),
            judged: 0,
            decided: false,
            found: Found::default(),
            visiting: None,
            outcome: None,
        };
        search.judge();
        search
    }

    /// The next path to be asked about, and its number. `None`: not before an answer has come.
    pub fn next_probe(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.decided || self.window.len() >= self.in_flight_max {
            return None;
        }
        let (length, marker) = self.next?;
        let directory = &self.query.from[..length];
        let path = path::join(directory, &self.query.markers[marker]);
        self.next = if marker + 1 < self.query.markers.len() {
            Some((length, marker + 1))
        } else {
            path::parent(directory).map(|above| (above.len(), 0))
        };
        let number = self.judged + self.window.len() as u64;
        self.window.push_back(Probe {
            directory_length: length,
            marker,
            answer: None,
        });
        self.found.probed = self.found.probed.saturating_add(1);
        Some((number, path))
    }

    /// Takes what a probe says. A number that was not handed out, or was answered, changes nothing.
    pub fn answer(&mut self, number: u64, answer: Answer) {
        let ends = match &answer {
            Answer::Hit => true,
            Answer::Miss => false,
            Answer::Failed(_) => self.query.on_error == OnError::Propagate,
        };
        let at = number
            .checked_sub(self.judged)
            .and_then(|at| usize::try_from(at).ok());
        let Some(probe) = at.and_then(|at| self.window.get_mut(at)) else {
            return;
        };
        probe.answer.get_or_insert(answer);
        self.decided |= ends;
        self.judge();
    }

    /// What came of it, once that is known; then the search is over.
    pub fn outcome(&mut self) -> Option<Result<Found, WireError>> {
        self.outcome.take()
    }

    fn judge(&mut self) {
        while let Some(probe) = self.window.pop_front_if(|probe| probe.answer.is_some()) {
            self.judged += 1;
            if self.visiting != Some(probe.directory_length) {
                self.visiting = Some(probe.directory_length);
                self.found.visited = self.found.visited.saturating_add(1);
            }
            match probe.answer {
                None | Some(Answer::Miss) => {}
                Some(Answer::Failed(error)) => match self.query.on_error {
                    OnError::Propagate => return self.end(Err(error)),
                    OnError::Ignore => self.found.ignored = self.found.ignored.saturating_add(1),
                },
                Some(Answer::Hit) => {
                    self.found.root = Some(self.query.from[..probe.directory_length].to_vec());
                    self.found.marker = Some(probe.marker);
                    let found = self.found.clone();
                    return self.end(Ok(found));
                }
            }
        }
        if self.window.is_empty() && self.next.is_none() {
            let found = self.found.clone();
            self.end(Ok(found));
        }
    }

    fn end(&mut self, outcome: Result<Found, WireError>) {
        self.window.clear();
        self.next = None;
        self.decided = true;
        self.outcome = Some(outcome);
    }
}
