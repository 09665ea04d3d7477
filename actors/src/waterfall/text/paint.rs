//! Colours and glyphs, or their plain stand-ins.

use super::super::bar::Fill;
use super::super::model::Class;

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Strong,
    Dim,
    Warning,
    Error,
    Critical,
    Mailbox,
    Turn,
    Harness,
    Executor,
    Relay,
}

/// How text and bars are written.
pub(super) struct Paint {
    pub(super) color: bool,
    pub(super) ascii: bool,
}

impl Paint {
    /// Appends text in its colour; blank text and plain output get no escape sequence.
    pub(super) fn write(&self, out: &mut String, ink: Ink, text: &str) {
        let code = match ink {
            Ink::Plain => "",
            Ink::Strong => "1",
            Ink::Dim => "2",
            Ink::Warning => "1;33",
            Ink::Error => "31",
            Ink::Critical => "1;95",
            Ink::Mailbox => "33",
            Ink::Turn => "34",
            Ink::Harness => "36",
            Ink::Executor => "32",
            Ink::Relay => "35",
        };
        if !self.color || code.is_empty() || text.trim().is_empty() {
            out.push_str(text);
            return;
        }
        for part in ["\x1b[", code, "m", text, "\x1b[0m"] {
            out.push_str(part);
        }
    }

    /// One column that says that the end waited for this.
    pub(super) fn critical(&self) -> &'static str {
        if self.ascii { "*" } else { "◆" }
    }

    /// The sign before an error.
    pub(super) fn give_or_take(&self) -> &'static str {
        if self.ascii { "+-" } else { "±" }
    }

    /// One column that tells waiting from working, without colour too.
    pub(super) fn mark(&self, class: Class) -> &'static str {
        match (class, self.ascii) {
            (Class::Mailbox, false) => "◦",
            (Class::Mailbox, true) => "o",
            (Class::Turn, false) => "▸",
            (Class::Turn, true) => ">",
            (Class::Stage, _) => " ",
        }
    }

    pub(super) fn fill(&self, class: Class, folded: bool) -> Fill {
        match (folded, class, self.ascii) {
            (true, _, false) => Fill::Cells {
                full: '▄', tiny: '▖'
            },
            (true, _, true) => Fill::Cells { full: '-', tiny: '-' },
            (false, Class::Mailbox, false) => Fill::Cells {
                full: '░', tiny: '┊'
            },
            (false, Class::Mailbox, true) => Fill::Cells { full: ':', tiny: '|' },
            (false, Class::Turn | Class::Stage, false) => Fill::Blocks,
            (false, Class::Turn, true) => Fill::Cells { full: '=', tiny: '|' },
            (false, Class::Stage, true) => Fill::Cells { full: '#', tiny: '|' },
        }
    }

    /// A line going on, none, a branch, the last branch.
    pub(super) fn tree(&self) -> [&'static str; 4] {
        if self.ascii {
            ["| ", "  ", "|-", "`-"]
        } else {
            ["│ ", "  ", "├ ", "└ "]
        }
    }
}
