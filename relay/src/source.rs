//! Where a connection comes from, as coarsely as strangers are told apart, and how a relay attests it without telling it.

use std::net::IpAddr;

use ring::hmac;

use crate::random::{Randomness, RandomnessFailed};

/// Bytes of a source's tag.
pub const SOURCE_TAG_BYTES: usize = 8;

/// Where a connection comes from. An IPv6 address counts by its /64, which is what one household or host is given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// This very process.
    Local,
    /// An IPv4 address, also one written as IPv6.
    V4([u8; 4]),
    /// The first 64 bits of an IPv6 address.
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&address.octets()[..8]);
                Self::V6(prefix)
            }
        }
    }
}

/// A source by a relay's word: the same for the same source as long as the relay lives, and nothing that can be traced
/// back to an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SourceTag(pub [u8; SOURCE_TAG_BYTES]);

/// Makes the tags of one life of a relay.
pub struct SourceTags(hmac::Key);

impl SourceTags {
    /// Tags of another life mean nothing here.
    ///
    /// # Errors
    /// [`RandomnessFailed`].
    pub fn draw(rng: &mut dyn Randomness) -> Result<Self, RandomnessFailed> {
        let mut key = [0; 32];
        rng.fill(&mut key)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The tag of a source.
    pub fn of(&self, source: &Source) -> SourceTag {
        let mut message = [0; 9];
        match source {
            Source::Local => {}
            Source::V4(address) => {
                message[0] = 4;
                message[1..5].copy_from_slice(address);
            }
            Source::V6(prefix) => {
                message[0] = 6;
                message[1..].copy_from_slice(prefix);
            }
        }
        let whole = hmac::sign(&self.0, &message);
        let mut tag = [0; SOURCE_TAG_BYTES];
        tag.copy_from_slice(&whole.as_ref()[..SOURCE_TAG_BYTES]);
        SourceTag(tag)
    }
}

impl std::fmt::Debug for SourceTags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourceTags")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandomness;

    fn source(text: &str) -> Source {
        Source::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_the_first_half_of_an_ipv6_one() {
        assert_eq!(source("192.0.2.7"), source("::ffff:192.0.2.7"));
        assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    #[test]
    fn a_tag_tells_sources_apart_within_one_life_of_a_relay_and_says_nothing_beyond() {
        let tags = SourceTags::draw(&mut OsRandomness::new()).unwrap();
        let (one, other) = (source("192.0.2.7"), source("192.0.2.8"));
        assert_eq!(tags.of(&one), tags.of(&one));
        assert_ne!(tags.of(&one), tags.of(&other));
        assert_ne!(tags.of(&Source::V4([0; 4])), tags.of(&Source::Local));
        let next_life = SourceTags::draw(&mut OsRandomness::new()).unwrap();
        assert_ne!(tags.of(&one), next_life.of(&one));
    }
}
