//! Files of instructions, from the project's root down to the directory that is worked in.

use dwell_messages::ErrorCode;

use super::loader::{Loader, Notes};
use super::pipeline::in_order;
use crate::files::Front;
use crate::find_up::{is_absence, path};

/// Instructions as they were read: nothing is cut yet but what no answer could hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentsLoaded {
    pub(super) files: Vec<Instruction>,
    pub(super) notes: Notes,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Instruction {
    pub(super) path: Vec<u8>,
    pub(super) text: String,
    pub(super) whole: bool,
}

impl Loader<'_> {
    /// Reads them. Without a root only the directory itself is looked at.
    pub async fn agents(&self, root: Option<&[u8]>) -> AgentsLoaded {
        let cwd = &self.plan.cwd;
        let directories = path::between(root.unwrap_or(cwd), cwd);
        let reading = directories.iter().map(|directory| self.agents_in(directory));
        let mut loaded = AgentsLoaded::default();
        for (file, notes) in in_order(self.in_flight, reading).await {
            loaded.files.extend(file);
            loaded.notes.append(notes);
        }
        loaded
    }

    /// Of one directory the first name that is there. One that is there and cannot be read ends the search: the next name
    /// is what it was to replace.
    async fn agents_in(&self, directory: &[u8]) -> (Option<Instruction>, Notes) {
        let mut notes = Notes::default();
        for name in &self.plan.agents {
            let path = path::join(directory, name);
            match self.front(&path, self.plan.text_max_bytes).await {
                Ok(front) => {
                    let (text, clean) = text_of(&front);
                    if !clean {
                        notes.note(ErrorCode::BadRequest, &path, "the file is not UTF-8");
                    }
                    let says_something = !(front.whole && text.trim().is_empty());
                    let whole = front.whole;
                    let file = says_something.then_some(Instruction { path, text, whole });
                    return (file, notes);
                }
                Err(error) if is_absence(error.code) => {}
                Err(error) if error.code == ErrorCode::IsADirectory => notes.failed(&path, &error),
                Err(error) => {
                    notes.failed(&path, &error);
                    return (None, notes);
                }
            }
        }
        (None, notes)
    }
}

/// As text, and whether nothing had to be replaced. A character that the end has cut in two is left out.
fn text_of(front: &Front) -> (String, bool) {
    let mut bytes = &front.bytes[..];
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && !front.whole
    {
        bytes = &bytes[..error.valid_up_to()];
    }
    let text = String::from_utf8_lossy(bytes);
    let clean = matches!(text, std::borrow::Cow::Borrowed(_));
    (text.into_owned(), clean)
}
