//! The key that a server knows its caller by.

use std::fmt;

use zeroize::Zeroizing;

/// The variable that has it, unless another is named.
pub const KEY_VARIABLE: &str = "OPENAI_API_KEY";
/// Bytes of a key.
pub const KEY_MAX_BYTES: usize = 4_096;

/// A bearer key. Wiped when dropped, and shown nowhere: not by `Debug`, in no error, span or log.
#[derive(Clone)]
pub struct ApiKey(Zeroizing<String>);

/// Why there is no key. Names the variable, never what is in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not set, or empty.
    #[error("no key: set {0} to the key that the model's provider gave you")]
    Missing(String),
    /// It is no text that a header can carry.
    #[error(
        "the key in {0} is no key: it has spaces, line ends or other signs that none has, or is too long"
    )]
    Unusable(String),
}

impl ApiKey {
    /// From a variable of the environment. Blanks around it are passed over.
    ///
    /// # Errors
    /// [`KeyError`] names the variable.
    pub fn from_env(variable: &str) -> Result<Self, KeyError> {
        match std::env::var(variable) {
            Ok(text) => Self::parse(text, variable),
            Err(std::env::VarError::NotPresent) => Err(KeyError::Missing(variable.to_owned())),
            Err(std::env::VarError::NotUnicode(_)) => Err(KeyError::Unusable(variable.to_owned())),
        }
    }

    /// From its text; `whence` is named when it is none.
    ///
    /// # Errors
    /// As [`ApiKey::from_env`].
    pub fn parse(text: impl Into<String>, whence: &str) -> Result<Self, KeyError> {
        let text = Zeroizing::new(text.into());
        let key = text.trim();
        if key.is_empty() {
            return Err(KeyError::Missing(whence.to_owned()));
        }
        if key.len() > KEY_MAX_BYTES || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Unusable(whence.to_owned()));
        }
        Ok(Self(Zeroizing::new(key.to_owned())))
    }

    /// As the value of an `Authorization` header, in a buffer that is wiped too.
    pub(super) fn bearer(&self) -> Zeroizing<String> {
        let mut value = Zeroizing::new(String::with_capacity("Bearer ".len() + self.0.len()));
        value.push_str("Bearer ");
        value.push_str(&self.0);
        value
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}
