//! Why there is no answer, by who has to act.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What of a response or request is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bounded {
    /// The request, as it is written.
    Request,
    /// One message or event of the server.
    Message,
    /// Calls of functions in one response.
    FunctionCalls,
    /// Bytes of one call's arguments.
    Arguments,
    /// Items of one response.
    Items,
    /// Bytes of all items of one response.
    Output,
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "bytes of the request",
            Self::Message => "bytes of one message of the server",
            Self::FunctionCalls => "calls of functions in one response",
            Self::Arguments => "bytes of one call's arguments",
            Self::Items => "items of one response",
            Self::Output => "bytes of one response",
        })
    }
}

/// Which time was over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deadline {
    /// Until there is a connection.
    Connect,
    /// Until the server says something.
    Idle,
    /// For the whole request.
    Total,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "to connect",
            Self::Idle => "between two messages of the server",
            Self::Total => "for the whole request",
        })
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResponsesError {
    /// No connection came about.
    #[error("no connection to {authority}: check the endpoint, and that this machine may reach it")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// What the system or TLS says.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The key is not the server's.
    #[error(
        "the server does not accept the key (HTTP {status}): check which key is set, and what it may use"
    )]
    Unauthorized {
        /// 401 or 403.
        status: u16,
    },
    /// Too many requests, or the quota is used up.
    #[error("the server takes no more requests now (HTTP 429){}: wait, or ask for a higher limit", after(.retry_after))]
    RateLimited {
        /// When it takes some again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The server failed, or what stands before it.
    #[error("the server failed with HTTP {status}: try again later")]
    Server {
        /// 500 to 599.
        status: u16,
    },
    /// Another status than those that are expected.
    #[error("the server answers with HTTP {status}: check the endpoint's path")]
    Status {
        /// The status.
        status: u16,
    },
    /// The server says what is wrong with the request.
    #[error("the server refuses the request: {message} ({code})")]
    Refused {
        /// Its name for it.
        code: String,
        /// In its words.
        message: String,
    },
    /// Something is past its bound.
    #[error("more than {max} {what}: ask for less")]
    TooLarge {
        /// What.
        what: Bounded,
        /// The bound.
        max: usize,
    },
    /// The server does not speak the protocol.
    #[error("the server's answer cannot be read: {what}; check that the endpoint is of the Responses API")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Time was over.
    #[error("no answer in time: {} s {deadline} are over; allow more, or look at the trace", .limit.as_secs_f64())]
    TimedOut {
        /// Which.
        deadline: Deadline,
        /// How much there was.
        limit: Duration,
    },
    /// The connection was lost. What had come until then was handed over; asking again may be charged twice.
    #[error("the connection was lost before the response was whole: ask again")]
    Interrupted,
    /// Prewarming takes a WebSocket, and this session has none.
    #[error("this server has no WebSocket, so there is nothing to warm up: ask without")]
    NothingToWarm,
    /// As many requests wait as may.
    #[error("more than {max} requests wait for this session: wait for one of them, or open another session")]
    Busy {
        /// The bound.
        max: usize,
    },
    /// The session is over, or failed. Whether the request was sent is not known.
    #[error("the session ended before the response did: open another one")]
    Ended,
}

impl ResponsesError {
    /// What a status says by itself; `None` where the server's own words say more.
    pub fn of_status(status: Option<u16>) -> Option<Self> {
        match status? {
            status @ (401 | 403) => Some(Self::Unauthorized { status }),
            429 => Some(Self::RateLimited { retry_after: None }),
            status @ 500..=599 => Some(Self::Server { status }),
            _ => None,
        }
    }

    /// `error.type`, of low cardinality and without anything a server said.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Unauthorized { .. } => "unauthorized",
            Self::RateLimited { .. } => "rate_limited",
            Self::Server { .. } => "server_error",
            Self::Status { .. } => "unexpected_status",
            Self::Refused { .. } => "refused",
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::TimedOut { .. } => "deadline_exceeded",
            Self::Interrupted => "interrupted",
            Self::NothingToWarm => "nothing_to_warm",
            Self::Busy { .. } => "busy",
            Self::Ended => "ended",
        }
    }
}

fn after(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |after| format!(" for {} s", after.as_secs()))
}
