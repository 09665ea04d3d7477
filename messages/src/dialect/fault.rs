//! Errors as the dialect carries them: a number and a text, both of which clients look at.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The error of a response.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Its number.
    pub code: i64,
    /// What went wrong.
    pub message: String,
}

impl Fault {
    /// The message, its place or its argument is wrong.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method.
    pub const UNKNOWN_METHOD: i64 = -32601;
    /// Parameters that cannot be read, or cannot be meant.
    pub const INVALID_PARAMS: i64 = -32602;
    /// It was tried and failed.
    pub const FAILED: i64 = -32603;
    /// No such file.
    pub const NOT_FOUND: i64 = -32004;
    /// Somebody else is connected to the session.
    pub const STILL_ATTACHED: i64 = -32010;

    /// With this number and this text.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The message, its place or its argument is wrong.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(Self::INVALID_REQUEST, message)
    }

    /// Parameters that cannot be read, or cannot be meant.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(Self::INVALID_PARAMS, message)
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Self::FAILED, message)
    }

    /// No such method.
    pub fn unknown_method(method: &str) -> Self {
        let text = format!("exec-server stub does not implement `{method}` yet");
        Self::new(Self::UNKNOWN_METHOD, text)
    }

    /// A file operation failed in the system: a missing file has a number of its own, what the caller may not do or
    /// cannot mean is its request, and everything else is a failure.
    pub fn of_file_errno(errno: i32) -> Self {
        const ENOENT: i32 = 2;
        const EPERM: i32 = 1;
        const EACCES: i32 = 13;
        const EINVAL: i32 = 22;
        let code = match errno {
            ENOENT => Self::NOT_FOUND,
            EPERM | EACCES | EINVAL => Self::INVALID_REQUEST,
            _ => Self::FAILED,
        };
        Self::new(code, system_text(errno))
    }

    /// A command could not be started.
    pub fn of_spawn_errno(errno: i32) -> Self {
        Self::failed(system_text(errno))
    }
}

/// The system's own words, and the number.
fn system_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Fault {}
