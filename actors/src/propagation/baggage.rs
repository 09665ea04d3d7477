//! W3C baggage: names and values that travel with a context, bounded, and only those that were asked for.

use std::fmt;
use std::fmt::Write as _;

/// Most members that are kept.
pub const BAGGAGE_MEMBERS_MAX: usize = 64;
/// Most bytes of baggage as it is written, and most that are looked at.
pub const BAGGAGE_MAX_BYTES: usize = 8_192;

/// The names of the members that are taken. Baggage is anybody's data about anything, so the default is none of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowList(Vec<String>);

/// Some members, in order, each name once.
///
/// `Debug` shows names and no values.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Baggage {
    /// Values are as they are written: percent-encoded, with their properties.
    members: Vec<(String, String)>,
    bytes: usize,
}

/// Why a member was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BaggageError {
    /// The name is empty or has a character that W3C does not allow.
    #[error("a baggage member's name has letters, digits and !#$%&'*+-.^_`|~ only")]
    Name,
    /// It does not fit.
    #[error(
        "baggage has at most {BAGGAGE_MEMBERS_MAX} members and {BAGGAGE_MAX_BYTES} bytes: leave some out"
    )]
    Full,
}

impl AllowList {
    /// Nothing is taken.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// These names, at most `BAGGAGE_MEMBERS_MAX` of them.
    pub fn names(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(
            names
                .into_iter()
                .take(BAGGAGE_MEMBERS_MAX)
                .map(Into::into)
                .collect(),
        )
    }

    /// Whether a member of this name is taken.
    pub fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|allowed| allowed == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Baggage {
    /// What is allowed of W3C's text, and whether all of the text made sense and fitted. A member that is malformed
    /// is left out alone; of a name that comes twice the later value counts; past the bounds nothing is looked at.
    pub(super) fn parse(text: &str, allowed: &AllowList) -> (Self, bool) {
        let mut baggage = Self::default();
        let end = text.floor_char_boundary(BAGGAGE_MAX_BYTES);
        let (text, mut whole) = (&text[..end], end == text.len());
        let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
        let mut left = members.clone().count();
        if !whole {
            // The last one may be half of one.
            left = left.saturating_sub(1);
        }
        whole &= left <= BAGGAGE_MEMBERS_MAX;
        for member in members.take(left.min(BAGGAGE_MEMBERS_MAX)) {
            let (name, value) = member.split_once('=').unwrap_or((member, "\u{7f}"));
            let (name, value) = (name.trim_end(), value.trim_start());
            if !is_name(name) || !is_value(value) {
                whole = false;
            } else if allowed.allows(name) {
                whole &= baggage.put(name, value.to_owned()).is_ok();
            }
        }
        (baggage, whole)
    }

    /// Adds a member, or gives it another value. Any text is a value: it is encoded.
    ///
    /// # Errors
    /// A name that is none, or no room.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), BaggageError> {
        if !is_name(name) {
            return Err(BaggageError::Name);
        }
        if value.len() > BAGGAGE_MAX_BYTES {
            return Err(BaggageError::Full);
        }
        self.put(name, encode(value))
    }

    fn put(&mut self, name: &str, value: String) -> Result<(), BaggageError> {
        let at = self.members.iter().position(|(known, _)| known == name);
        let before = at.map_or(0, |at| cost(name, &self.members[at].1));
        let bytes = self.bytes - before + cost(name, &value);
        // The last member has no comma behind it.
        if bytes > BAGGAGE_MAX_BYTES + 1 || (at.is_none() && self.members.len() >= BAGGAGE_MEMBERS_MAX) {
            return Err(BaggageError::Full);
        }
        self.bytes = bytes;
        match at {
            Some(at) => self.members[at].1 = value,
            None => self.members.push((name.to_owned(), value)),
        }
        Ok(())
    }

    /// Adds the other's members; what does not fit is left out.
    pub(super) fn merge(&mut self, other: Self) {
        for (name, value) in other.members {
            let _ = self.put(&name, value);
        }
    }

    /// A member's value as it is written, percent-encoded, with its properties.
    pub fn value(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|(known, _)| known == name)?;
        Some(&member.1)
    }

    /// The members' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// W3C's text, at most `BAGGAGE_MAX_BYTES` of it.
impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.members.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

fn cost(name: &str, value: &str) -> usize {
    name.len() + 1 + value.len() + 1
}

/// A token of HTTP.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// W3C's characters, those of properties included.
fn is_value(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| (0x20..=0x7e).contains(&byte) && !matches!(byte, b'"' | b',' | b'\\'))
}

fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if (0x21..=0x7e).contains(&byte) && !matches!(byte, b'"' | b',' | b';' | b'\\' | b'%') {
            out.push(char::from(byte));
        } else {
            // Into a string: this cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
