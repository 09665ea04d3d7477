//! What is known of one thread, and how a change of it merges with another.

use std::fmt;
use std::str::FromStr;

/// The most bytes of a text that is kept of a thread: titles, previews, names of branches and models.
pub const TEXT_MAX_BYTES: usize = 512;
/// The most bytes of a path that is kept of a thread: Linux's own bound on one.
pub const PATH_MAX_BYTES: usize = 4_096;

/// 128 random bits that name one thread, everywhere and for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ThreadId(pub [u8; 16]);

/// A text is not a thread's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a thread's id has 32 hexadecimal digits: copy the whole id from `dwell threads list`")]
pub struct ParseThreadIdError;

/// Whether anybody works on a thread, as far as its history says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum ThreadStatus {
    /// No turn is under way.
    #[default]
    Idle,
    /// A turn has begun and not ended.
    Active,
    /// Put away by its user; still readable.
    Archived,
}

/// A change of one field: left alone, taken away, or set. What comes later wins.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Change<T> {
    /// The field stays what it is.
    #[default]
    Keep,
    /// The field has no value any more.
    Clear,
    /// The field has this value.
    Set(T),
}

/// What is known of one thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadRecord {
    /// What it is known by.
    pub id: ThreadId,
    /// When it was made, in Unix microseconds of the machine that made it. For people: nothing is ordered by it.
    pub created_unix_us: i64,
    /// When something last happened in it. Recency is by this.
    pub updated_unix_us: i64,
    /// What its user calls it.
    pub title: Option<String>,
    /// The beginning of its first goal or message.
    pub preview: Option<String>,
    /// The directory it works in.
    pub cwd: Option<String>,
    /// The root of the repository around that.
    pub repo_root: Option<String>,
    /// The branch that was checked out.
    pub repo_branch: Option<String>,
    /// The commit that was checked out.
    pub repo_commit: Option<String>,
    /// The model that speaks in it.
    pub model: Option<String>,
    /// Tokens read so far, those from a cache included.
    pub tokens_input: u64,
    /// Tokens read from a cache so far.
    pub tokens_cached: u64,
    /// Tokens written so far.
    pub tokens_output: u64,
    /// Turns begun so far.
    pub turns: u64,
    /// Whether a turn is under way.
    pub status: ThreadStatus,
    /// The thread that it was begun from.
    pub parent: Option<ThreadId>,
    /// Items of its history that this record covers.
    pub items: u64,
    /// Bytes of its event log that this record covers: they were on the disk before this record was written.
    pub log_bytes: u64,
}

/// Changes of one thread, field by field. What is absent is left alone.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ThreadPatch {
    /// When it was made.
    pub created_unix_us: Option<i64>,
    /// When something last happened in it.
    pub updated_unix_us: Option<i64>,
    /// What its user calls it.
    pub title: Change<String>,
    /// The beginning of its first goal or message.
    pub preview: Change<String>,
    /// The directory it works in.
    pub cwd: Change<String>,
    /// The root of the repository around that.
    pub repo_root: Change<String>,
    /// The branch that was checked out.
    pub repo_branch: Change<String>,
    /// The commit that was checked out.
    pub repo_commit: Change<String>,
    /// The model that speaks in it.
    pub model: Change<String>,
    /// All tokens read so far.
    pub tokens_input: Option<u64>,
    /// All tokens read from a cache so far.
    pub tokens_cached: Option<u64>,
    /// All tokens written so far.
    pub tokens_output: Option<u64>,
    /// All turns so far.
    pub turns: Option<u64>,
    /// Whether a turn is under way.
    pub status: Option<ThreadStatus>,
    /// The thread that it was begun from.
    pub parent: Change<ThreadId>,
    /// Items of its history that the record covers then.
    pub items: Option<u64>,
    /// Bytes of its event log that the record covers then.
    pub log_bytes: Option<u64>,
}

impl<T> Change<T> {
    fn merge(&mut self, later: Self) {
        match later {
            Self::Keep => {}
            Self::Clear | Self::Set(_) => *self = later,
        }
    }

    fn apply(self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value),
        }
    }

    /// Whether it leaves the field alone.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// `None` takes the value away.
impl<T> From<Option<T>> for Change<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Clear, Self::Set)
    }
}

fn later<T>(own: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *own = later;
    }
}

