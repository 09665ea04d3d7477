//! The one line that carries everything a client needs to trust an executor, and to be trusted by it.

use std::fmt;

use dwell_messages::PublicKey;
use dwell_relay::pairing::{PAIRING_CODE_BYTES, authorization};
use dwell_relay::{Randomness, random::RandomnessFailed};
use zeroize::Zeroizing;

use super::hex::{key_from_hex, push_hex};
use super::known::{ExecutorName, KnownExecutor, KnownRoute};
use super::low_order::is_low_order;

/// What the line begins with, and the version of its format with it.
const SCHEME: &str = "dwell+";

/// A one-time code: who presents it once, in time, is listed. `Debug` does not show it, and it is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode(Zeroizing<[u8; PAIRING_CODE_BYTES]>);

impl PairingCode {
    /// Draws a fresh one.
    ///
    /// # Errors
    /// Without randomness there is no code.
    pub fn generate(rng: &mut dyn Randomness) -> Result<Self, RandomnessFailed> {
        let mut code = Zeroizing::new([0; PAIRING_CODE_BYTES]);
        rng.fill(&mut *code)?;
        Ok(Self(code))
    }

    /// Its bytes.
    pub fn expose(&self) -> &[u8; PAIRING_CODE_BYTES] {
        &self.0
    }

    /// What message 1 carries to present it.
    pub fn authorization(&self) -> Vec<u8> {
        authorization(&self.0)
    }
}

impl From<[u8; PAIRING_CODE_BYTES]> for PairingCode {
    fn from(code: [u8; PAIRING_CODE_BYTES]) -> Self {
        Self(Zeroizing::new(code))
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingCode(..)")
    }
}

/// An invitation: `dwell+relay:NAME:KEY:CODE@ADDRESS`, or `dwell+direct:` for an executor that listens itself. It needs
/// no quoting in a shell. `Display` shows the code: print it for its reader alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustLine {
    /// How the executor calls itself.
    pub name: ExecutorName,
    /// The key it proves.
    pub key: PublicKey,
    /// Where it is reached.
    pub route: KnownRoute,
    /// What lists the client that presents it.
    pub code: PairingCode,
}

impl TrustLine {
    /// From its text.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text
            .trim()
            .strip_prefix(SCHEME)
            .ok_or("a line to trust begins with dwell+relay: or dwell+direct:")?;
        let (who, address) = rest
            .split_once('@')
            .ok_or("the line has no address: it was cut")?;
        let mut parts = who.split(':');
        let (Some(way), Some(name), Some(key), Some(code), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err("the line has a way, a name, a key and a code before its address: it was cut");
        };
        let key = key_from_hex(key).ok_or("the key in the line is not 64 hexadecimal digits: it was cut")?;
        if is_low_order(&key) {
            return Err("the key in the line is a point of low order and nobody's");
        }
        let code =
            code_from_hex(code).ok_or("the code in the line is not 32 hexadecimal digits: it was cut")?;
        Ok(Self {
            name: ExecutorName::new(name)?,
            key: PublicKey(key),
            route: KnownRoute::parse(way, address)?,
            code: PairingCode(code),
        })
    }

    /// What is pinned, under another name if one is given.
    pub fn known(&self, name: Option<ExecutorName>) -> KnownExecutor {
        KnownExecutor {
            name: name.unwrap_or_else(|| self.name.clone()),
            key: self.key,
            route: Some(self.route.clone()),
        }
    }
}

impl fmt::Display for TrustLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, address) = self.route.parts();
        let mut key = String::new();
        push_hex(&mut key, &self.key.0);
        write!(f, "{SCHEME}{way}:{}:{key}:", self.name)?;
        for byte in self.code.expose() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "@{address}")
    }
}

fn code_from_hex(text: &str) -> Option<Zeroizing<[u8; PAIRING_CODE_BYTES]>> {
    // The digits of a key are twice as many.
    let doubled = Zeroizing::new(format!("{text}{text}"));
    let bytes = Zeroizing::new(key_from_hex(&doubled)?);
    let mut code = Zeroizing::new([0; PAIRING_CODE_BYTES]);
    code.copy_from_slice(&bytes[..PAIRING_CODE_BYTES]);
    Some(code)
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
