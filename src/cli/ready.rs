//! The line by which a role says that it serves.

use dwell_messages::{PublicKey, Role};
use dwell_relay::fingerprint;
use serde_json::{Value, json};

use super::args::public_key;

/// The longest ready line a parent reads.
pub(crate) const READY_LINE_MAX_BYTES: u64 = 4096;

/// What a role that serves says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ready {
    pub(crate) role: Role,
    /// Where it listens, if it does.
    pub(crate) address: Option<String>,
    pub(crate) public_key: PublicKey,
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Harness => "harness",
        Role::Executor => "executor",
        Role::Relay => "relay",
    }
}

impl Ready {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "ready": true,
            "role": role_name(self.role),
            "address": self.address,
            "public_key": self.public_key.to_string(),
            "fingerprint": fingerprint(&self.public_key),
        })
    }

    /// The line of a role that was started for this; `None` when it is not such a line.
    pub(crate) fn parse(line: &str, role: Role) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        (value["ready"].as_bool() == Some(true) && value["role"].as_str() == Some(role_name(role)))
            .then_some(())?;
        Some(Self {
            role,
            address: value["address"].as_str().map(str::to_owned),
            public_key: public_key(value["public_key"].as_str()?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            role: Role::Relay,
            address: Some("127.0.0.1:4".into()),
            public_key: PublicKey([9; 32]),
        }
    }

    #[test]
    fn a_ready_line_says_what_was_written() {
        let line = ready().to_json().to_string();
        assert!(line.len() as u64 <= READY_LINE_MAX_BYTES);
        assert_eq!(Ready::parse(&line, Role::Relay), Some(ready()));
        let silent = Ready {
            address: None,
            ..ready()
        };
        assert_eq!(
            Ready::parse(&silent.to_json().to_string(), Role::Relay),
            Some(silent)
        );
    }

    #[test]
    fn a_line_of_another_role_or_of_none_is_refused() {
        let line = ready().to_json().to_string();
        assert_eq!(Ready::parse(&line, Role::Executor), None);
        for line in [
            "",
            "{}",
            "null",
            "[1]",
            "{\"ready\":true,\"role\":\"relay\"}",
            &line[..line.len() - 1],
        ] {
            assert_eq!(Ready::parse(line, Role::Relay), None, "{line}");
        }
    }
}