impl ThreadPatch {
    /// Takes over what a later patch says; what it leaves alone stays.
    pub fn merge(&mut self, next: Self) {
        later(&mut self.created_unix_us, next.created_unix_us);
        later(&mut self.updated_unix_us, next.updated_unix_us);
        self.title.merge(next.title);
        self.preview.merge(next.preview);
        self.cwd.merge(next.cwd);
        self.repo_root.merge(next.repo_root);
        self.repo_branch.merge(next.repo_branch);
        self.repo_commit.merge(next.repo_commit);
        self.model.merge(next.model);
        later(&mut self.tokens_input, next.tokens_input);
        later(&mut self.tokens_cached, next.tokens_cached);
        later(&mut self.tokens_output, next.tokens_output);
        later(&mut self.turns, next.turns);
        later(&mut self.status, next.status);
        self.parent.merge(next.parent);
        later(&mut self.items, next.items);
        later(&mut self.log_bytes, next.log_bytes);
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it says nothing but that something happened: such patches may wait for others.
    pub fn is_touch(&self) -> bool {
        let touch = Self {
            updated_unix_us: self.updated_unix_us,
            items: self.items,
            log_bytes: self.log_bytes,
            ..Self::default()
        };
        *self == touch
    }

    /// Texts cut to their bounds and cleaned of what a terminal would obey.
    #[must_use = "the cleaned patch is the returned one"]
    pub fn cleaned(self) -> Self {
        let text = |change| clean(change, TEXT_MAX_BYTES);
        let path = |change| clean(change, PATH_MAX_BYTES);
        Self {
            title: text(self.title),
            preview: text(self.preview),
            cwd: path(self.cwd),
            repo_root: path(self.repo_root),
            repo_branch: text(self.repo_branch),
            repo_commit: text(self.repo_commit),
            model: text(self.model),
            ..self
        }
    }
}

fn clean(change: Change<String>, max_bytes: usize) -> Change<String> {
    match change {
        Change::Set(text) => Change::Set(clean_text(&text, max_bytes)),
        Change::Keep | Change::Clear => change,
    }
}

/// A line that is safe to print: control and direction characters are blanks, and it is cut at a character.
pub(crate) fn clean_text(text: &str, max_bytes: usize) -> String {
    let mut kept = String::with_capacity(text.len().min(max_bytes));
    for c in text.trim().chars() {
        let c = if super::run::needs_escape(c) { ' ' } else { c };
        if kept.len() + c.len_utf8() > max_bytes {
            break;
        }
        kept.push(c);
    }
    kept
}

impl ThreadRecord {
    /// A thread of which nothing is known yet.
    pub fn new(id: ThreadId) -> Self {
        Self {
            id,
            created_unix_us: 0,
            updated_unix_us: 0,
            title: None,
            preview: None,
            cwd: None,
            repo_root: None,
            repo_branch: None,
            repo_commit: None,
            model: None,
            tokens_input: 0,
            tokens_cached: 0,
            tokens_output: 0,
            turns: 0,
            status: ThreadStatus::Idle,
            parent: None,
            items: 0,
            log_bytes: 0,
        }
    }

    /// Does what a patch says.
    pub fn apply(&mut self, patch: ThreadPatch) {
        let set = |field: &mut i64, value: Option<i64>| *field = value.unwrap_or(*field);
        let count = |field: &mut u64, value: Option<u64>| *field = value.unwrap_or(*field);
        set(&mut self.created_unix_us, patch.created_unix_us);
        set(&mut self.updated_unix_us, patch.updated_unix_us);
        patch.title.apply(&mut self.title);
        patch.preview.apply(&mut self.preview);
        patch.cwd.apply(&mut self.cwd);
        patch.repo_root.apply(&mut self.repo_root);
        patch.repo_branch.apply(&mut self.repo_branch);
        patch.repo_commit.apply(&mut self.repo_commit);
        patch.model.apply(&mut self.model);
        count(&mut self.tokens_input, patch.tokens_input);
        count(&mut self.tokens_cached, patch.tokens_cached);
        count(&mut self.tokens_output, patch.tokens_output);
        count(&mut self.turns, patch.turns);
        self.status = patch.status.unwrap_or(self.status);
        patch.parent.apply(&mut self.parent);
        count(&mut self.items, patch.items);
        count(&mut self.log_bytes, patch.log_bytes);
    }

    /// The title, else the preview: what a list shows.
    pub fn name(&self) -> Option<&str> {
        self.title.as_deref().or(self.preview.as_deref())
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadId({self})")
    }
}

/// 32 hexadecimal digits, and nothing around them.
impl FromStr for ThreadId {
    type Err = ParseThreadIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseThreadIdError);
        }
        let bits = u128::from_str_radix(text, 16).map_err(|_| ParseThreadIdError)?;
        Ok(Self(bits.to_be_bytes()))
    }
}

impl ThreadStatus {
    /// Its word in lists and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Archived => "archived",
        }
    }
}
