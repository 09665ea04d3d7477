//! What a listed client may be allowed to do.

use std::fmt;

/// One thing a client may be allowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Scope {
    /// Start commands.
    Spawn,
    /// Give them a terminal, and resize it; with `spawn`.
    Pty,
    /// Write to their input.
    Stdin,
    /// Signal and terminate them.
    Signal,
    /// Read again what they said, and take up what still runs.
    Attach,
    /// Read and write files by other means than commands.
    Files,
    /// Look at and end what other clients run.
    Admin,
}

impl Scope {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 7] = [
        Self::Spawn,
        Self::Pty,
        Self::Stdin,
        Self::Signal,
        Self::Attach,
        Self::Files,
        Self::Admin,
    ];

    /// Its name in files, on the command line and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Pty => "pty",
            Self::Stdin => "stdin",
            Self::Signal => "signal",
            Self::Attach => "attach",
            Self::Files => "files",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some scopes. The text form joins their names by `+`; no scope at all is `none`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeSet(u8);

/// The word for no scope at all.
const NONE: &str = "none";

impl ScopeSet {
    /// Not one: the client may connect and look at the environment, and that is all.
    pub const NONE: Self = Self(0);
    /// What a key gets when nobody says: everything but `admin`.
    pub const DEFAULT: Self = Self::of(&[
        Scope::Spawn,
        Scope::Pty,
        Scope::Stdin,
        Scope::Signal,
        Scope::Attach,
        Scope::Files,
    ]);

    /// These.
    pub const fn of(scopes: &[Scope]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < scopes.len() {
            bits |= scopes[index].bit();
            index += 1;
        }
        Self(bits)
    }

    /// Whether this one is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Those of `needed` that are not among these.
    pub const fn missing(self, needed: Self) -> Self {
        Self(needed.0 & !self.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// They, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// From the text form.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == NONE {
            return Ok(Self::NONE);
        }
        let mut bits = 0;
        for name in text.split('+') {
            let scope = Scope::ALL.into_iter().find(|scope| scope.name() == name).ok_or(
                "scopes are spawn, pty, stdin, signal, attach, files and admin, joined by +, or the word none",
            )?;
            if bits & scope.bit() != 0 {
                return Err("a scope is named twice");
            }
            bits |= scope.bit();
        }
        Ok(Self(bits))
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & ((1 << Scope::ALL.len()) - 1))
    }
}

impl Default for ScopeSet {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NONE);
        }
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("+")?;
            }
            f.write_str(scope.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeSet({self})")
    }
}
