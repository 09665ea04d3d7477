//! What is appended to a thread.

use dwell_messages::TraceContext;

use crate::event_log::{Item, ItemKind};
use crate::metadata_store::ThreadPatch;
use crate::telemetry::wall_unix_us;

/// Some items, what the caller knows besides, and whose work it is part of.
#[derive(Clone, Debug, Default)]
pub struct Append {
    pub(super) items: Vec<Item>,
    /// Most appends have none, and it is large.
    pub(super) patch: Option<Box<ThreadPatch>>,
    pub(super) parent: Option<TraceContext>,
}

impl Append {
    /// Appends these, in this order, next to each other.
    pub fn new(items: impl Into<Vec<Item>>) -> Self {
        Self {
            items: items.into(),
            ..Self::default()
        }
    }

    /// What changes of the thread's record besides what its items say: the model, tokens, the branch. It wins over them.
    #[must_use]
    pub fn patch(mut self, patch: ThreadPatch) -> Self {
        match &mut self.patch {
            Some(earlier) => earlier.merge(patch),
            None => self.patch = Some(Box::new(patch)),
        }
        self
    }

    /// The append's spans hang below this. Without one it is not traced.
    #[must_use]
    pub fn parent(mut self, context: TraceContext) -> Self {
        self.parent = Some(context);
        self
    }
}

impl From<Item> for Append {
    fn from(item: Item) -> Self {
        Self::new([item])
    }
}

impl From<Vec<Item>> for Append {
    fn from(items: Vec<Item>) -> Self {
        Self::new(items)
    }
}

impl Item {
    /// An item of this moment.
    pub fn now(kind: ItemKind, body: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            at_unix_us: wall_unix_us(),
            body: body.into(),
        }
    }
}
