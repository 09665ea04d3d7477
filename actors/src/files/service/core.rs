//! Which requests of a session have their turn: no actor, no clock, no file.

use std::collections::{HashMap, VecDeque};

use dwell_messages::files::{BLOCK_MAX_BYTES, FileRequest, Handle, PAGE_MAX_BYTES};
use dwell_messages::{ErrorCode, WireError};

use crate::files::disk;
use crate::files::pool::Span;
use crate::files::watch::WATCHES_MAX;

/// Open files, walks and watches of one session.
pub const HANDLES_MAX: usize = 128;
/// Walks among them: each holds what it has not entered yet.
pub const WALKS_MAX: usize = 4;
/// Short jobs that one session has with the pool at a time.
pub const SHORT_AT_WORK_MAX: usize = 2;
/// Long ones.
pub const LONG_AT_WORK_MAX: usize = 1;
/// Content on its way to one client that it has not acknowledged: less than what keeps a session from being asked
/// anything else.
pub const UNACKNOWLEDGED_MAX_BYTES: usize = 6 * 1024 * 1024;

/// What a request is, as far as its turn is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::files) struct Claim {
    handle: Option<Handle>,
    opens: Opens,
    span: Span,
    /// Bytes that its answer may carry.
    content: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opens {
    Nothing,
    File,
    Walk,
    Watch,
}

impl Claim {
    pub(in crate::files) fn of(request: &FileRequest) -> Self {
        let capped = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX).min(BLOCK_MAX_BYTES);
        let (opens, content) = match request {
            FileRequest::Open(_) => (Opens::File, 0),
            FileRequest::Walk(_) => (Opens::Walk, PAGE_MAX_BYTES),
            FileRequest::Watch(_) => (Opens::Watch, 0),
            FileRequest::WalkOn(_) | FileRequest::List(_) => (Opens::Nothing, PAGE_MAX_BYTES),
            FileRequest::Read(read) => (Opens::Nothing, capped(read.max_bytes)),
            FileRequest::ReadBlock(read) => (Opens::Nothing, capped(read.max_bytes)),
            FileRequest::Metadata(_)
            | FileRequest::Write(_)
            | FileRequest::CreateDirectory(_)
            | FileRequest::Remove(_)
            | FileRequest::Copy(_)
            | FileRequest::Rename(_)
            | FileRequest::Canonicalize(_)
            | FileRequest::WriteBlock(_)
            | FileRequest::Close(_)
            | FileRequest::Await(_) => (Opens::Nothing, 0),
        };
        let span = disk::span(request);
        Self {
            handle: request.handle(),
            opens,
            span,
            content,
        }
    }
}

/// A request whose turn it is, with what its handle names.
#[derive(Debug)]
pub(in crate::files) struct Begun<C, F> {
    pub(in crate::files) call: C,
    pub(in crate::files) file: Option<F>,
    pub(in crate::files) ticket: Ticket,
}

/// Given back when it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::files) struct Ticket {
    claim: Claim,
    /// Which opening of its handle it is about: the next owner counts handles anew.
    life: u64,
}

impl Ticket {
    pub(in crate::files) fn span(&self) -> Span {
        self.claim.span
    }
}

fn in_use() -> WireError {
    WireError::new(
        ErrorCode::BadRequest,
        "the handle is in use: choose one that was not used",
    )
}

fn too_many_open() -> WireError {
    WireError::new(ErrorCode::Busy, "too many files, walks and watches are open")
        .with_limit(HANDLES_MAX as u64, HANDLES_MAX as u64 + 1)
}

/// See the module.
#[derive(Debug)]
pub(in crate::files) struct ServiceCore<C, F> {
    short: VecDeque<Begun<C, F>>,
    long: VecDeque<Begun<C, F>>,
    short_at_work: usize,
    long_at_work: usize,
    content_at_work: usize,
    open: HashMap<Handle, Slot<C, F>>,
    lives: u64,
}

#[derive(Debug)]
struct Slot<C, F> {
    life: u64,
    /// What it is.
    opens: Opens,
    /// `None`: a request about it has its turn, or waits for it.
    file: Option<F>,
    waiting: VecDeque<(C, Claim)>,
}

impl<C, F> Default for ServiceCore<C, F> {
    fn default() -> Self {
        Self {
            short: VecDeque::new(),
            long: VecDeque::new(),
            short_at_work: 0,
            long_at_work: 0,
            content_at_work: 0,
            open: HashMap::new(),
            lives: 0,
        }
    }
}

