//! What a person calls a command that runs elsewhere: `k3f9x-12.1`.
//!
//! Five characters for the executor's life, the session's number in it, and the process's number in the session. After a
//! restart the numbers begin anew, and the characters are others: an old id is refused and never taken for another command.

use std::fmt;
use std::str::FromStr;

/// Digits that are not taken for each other.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// How many stand for the executor's life: 25 bits.
const EPOCH_DIGITS: usize = 5;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Id {
    epoch: String,
    pub(super) session: u64,
    /// Absent where the session has only one.
    pub(super) process: Option<u64>,
}

impl Id {
    pub(crate) fn new(epoch: &[u8], session: u64, process: u64) -> Self {
        Self {
            epoch: epoch_text(epoch),
            session,
            process: Some(process),
        }
    }

    /// Whether it is of this life of the executor.
    pub(super) fn is_of(&self, epoch: &[u8]) -> bool {
        self.epoch == epoch_text(epoch)
    }
}

fn epoch_text(epoch: &[u8]) -> String {
    let mut bits: u64 = 0;
    for at in 0..5 {
        bits = bits << 8 | u64::from(epoch.get(at).copied().unwrap_or_default());
    }
    (0..EPOCH_DIGITS)
        .map(|digit| {
            let shift = 35 - 5 * digit;
            char::from(DIGITS[(bits >> shift & 0x1f) as usize])
        })
        .collect()
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.session)?;
        match self.process {
            Some(process) => write!(f, ".{process}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "an id is what `dwell ps` and `dwell run --detach` print, as k3f9x-12.1";
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|number| digits && *number > 0)
        };
        let (epoch, rest) = text.split_once('-').ok_or(wrong)?;
        let epoch = epoch.to_ascii_lowercase();
        if epoch.len() != EPOCH_DIGITS || !epoch.bytes().all(|byte| DIGITS.contains(&byte)) {
            return Err(wrong);
        }
        let (session, process) = match rest.split_once('.') {
            Some((session, process)) => (session, Some(number(process).ok_or(wrong)?)),
            None => (rest, None),
        };
        Ok(Self {
            epoch,
            session: number(session).ok_or(wrong)?,
            process,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_from_its_text_and_belongs_to_one_life() {
        let epoch = [0xab, 0xcd, 0xef, 0x01, 0x23, 9, 9];
        let id = Id::new(&epoch, 12, 3);
        assert_eq!(id.to_string(), "nf6yy-12.3");
        assert_eq!("NF6YY-12.3".parse(), Ok(id.clone()));
        assert!(id.is_of(&epoch));
        assert!(!id.is_of(&[0xab, 0xcd, 0xef, 0x81, 0x23]));
        let short: Id = "nf6yy-12".parse().unwrap();
        assert_eq!(
            (short.session, short.process, short.to_string()),
            (12, None, "nf6yy-12".into())
        );
    }

    #[test]
    fn what_is_no_id_is_told_what_one_looks_like() {
        for text in [
            "",
            "12",
            "nf6yy",
            "nf6yy-",
            "nf6yy-x",
            "nf6yy-0.1",
            "nf6yy-1.",
            "nf6yy-+1",
            "nf6y-1",
            "nf6yu-1",
            "nf6yy-1.2.3",
            "nf6yy-99999999999999999999",
        ] {
            let told = text.parse::<Id>().unwrap_err();
            assert!(told.contains("dwell ps"), "{text}");
        }
    }
}
