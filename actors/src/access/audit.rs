//! What is written down about who asked for what: one JSON object a line, and a bound on how many.

use std::time::Instant;

use dwell_messages::PublicKey;
use dwell_relay::fingerprint;
use serde::Serialize;

use crate::keys::date::format_utc;

/// Lines of one kind of refusal a second, in the long run. What comes on top is counted in the next one.
pub const AUDIT_LINES_PER_S: u32 = 20;
/// Lines that may come at once before that.
pub const AUDIT_BURST_LINES: u32 = 200;
/// The longest program name that is written.
const PROGRAM_MAX_CHARS: usize = 64;

/// What a line is about.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A client asked to be served.
    Authorize { ok: bool, why: &'static str },
    /// A client was listed by a one-time code, or was to be.
    Pair { ok: bool, why: &'static str },
    /// A session began.
    Begin,
    /// A client took a session over, or was not given one that it asked for.
    Take { ok: bool, why: &'static str },
    /// A session ended.
    End { why: &'static str },
    /// A call was refused.
    Refused {
        method: &'static str,
        program: Option<String>,
        why: String,
    },
    /// The list of clients changed, or could not be read again.
    List { ok: bool, why: String },
}

/// What may be many: each kind has a rate of its own, so that none can crowd another out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crowd {
    /// Clients that are not served: anybody can be one.
    Strangers,
    /// Calls that are refused.
    Calls,
}

impl What {
    /// The crowd it belongs to. What else there is, is bounded by the sessions there can be.
    pub(crate) fn crowd(&self) -> Option<Crowd> {
        match self {
            Self::Authorize { ok: false, .. } | Self::Pair { ok: false, .. } => Some(Crowd::Strangers),
            Self::Refused { .. } | Self::Take { ok: false, .. } => Some(Crowd::Calls),
            Self::Take { ok: true, .. }
            | Self::Authorize { ok: true, .. }
            | Self::Pair { ok: true, .. }
            | Self::Begin
            | Self::End { .. }
            | Self::List { .. } => None,
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) unix_ms: u64,
    pub(crate) client: Option<PublicKey>,
    pub(crate) handshake: Option<[u8; 32]>,
    pub(crate) what: What,
    /// Lines before this one that were left out.
    pub(crate) left_out: u64,
}

impl Entry {
    /// The line, with its end.
    pub(crate) fn to_line(&self) -> String {
        let seconds = format_utc(self.unix_ms / 1_000);
        let time = format!("{}.{:03}Z", seconds.trim_end_matches('Z'), self.unix_ms % 1_000);
        let (what, ok, why) = match &self.what {
            What::Authorize { ok, why } => ("authorize", *ok, *why),
            What::Pair { ok, why } => ("pair", *ok, *why),
            What::Begin => ("session_begin", true, ""),
            What::Take { ok, why } => ("session_take", *ok, *why),
            What::End { why } => ("session_end", true, *why),
            What::Refused { why, .. } => ("call", false, why.as_str()),
            What::List { ok, why } => ("list", *ok, why.as_str()),
        };
        let (method, program) = match &self.what {
            What::Refused { method, program, .. } => (Some(*method), program.as_deref()),
            What::Authorize { .. }
            | What::Pair { .. }
            | What::Begin
            | What::Take { .. }
            | What::End { .. }
            | What::List { .. } => (None, None),
        };
        let fields = Fields {
            time,
            what,
            result: if ok { "ok" } else { "refused" },
            why: Some(why).filter(|why| !why.is_empty()),
            client: self.client.as_ref().map(fingerprint),
            handshake: self.handshake.as_ref().map(hex),
            method,
            program,
            left_out: Some(self.left_out).filter(|left_out| *left_out > 0),
        };
        let mut line = serde_json::to_string(&fields).expect("texts and numbers have a JSON form");
        line.push('\n');
        line
    }
}

/// A line's fields, in the order of reading.
#[derive(Serialize)]
struct Fields<'a> {
    time: String,
    what: &'a str,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

/// The last part of a program's path, cut to a bound: arguments and directories stay out of the file.
pub(crate) fn program_name(argv0: &[u8]) -> String {
    let name = argv0.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    String::from_utf8_lossy(name)
        .chars()
        .take(PROGRAM_MAX_CHARS)
        .collect()
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lets through so many lines a second: strangers cost nothing to be, and must not write away what matters.
#[derive(Debug)]
pub(crate) struct Throttle {
    tokens: f64,
    at: Instant,
    left_out: u64,
}

impl Throttle {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            tokens: f64::from(AUDIT_BURST_LINES),
            at: now,
            left_out: 0,
        }
    }

    /// Whether a line may be written, and how many were not since the last one.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let earned = passed * f64::from(AUDIT_LINES_PER_S);
        self.tokens = (self.tokens + earned).min(f64::from(AUDIT_BURST_LINES));
        if self.tokens < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }

    /// A line that was let through could not be written.
    pub(crate) fn lost(&mut self, left_out: u64) {
        self.left_out += left_out + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn entry(what: What) -> Entry {
        Entry {
            unix_ms: 1_801_398_896_007,
            client: Some(PublicKey([1; 32])),
            handshake: Some([0xab; 32]),
            what,
            left_out: 0,
        }
    }

    #[test]
    fn a_line_says_who_what_and_with_which_result() {
        let line = entry(What::Refused {
            method: "Process/Start",
            program: Some("ls".into()),
            why: "lacks spawn".into(),
        })
        .to_line();
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        assert!(line.starts_with("{\"time\":"), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2027-01-31T12:34:56.007Z");
        assert_eq!(value["client"], fingerprint(&PublicKey([1; 32])));
        assert_eq!(value["handshake"], "ab".repeat(32));
        assert_eq!(
            (&value["what"], &value["result"]),
            (&"call".into(), &"refused".into())
        );
        assert_eq!(
            (&value["method"], &value["program"]),
            (&"Process/Start".into(), &"ls".into())
        );
        assert!(value.get("left_out").is_none());
    }

    #[test]
    fn of_a_command_only_the_programs_name_is_written() {
        assert_eq!(program_name(b"/usr/secret dir/ls"), "ls");
        assert_eq!(program_name(b"ls"), "ls");
        assert_eq!(program_name(b"/usr/"), "");
        assert_eq!(program_name(&[b'x'; 1_000]).len(), PROGRAM_MAX_CHARS);
    }

    #[test]
    fn a_flood_is_cut_to_a_rate_and_what_was_left_out_is_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let through = (0..10_000).filter(|_| throttle.admit(start).is_some()).count();
        assert_eq!(through, AUDIT_BURST_LINES as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.admit(later), Some(10_000 - u64::from(AUDIT_BURST_LINES)));
        let through = (0..10_000).filter(|_| throttle.admit(later).is_some()).count();
        assert_eq!(through, AUDIT_LINES_PER_S as usize - 1);
    }

    proptest! {
        #[test]
        fn whatever_a_program_is_called_a_line_is_one_json_object(argv0 in proptest::collection::vec(any::<u8>(), 0..200)) {
            let line = entry(What::Refused { method: "x", program: Some(program_name(&argv0)), why: String::new() }).to_line();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(serde_json::from_str::<Value>(&line).is_ok());
        }
    }
}
