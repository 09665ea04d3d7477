//! Who may connect: nobody is asked, or whoever has a token, or whoever has one that was signed. A pure core: the wall
//! clock is an argument.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

/// Bytes of the shortest secret that signs.
pub const SECRET_MIN_BYTES: usize = 32;
/// How far two clocks may be apart unless it is said otherwise.
pub const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Who may connect.
#[derive(Clone, Default)]
pub enum Auth {
    /// Whoever can.
    #[default]
    Anybody,
    /// Whoever has the token of this SHA-256.
    Token([u8; 32]),
    /// Whoever has a token that was signed.
    Signed(Signed),
}

/// What signed tokens must be.
#[derive(Clone)]
pub struct Signed {
    key: Box<hmac::Key>,
    issuer: Option<String>,
    audience: Option<String>,
    skew: Duration,
}

/// Why a secret is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shared secret has {actual} bytes and needs {SECRET_MIN_BYTES}: draw a longer one")]
pub struct ShortSecret {
    /// Its bytes.
    pub actual: usize,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anybody => "Anybody",
            Self::Token(_) => "Token",
            Self::Signed(_) => "Signed",
        })
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").finish_non_exhaustive()
    }
}

impl Auth {
    /// Whoever has this token.
    pub fn token(token: &str) -> Self {
        Self::Token(sha256(token.as_bytes()))
    }

    /// Whether anything is asked of whoever connects.
    pub fn asks(&self) -> bool {
        match self {
            Self::Anybody => false,
            Self::Token(_) | Self::Signed(_) => true,
        }
    }

    /// Judges the `Authorization` of a request.
    ///
    /// # Errors
    /// What to say to whoever sent it.
    pub(super) fn admit(&self, authorization: Option<&str>, now_unix_s: u64) -> Result<(), &'static str> {
        if !self.asks() {
            return Ok(());
        }
        let header = authorization.ok_or("missing websocket bearer token")?;
        let (scheme, token) = header.split_once(' ').ok_or("invalid authorization header")?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err("invalid authorization header");
        }
        match self {
            Self::Anybody => Ok(()),
            Self::Token(hash) => {
                let is_it = sha256(token.as_bytes()).ct_eq(hash);
                if bool::from(is_it) {
                    Ok(())
                } else {
                    Err("invalid websocket bearer token")
                }
            }
            Self::Signed(signed) => signed.admit(token, now_unix_s),
        }
    }
}

impl Signed {
    /// Tokens that were signed with this secret.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(secret: &[u8]) -> Result<Self, ShortSecret> {
        if secret.len() < SECRET_MIN_BYTES {
            return Err(ShortSecret { actual: secret.len() });
        }
        Ok(Self {
            key: Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)),
            issuer: None,
            audience: None,
            skew: CLOCK_SKEW,
        })
    }

    /// Only those of this issuer.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Only those for this audience.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// How far two clocks may be apart.
    #[must_use]
    pub fn clock_skew(mut self, skew: Duration) -> Self {
        self.skew = skew;
        self
    }

    fn admit(&self, token: &str, now_unix_s: u64) -> Result<(), &'static str> {
        const INVALID: &str = "invalid websocket jwt";
        let (signed, signature) = token.rsplit_once('.').ok_or(INVALID)?;
        let (header, claims) = signed.split_once('.').ok_or(INVALID)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| INVALID)?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).map_err(|_| INVALID)?;
        let part = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| INVALID)?;
            serde_json::from_slice::<Value>(&bytes).map_err(|_| INVALID)
        };
        let (header, claims) = (part(header)?, part(claims)?);
        if header.get("alg").and_then(Value::as_str) != Some("HS256") {
            return Err(INVALID);
        }
        let skew = self.skew.as_secs();
        let expires = claims.get("exp").and_then(Value::as_u64).ok_or(INVALID)?;
        if now_unix_s > expires.saturating_add(skew) {
            return Err("expired websocket jwt");
        }
        if let Some(begins) = claims.get("nbf") {
            let begins = begins.as_u64().ok_or(INVALID)?;
            if begins > now_unix_s.saturating_add(skew) {
                return Err("websocket jwt is not valid yet");
            }
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err("websocket jwt issuer mismatch");
        }
        if let Some(audience) = &self.audience
            && !names(claims.get("aud"), audience)
        {
            return Err("websocket jwt audience mismatch");
        }
        Ok(())
    }
}

/// Whether a claim is this text, or a list with it.
fn names(claim: Option<&Value>, wanted: &str) -> bool {
    match claim {
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(texts)) => texts.iter().any(|text| text.as_str() == Some(wanted)),
        _ => false,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
