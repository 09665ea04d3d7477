//! What a thread's history says about the thread: pure, item by item.

use crate::event_log::{Item, ItemKind};
use crate::metadata_store::{Change, ThreadPatch, ThreadRecord, ThreadStatus, clean_text};

/// The most bytes of a preview.
pub const PREVIEW_MAX_BYTES: usize = 160;

/// What has been seen so far, as far as the next item's meaning depends on it.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    has_preview: bool,
    turns: u64,
    updated_unix_us: i64,
}

impl Observer {
    /// Goes on where a record ends.
    pub fn of(record: &ThreadRecord) -> Self {
        Self {
            has_preview: record.preview.is_some(),
            turns: record.turns,
            updated_unix_us: record.updated_unix_us,
        }
    }

    /// What some more items say. A thread's recency never goes back, whatever the clock does.
    pub fn observe(&mut self, items: &[Item]) -> ThreadPatch {
        let mut patch = ThreadPatch::default();
        for item in items {
            self.updated_unix_us = self.updated_unix_us.max(item.at_unix_us);
            match item.kind {
                ItemKind::Goal | ItemKind::UserMessage if !self.has_preview => {
                    let text = clean_text(&String::from_utf8_lossy(&item.body), PREVIEW_MAX_BYTES);
                    if !text.is_empty() {
                        self.has_preview = true;
                        patch.preview = Change::Set(text);
                    }
                }
                ItemKind::TurnStarted => {
                    self.turns = self.turns.saturating_add(1);
                    patch.turns = Some(self.turns);
                    patch.status = Some(ThreadStatus::Active);
                }
                ItemKind::TurnEnded => patch.status = Some(ThreadStatus::Idle),
                ItemKind::Note
                | ItemKind::UserMessage
                | ItemKind::Goal
                | ItemKind::AgentMessage
                | ItemKind::ToolCall
                | ItemKind::ToolOutput
                | ItemKind::Other(_) => {}
            }
        }
        patch.updated_unix_us = Some(self.updated_unix_us);
        patch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: it panicked, and began anew at 0 where overflow is not looked for.
    #[test]
    fn more_turns_than_can_be_counted_stay_as_many() {
        let mut observer = Observer {
            turns: u64::MAX - 1,
            ..Observer::default()
        };
        let begun = Item::now(ItemKind::TurnStarted, "");
        let patch = observer.observe(&[begun.clone(), begun]);
        assert_eq!(patch.turns, Some(u64::MAX));
    }
}
