//! Why a command line was not done, and what to do next.

use std::error::Error;
use std::io::Write as _;

use serde_json::{Value, json};

use super::exit;
use super::output;

/// An error as the user sees it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// For programs: one word of a small set.
    kind: &'static str,
    message: String,
    /// What to do next, in lines that can be copied.
    advice: Vec<String>,
    exit: u8,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            advice: Vec::new(),
            exit: exit::OWN_ERROR,
        }
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// What failed, followed by its causes.
    pub(crate) fn because(kind: &'static str, what: &str, error: &dyn Error) -> Self {
        Self::new(kind, format!("{what}: {}", chain(error)))
    }

    /// An error that says itself what failed.
    pub(crate) fn of(kind: &'static str, error: &dyn Error) -> Self {
        Self::new(kind, chain(error))
    }

    pub(crate) fn advise(mut self, line: impl Into<String>) -> Self {
        self.advice.push(line.into());
        self
    }

    pub(crate) fn exits(mut self, code: u8) -> Self {
        self.exit = code;
        self
    }

    /// What it is about, before what failed.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What failed.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether only one command is concerned: it cannot be started, and everything else is as it was.
    pub(crate) fn is_about_the_command(&self) -> bool {
        matches!(self.exit, exit::CANNOT_EXECUTE | exit::NOT_FOUND)
    }

    /// The user asked dwell to end.
    pub(crate) fn interrupted() -> Self {
        Self::new("interrupted", "ended before it was done").exits(exit::INTERRUPTED)
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> u8 {
        if json {
            output::print_json(&self.to_json());
        }
        let mut err = std::io::stderr().lock();
        // Without a standard error there is still the exit code.
        drop(writeln!(err, "dwell: {}", output::printable(&self.message)));
        for line in &self.advice {
            drop(writeln!(err, "  {}", output::printable(line)));
        }
        self.exit
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "error": {
            "kind": self.kind, "message": self.message, "advice": self.advice, "exit_code": self.exit,
        } })
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_an_error_has_one_shape() {
        let failure = Failure::new("unreachable", "nobody answers")
            .advise("start it")
            .exits(127);
        assert_eq!(
            failure.to_json(),
            json!({ "error": {
                "kind": "unreachable", "message": "nobody answers", "advice": ["start it"], "exit_code": 127,
            } })
        );
    }

    #[test]
    fn causes_follow_what_they_caused() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::fmt::Error);
        let text = Failure::because("x", "first", &Outer(std::fmt::Error)).message;
        assert_eq!(text, format!("first: outer: {}", std::fmt::Error));
    }
}
