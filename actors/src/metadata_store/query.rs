//! Which threads are wanted, and in which pages.

use super::thread::{ThreadId, ThreadRecord, ThreadStatus};

/// The most threads of one page.
pub const PAGE_MAX: usize = 1_000;

/// Which threads are wanted: all of what is said must hold. The newest come first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadQuery {
    /// Only those that work in this directory.
    pub cwd: Option<String>,
    /// Only those in this state.
    pub status: Option<ThreadStatus>,
    /// Only those whose title or preview holds this text, whatever the case of its ASCII letters.
    pub text: Option<String>,
    /// Behind this place: where the page before ended.
    pub after: Option<PageMark>,
    /// At most so many, and `PAGE_MAX`.
    pub limit: usize,
}

/// Where a page ended. A thread that is touched meanwhile moves to the front, and is in a later page not again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageMark {
    /// The last thread's recency.
    pub updated_unix_us: i64,
    /// Its id, which orders those of the same recency.
    pub id: ThreadId,
}

/// Some threads, the newest first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ThreadPage {
    /// The threads.
    pub threads: Vec<ThreadRecord>,
    /// Where the next page begins, if there may be one.
    pub next: Option<PageMark>,
}

impl Default for ThreadQuery {
    fn default() -> Self {
        Self {
            cwd: None,
            status: None,
            text: None,
            after: None,
            limit: 100,
        }
    }
}

impl ThreadQuery {
    pub(super) fn limit(&self) -> usize {
        self.limit.clamp(1, PAGE_MAX)
    }

    /// A page of at most the limit, from what was read up to one more than that.
    pub(super) fn page(&self, mut threads: Vec<ThreadRecord>) -> ThreadPage {
        let more = threads.len() > self.limit();
        threads.truncate(self.limit());
        let next = threads.last().filter(|_| more).map(|last| PageMark {
            updated_unix_us: last.updated_unix_us,
            id: last.id,
        });
        ThreadPage { threads, next }
    }

    /// Whether a thread is wanted. What the database does in SQL.
    pub(super) fn wants(&self, thread: &ThreadRecord) -> bool {
        let holds = |text: &Option<String>, wanted: &str| {
            text.as_ref()
                .is_some_and(|text| text.to_ascii_lowercase().contains(wanted))
        };
        let behind = |mark: &PageMark| (thread.updated_unix_us, thread.id) < (mark.updated_unix_us, mark.id);
        self.cwd
            .as_ref()
            .is_none_or(|cwd| thread.cwd.as_ref() == Some(cwd))
            && self.status.is_none_or(|status| thread.status == status)
            && self.after.as_ref().is_none_or(behind)
            && self.text.as_ref().is_none_or(|text| {
                let wanted = text.to_ascii_lowercase();
                holds(&thread.title, &wanted) || holds(&thread.preview, &wanted)
            })
    }
}
