//! The relay's allow file: who may use a relay that others can reach.

use std::path::Path;

use dwell_messages::PublicKey;
use dwell_relay::rendezvous::{Admission, TokenHash};

/// An allow file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AllowError {
    /// It cannot be read.
    #[error("the allow file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is not understood. Nothing of the file is used.
    #[error(
        "line {line} of the allow file is not understood: write `executor <64 hex digits>` or `harness <64 hex digits \
         of the token's hash>`, and comments behind #"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
    },
}

/// Reads an allow file: all of it or nothing.
///
/// # Errors
/// `AllowError`, with the line.
pub fn load(path: &Path) -> Result<Admission, AllowError> {
    let text = std::fs::read_to_string(path).map_err(|source| AllowError::Read {
        path: path.display().to_string(),
        source,
    })?;
    parse(&text)
}

fn parse(text: &str) -> Result<Admission, AllowError> {
    let (mut executors, mut harness_tokens) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let bad = || AllowError::Line { line: index + 1 };
        let (role, value) = line.split_once(char::is_whitespace).ok_or_else(bad)?;
        let value: PublicKey = value.trim().parse().map_err(|_| bad())?;
        match role {
            "executor" => executors.push(value),
            "harness" => harness_tokens.push(TokenHash(value.0)),
            _ => return Err(bad()),
        }
    }
    Ok(Admission::Listed {
        executors,
        harness_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_file_is_read_whole_or_its_bad_line_is_named() {
        let key = "ab".repeat(32);
        let good = format!("# who\nexecutor {key} # lab\n\nharness {key}\n");
        let Ok(Admission::Listed {
            executors,
            harness_tokens,
        }) = parse(&good)
        else {
            panic!("it parses")
        };
        assert_eq!((executors.len(), harness_tokens.len()), (1, 1));
        for bad in ["executor", "executor xy", "relay "] {
            let text = format!("executor {key}\n{bad}");
            assert!(matches!(parse(&text), Err(AllowError::Line { line: 2 })), "{bad}");
        }
    }
}
