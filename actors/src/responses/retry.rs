//! When a request is sent again, and how. Pure.

use std::time::Duration;

use super::error::ResponsesError;

/// Times that one request is sent, the first included.
pub const ATTEMPTS_MAX: u32 = 3;
/// The wait before a third attempt. The second follows at once: mostly a connection that had died unnoticed.
pub const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How an attempt failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The server answered the question for a WebSocket with something else than that it has one.
    UpgradeRefused(u16),
    /// The connection ended, or said nonsense, before it was a WebSocket.
    UpgradeFailed,
    /// No connection came about: a POST would go the same way.
    NotConnected(ResponsesError),
    /// The connection was lost while nothing of the response had come.
    LostBeforeContent,
    /// It was lost after that.
    LostAfterContent,
    /// The server, or a bound, ended the response.
    Answered {
        /// With this.
        error: ResponsesError,
        /// Whether something of the response had come.
        content: bool,
    },
}

impl Failure {
    /// `error.type` of a connection that did not come about, or did not last.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UpgradeRefused(_) => "upgrade_refused",
            Self::UpgradeFailed => "upgrade_failed",
            Self::NotConnected(error) | Self::Answered { error, .. } => error.kind(),
            Self::LostBeforeContent | Self::LostAfterContent => ResponsesError::Interrupted.kind(),
        }
    }
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Send it whole on the same connection.
    SameConnection,
    /// Send it on a fresh connection, after a pause.
    FreshConnection(Duration),
    /// Post it, and all that follow: this server has no WebSocket for us.
    Post,
    /// Tell the caller.
    Fail(ResponsesError),
}

/// Decides on an attempt that failed; `attempt` counts from 1.
pub fn verdict(failure: Failure, attempt: u32) -> Verdict {
    let may_repeat = attempt < ATTEMPTS_MAX;
    let pause = if attempt <= 1 { Duration::ZERO } else { RETRY_PAUSE };
    match failure {
        // It would say the same to a POST.
        Failure::UpgradeRefused(401) => Verdict::Fail(ResponsesError::Unauthorized { status: 401 }),
        Failure::UpgradeRefused(429) => Verdict::Fail(ResponsesError::RateLimited { retry_after: None }),
        Failure::UpgradeRefused(_) | Failure::UpgradeFailed => Verdict::Post,
        Failure::NotConnected(error) => Verdict::Fail(error),
        Failure::LostBeforeContent if may_repeat => Verdict::FreshConnection(pause),
        Failure::LostBeforeContent | Failure::LostAfterContent => Verdict::Fail(ResponsesError::Interrupted),
        Failure::Answered {
            error: ResponsesError::Refused { code, .. },
            content: false,
        } if may_repeat && code == "previous_response_not_found" => Verdict::SameConnection,
        Failure::Answered {
            error: ResponsesError::Refused { code, .. },
            content: false,
        } if may_repeat && code == "websocket_connection_limit_reached" => Verdict::FreshConnection(pause),
        Failure::Answered { error, .. } => Verdict::Fail(error),
    }
}
