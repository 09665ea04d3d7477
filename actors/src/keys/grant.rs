//! What stands behind a key in `authorized_clients`: what its holder may do, until when, and how much at once.

use std::fmt;

use super::date::{format_utc, parse_utc};
use super::scope::ScopeSet;

/// What a client may do. The text form is its options, separated by blanks or commas; nothing is the default grant.
///
/// | option | without it |
/// |---|---|
/// | `scopes=spawn+pty` | everything but `admin` |
/// | `expires=2027-01-31` or `expires=2027-01-31T12:00:00Z`, in UTC, a day being its beginning | never |
/// | `max-sessions=4` | as many as the executor has room for |
/// | `max-processes=16`, in all of its sessions | as many as a session has room for |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grant {
    /// What.
    pub scopes: ScopeSet,
    /// Until when, in seconds since 1970; from that second on it is refused.
    pub expires_unix_s: Option<u64>,
    /// The most sessions at a time.
    pub sessions_max: Option<u32>,
    /// The most processes at a time.
    pub processes_max: Option<u32>,
}

impl Grant {
    /// These scopes, and no other limit.
    pub fn scopes(scopes: ScopeSet) -> Self {
        Self {
            scopes,
            ..Self::default()
        }
    }

    /// Whether it is over.
    pub fn is_expired(&self, now_unix_s: u64) -> bool {
        self.expires_unix_s.is_some_and(|expires| expires <= now_unix_s)
    }

    /// From the text form.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut grant = Self::default();
        let mut seen = [false; 4];
        for option in text.split([' ', '\t', ',']).filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .ok_or("an option is name=value, and a comment begins with #")?;
            let index = match name {
                "scopes" => 0,
                "expires" => 1,
                "max-sessions" => 2,
                "max-processes" => 3,
                _ => return Err("the options are scopes=, expires=, max-sessions= and max-processes="),
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err("an option is named twice");
            }
            match index {
                0 => grant.scopes = ScopeSet::parse(value)?,
                1 => {
                    grant.expires_unix_s = Some(
                        parse_utc(value)
                            .ok_or("expires= is a date of UTC, as 2027-01-31 or 2027-01-31T12:00:00Z")?,
                    );
                }
                2 => grant.sessions_max = Some(cap(value)?),
                _ => grant.processes_max = Some(cap(value)?),
            }
        }
        Ok(grant)
    }
}

fn cap(value: &str) -> Result<u32, &'static str> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|number| digits && *number > 0)
        .ok_or("max-sessions= and max-processes= are whole numbers above 0")
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        if self.scopes != ScopeSet::DEFAULT {
            write!(f, "scopes={}", self.scopes)?;
            between = " ";
        }
        if let Some(expires) = self.expires_unix_s {
            write!(f, "{between}expires={}", format_utc(expires))?;
            between = " ";
        }
        if let Some(most) = self.sessions_max {
            write!(f, "{between}max-sessions={most}")?;
            between = " ";
        }
        if let Some(most) = self.processes_max {
            write!(f, "{between}max-processes={most}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::keys::scope::Scope;

    #[test]
    fn no_options_are_everything_but_admin_for_ever() {
        let grant = Grant::parse("").unwrap();
        assert_eq!(grant, Grant::default());
        for scope in Scope::ALL {
            assert_eq!(grant.scopes.contains(scope), scope != Scope::Admin, "{scope}");
        }
        assert!(!grant.is_expired(u64::MAX));
    }

    #[test]
    fn options_are_taken_from_a_file_and_from_a_flag_alike() {
        let text = "scopes=spawn+stdin expires=2027-01-31 max-sessions=2 max-processes=3";
        let grant = Grant::parse(text).unwrap();
        assert_eq!(Grant::parse(&text.replace(' ', ",")), Ok(grant));
        assert_eq!(grant.scopes, ScopeSet::of(&[Scope::Spawn, Scope::Stdin]));
        assert_eq!((grant.sessions_max, grant.processes_max), (Some(2), Some(3)));
        let expires = grant.expires_unix_s.unwrap();
        assert!(!grant.is_expired(expires - 1) && grant.is_expired(expires));
        assert_eq!(Grant::parse("scopes=none").unwrap().scopes, ScopeSet::NONE);
    }

    #[test]
    fn a_wrong_option_says_what_is_right() {
        for (text, part) in [
            ("laptop", "name=value"),
            ("scope=spawn", "scopes="),
            ("scopes=", "spawn, pty"),
            ("scopes=spawn,stdin", "name=value"),
            ("scopes=all", "none"),
            ("scopes=spawn+spawn", "twice"),
            ("scopes=pty scopes=pty", "twice"),
            ("expires=tomorrow", "UTC"),
            ("max-sessions=0", "above 0"),
            ("max-processes=+1", "above 0"),
            ("max-processes=99999999999", "above 0"),
        ] {
            let problem = Grant::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    fn grants() -> impl Strategy<Value = Grant> {
        (
            0..128_u8,
            option::of(0..253_402_300_799_u64),
            option::of(1..u32::MAX),
            option::of(1..u32::MAX),
        )
            .prop_map(|(bits, expires_unix_s, sessions_max, processes_max)| Grant {
                scopes: ScopeSet::from_bits(bits),
                expires_unix_s,
                sessions_max,
                processes_max,
            })
    }

    proptest! {
        #[test]
        fn every_grant_comes_back_from_its_text(grant in grants()) {
            prop_assert_eq!(Grant::parse(&grant.to_string()), Ok(grant));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,64}") {
            let _ = Grant::parse(&text);
        }
    }
}