impl<C, F> ServiceCore<C, F> {
    /// Takes a request in. How many may wait is bounded by what the session's `RpcQueue` admits.
    ///
    /// # Errors
    /// It comes back with what is wrong with its handle, or `Busy` when too much is open.
    pub(in crate::files) fn submit(&mut self, call: C, claim: Claim) -> Result<(), (C, WireError)> {
        let Some(handle) = claim.handle else {
            self.ready(call, None, Ticket { claim, life: 0 });
            return Ok(());
        };
        match (claim.opens, self.open.get_mut(&handle)) {
            (Opens::Nothing, Some(slot)) => {
                let life = slot.life;
                let mut claim = claim;
                if slot.opens == Opens::Watch {
                    // Its closing, too: nothing of it is on a disk.
                    claim.span = Span::Short;
                }
                match slot.file.take() {
                    Some(file) => self.ready(call, Some(file), Ticket { claim, life }),
                    None => slot.waiting.push_back((call, claim)),
                }
                Ok(())
            }
            (Opens::Nothing, None) => Err((call, disk::unknown())),
            (Opens::File | Opens::Walk | Opens::Watch, Some(_)) => Err((call, in_use())),
            (opens @ (Opens::File | Opens::Walk | Opens::Watch), None) => match self.refusal(opens) {
                Some(error) => Err((call, error)),
                None => {
                    self.lives += 1;
                    let slot = Slot {
                        life: self.lives,
                        opens,
                        file: None,
                        waiting: VecDeque::new(),
                    };
                    self.open.insert(handle, slot);
                    let life = self.lives;
                    self.ready(call, None, Ticket { claim, life });
                    Ok(())
                }
            },
        }
    }

    fn refusal(&self, opens: Opens) -> Option<WireError> {
        if self.open.len() >= HANDLES_MAX {
            return Some(too_many_open());
        }
        let (most, what) = match opens {
            Opens::Nothing | Opens::File => return None,
            Opens::Walk => (WALKS_MAX, "too many walks are under way"),
            Opens::Watch => (WATCHES_MAX, "too many watches are under way"),
        };
        let there = self.open.values().filter(|slot| slot.opens == opens).count();
        (there >= most)
            .then(|| WireError::new(ErrorCode::Busy, what).with_limit(most as u64, there as u64 + 1))
    }

    fn ready(&mut self, call: C, file: Option<F>, ticket: Ticket) {
        let begun = Begun { call, file, ticket };
        match ticket.claim.span {
            Span::Short => self.short.push_back(begun),
            Span::Long | Span::Tree => self.long.push_back(begun),
        }
    }

    /// The next whose turn it is, when so much content waits for its acknowledgement.
    pub(in crate::files) fn next(&mut self, unacknowledged: usize) -> Option<Begun<C, F>> {
        let room = UNACKNOWLEDGED_MAX_BYTES.saturating_sub(unacknowledged + self.content_at_work);
        let fits = |begun: &Begun<C, F>| begun.ticket.claim.content <= room;
        let take = |queue: &mut VecDeque<Begun<C, F>>| {
            let at = queue.iter().position(fits)?;
            queue.remove(at)
        };
        let long = (self.long_at_work < LONG_AT_WORK_MAX)
            .then(|| take(&mut self.long))
            .flatten();
        let begun = match long {
            Some(begun) => {
                self.long_at_work += 1;
                begun
            }
            None if self.short_at_work < SHORT_AT_WORK_MAX => {
                let begun = take(&mut self.short)?;
                self.short_at_work += 1;
                begun
            }
            None => return None,
        };
        self.content_at_work += begun.ticket.claim.content;
        Some(begun)
    }

    /// Whether something waits that only an acknowledgement lets go on: nothing else will ask for its turn.
    pub(in crate::files) fn is_held(&self) -> bool {
        self.short_at_work + self.long_at_work == 0 && !(self.short.is_empty() && self.long.is_empty())
    }

    /// A request is done; `file` is what its handle names now. Gives those that waited for something that is not open,
    /// and what nobody can name any more.
    pub(in crate::files) fn finish(&mut self, ticket: Ticket, file: Option<F>) -> (Vec<C>, Option<F>) {
        match ticket.claim.span {
            Span::Short => self.short_at_work -= 1,
            Span::Long | Span::Tree => self.long_at_work -= 1,
        }
        self.content_at_work -= ticket.claim.content;
        let Some(handle) = ticket.claim.handle else {
            return (Vec::new(), file);
        };
        let Some(slot) = self.open.get_mut(&handle).filter(|slot| slot.life == ticket.life) else {
            return (Vec::new(), file);
        };
        let Some(file) = file else {
            let slot = self.open.remove(&handle);
            let waiting = slot.into_iter().flat_map(|slot| slot.waiting);
            return (waiting.map(|(call, _)| call).collect(), None);
        };
        match slot.waiting.pop_front() {
            Some((call, claim)) => {
                let life = ticket.life;
                self.ready(call, Some(file), Ticket { claim, life });
            }
            None => slot.file = Some(file),
        }
        (Vec::new(), None)
    }

    /// Nobody knows of what is open any more. Gives it, and the requests about it that had not got their turn.
    pub(in crate::files) fn close_all(&mut self) -> (Vec<C>, Vec<F>) {
        let (mut calls, mut files) = (Vec::new(), Vec::new());
        for slot in std::mem::take(&mut self.open).into_values() {
            calls.extend(slot.waiting.into_iter().map(|(call, _)| call));
            files.extend(slot.file);
        }
        (calls, files)
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
