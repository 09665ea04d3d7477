//! The payloads of the small clear frames: RESET and REFUSED. Unauthenticated, so reported and never acted upon.

use bytes::{Buf, BufMut, BytesMut};

use crate::preamble::{SUITES, WIRE_VERSION_MAX, WIRE_VERSION_MIN};

/// Longest text in a RESET or REFUSED frame, in bytes of UTF-8.
pub const CONTROL_TEXT_MAX_BYTES: usize = 256;
/// Most suites a REFUSED frame lists.
pub const REFUSED_SUITES_MAX: usize = 8;

/// Declares a set of wire codes where an unknown number is kept as it came.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A number this build does not know, from a newer peer.
            Other(u16),
        }

        impl $name {
            /// The code with this number.
            pub const fn from_wire(value: u16) -> Self {
                match value {
                    $($value => Self::$variant,)*
                    other => Self::Other(other),
                }
            }

            /// This code's number.
            pub const fn to_wire(self) -> u16 {
                match self {
                    $(Self::$variant => $value,)*
                    Self::Other(other) => other,
                }
            }
        }
    };
}

codes! {
    /// Why a stream is over.
    ResetCode {
        /// Its owner closed it.
        Closed = 1,
        /// No such executor here, or not for you: one answer for unknown, offline, not allowed and garbage.
        Unavailable = 2,
        /// The other end broke the protocol, or a record did not open.
        Protocol = 3,
        /// More was sent than the window allows.
        WindowOverrun = 4,
        /// The other end's connection is gone.
        PeerGone = 5,
        /// The executor registered again: dial again.
        Superseded = 6,
        /// The other end is shutting down.
        ShuttingDown = 7,
        /// The handshake was not over in time.
        Deadline = 8,
        /// The link's keys have sealed all they may: dial again.
        Exhausted = 9,
        /// A limit on streams or connections is reached: try again later.
        Overloaded = 10,
    }
}

codes! {
    /// Why something is not served.
    RefusalReason {
        /// No wire version in common.
        Version = 1,
        /// The suite is not served.
        Suite = 2,
        /// A newer registration of the same executor is in force.
        Superseded = 3,
        /// The registration was not proven, or its key is not admitted.
        Registration = 4,
        /// This end does not serve that role.
        Role = 5,
    }
}

/// A RESET frame's payload: code u16, then up to 256 bytes of UTF-8 for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reset {
    /// Why.
    pub code: ResetCode,
    /// For people; may be empty, never trusted.
    pub text: String,
}

/// A REFUSED frame's payload: reason u16, version_min u16, version_max u16, count u8, that many u16 suites, text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the other end refuses this connection ({reason:?}: {text}): {}", self.advice())]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The oldest wire version served.
    pub version_min: u16,
    /// The newest wire version served.
    pub version_max: u16,
    /// The suites served, at most [`REFUSED_SUITES_MAX`].
    pub suites: Vec<u16>,
    /// For people; never trusted.
    pub text: String,
}

impl Refusal {
    /// What to do, which depends on the reason.
    fn advice(&self) -> String {
        let Self {
            version_min,
            version_max,
            suites,
            ..
        } = self;
        match self.reason {
            RefusalReason::Version | RefusalReason::Suite => format!(
                "it serves wire versions {version_min} to {version_max} and suites {suites:?}, this build versions \
                 {WIRE_VERSION_MIN} to {WIRE_VERSION_MAX} and suites {SUITES:?}; upgrade the older side"
            ),
            RefusalReason::Superseded => "stop the other executor that uses this key, or give one of them its own".into(),
            RefusalReason::Registration => {
                "its operator adds `executor KEY`, with the key that `dwell key --role executor` prints here, to the relay's \
                 list of who is allowed"
                    .into()
            }
            RefusalReason::Role => "check that the address is a relay's here, and an executor's where one is meant".into(),
            RefusalReason::Other(_) => "upgrade this side to learn what that means".into(),
        }
    }
}

/// A clear control payload could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// It ends too early.
    #[error("a control frame of {actual} bytes ends before its fields do: the bytes are damaged")]
    Truncated {
        /// Bytes of payload.
        actual: usize,
    },
    /// Its text is too long or no UTF-8.
    #[error(
        "a control frame's text is longer than {CONTROL_TEXT_MAX_BYTES} bytes or not UTF-8: the bytes are damaged"
    )]
    Text,
    /// It lists too many suites.
    #[error("a refusal lists {actual} suites and the limit is {REFUSED_SUITES_MAX}: the bytes are damaged")]
    Suites {
        /// How many it lists.
        actual: u8,
    },
}

impl Reset {
    /// A reset without text.
    pub fn new(code: ResetCode) -> Self {
        Self {
            code,
            text: String::new(),
        }
    }

    /// A reset with a text for people, cut to [`CONTROL_TEXT_MAX_BYTES`].
    pub fn with_text(code: ResetCode, text: &str) -> Self {
        Self {
            code,
            text: clip(text).to_owned(),
        }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.code.to_wire());
        out.put_slice(clip(&self.text).as_bytes());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn decode(mut payload: &[u8]) -> Result<Self, ControlError> {
        if payload.len() < 2 {
            return Err(ControlError::Truncated {
                actual: payload.len(),
            });
        }
        let code = ResetCode::from_wire(payload.get_u16());
        Ok(Self {
            code,
            text: text(payload)?,
        })
    }
}

impl Refusal {
    /// A refusal that names what this build supports.
    pub fn ours(reason: RefusalReason, text: &str) -> Self {
        Self {
            reason,
            version_min: WIRE_VERSION_MIN,
            version_max: WIRE_VERSION_MAX,
            suites: SUITES.to_vec(),
            text: clip(text).to_owned(),
        }
    }

    /// Appends the payload; suites past [`REFUSED_SUITES_MAX`] are left out.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.reason.to_wire());
        out.put_u16(self.version_min);
        out.put_u16(self.version_max);
        let suites = &self.suites[..self.suites.len().min(REFUSED_SUITES_MAX)];
        out.put_u8(u8::try_from(suites.len()).expect("at most eight suites are listed"));
        suites.iter().for_each(|suite| out.put_u16(*suite));
        out.put_slice(clip(&self.text).as_bytes());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn decode(mut payload: &[u8]) -> Result<Self, ControlError> {
        let actual = payload.len();
        if actual < 7 {
            return Err(ControlError::Truncated { actual });
        }
        let reason = RefusalReason::from_wire(payload.get_u16());
        let (version_min, version_max) = (payload.get_u16(), payload.get_u16());
        let count = payload.get_u8();
        if usize::from(count) > REFUSED_SUITES_MAX {
            return Err(ControlError::Suites { actual: count });
        }
        if payload.len() < usize::from(count) * 2 {
            return Err(ControlError::Truncated { actual });
        }
        let suites = (0..count).map(|_| payload.get_u16()).collect();
        Ok(Self {
            reason,
            version_min,
            version_max,
            suites,
            text: text(payload)?,
        })
    }
}

/// At most [`CONTROL_TEXT_MAX_BYTES`] of it, never half a character.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(CONTROL_TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn text(bytes: &[u8]) -> Result<String, ControlError> {
    if bytes.len() > CONTROL_TEXT_MAX_BYTES {
        return Err(ControlError::Text);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ControlError::Text)?;
    // It goes to logs and terminals, and whoever wrote it is not known.
    Ok(text.chars().filter(|character| !character.is_control()).collect())
}
