//! Sealing and opening records in place: AES-256-GCM under the two keys of a finished handshake.
//!
//! The nonce is Noise's: four zero bytes and a big-endian counter that begins at zero and never repeats. A record that
//! does not open is the end of its link: skipping one would let a relay choose which records count.

use bytes::BytesMut;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Most plaintext in one record: chunk headers and bytes.
pub const RECORD_PLAINTEXT_MAX_BYTES: usize = 32 * 1024;
/// What the seal adds.
pub const TAG_BYTES: usize = 16;
/// Records one key may seal: twice as many as after which it is renewed, and its link ends when it was not.
pub const RECORDS_PER_KEY_MAX: u64 = 1 << 33;
/// Plaintext bytes one key may seal: likewise.
pub const BYTES_PER_KEY_MAX: u64 = 128 << 30;

/// How much one key may seal or open. Only tests lower it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealLimits {
    /// In records.
    pub records_max: u64,
    /// In bytes of plaintext.
    pub bytes_max: u64,
}

impl Default for SealLimits {
    fn default() -> Self {
        Self {
            records_max: RECORDS_PER_KEY_MAX,
            bytes_max: BYTES_PER_KEY_MAX,
        }
    }
}

/// A record could not be sealed or opened. Fatal for the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Tampered with, out of order, replayed, or sealed by someone else.
    #[error(
        "record {record} does not open: it was changed, lost, repeated or reordered on the way; dial again"
    )]
    BadSeal {
        /// Which record was expected.
        record: u64,
    },
    /// The key has done all it may.
    #[error(
        "this link's key has handled {records} records and {bytes} bytes, which is its limit: dial again"
    )]
    Exhausted {
        /// Records so far.
        records: u64,
        /// Plaintext bytes so far.
        bytes: u64,
    },
    /// The record is longer than any may be.
    #[error("a record of {actual} bytes, and {RECORD_PLAINTEXT_MAX_BYTES} of plaintext are allowed")]
    TooLong {
        /// Plaintext bytes.
        actual: usize,
    },
}

/// One direction's key and its counters.
struct DirectionKey {
    key: LessSafeKey,
    records: u64,
    bytes: u64,
    limits: SealLimits,
}

impl DirectionKey {
    fn new(key: &Zeroizing<[u8; 32]>, limits: SealLimits) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &**key).expect("an AES-256 key has 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            records: 0,
            bytes: 0,
            limits,
        }
    }

    /// The last nonce, 2^64 - 1, is Noise's own: with any limits the count stops before it and never wraps.
    fn admit(&self, plaintext: usize) -> Result<(), RecordError> {
        if plaintext > RECORD_PLAINTEXT_MAX_BYTES {
            return Err(RecordError::TooLong { actual: plaintext });
        }
        let bytes = self.bytes.saturating_add(plaintext as u64);
        if self.records >= self.limits.records_max || bytes > self.limits.bytes_max {
            return Err(RecordError::Exhausted {
                records: self.records,
                bytes: self.bytes,
            });
        }
        Ok(())
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.records.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn count(&mut self, plaintext: usize) {
        self.records += 1;
        self.bytes += plaintext as u64;
    }
}

/// Seals this side's records.
pub struct Sealer(DirectionKey);

impl Sealer {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>, limits: SealLimits) -> Self {
        Self(DirectionKey::new(key, limits))
    }

    /// Records sealed so far.
    pub fn records(&self) -> u64 {
        self.0.records
    }

    /// Plaintext bytes sealed so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// As if so many records had been sealed.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, records: u64) {
        self.0.records = records;
    }

    /// Whether a record of this much plaintext may still be sealed.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`], [`RecordError::TooLong`].
    pub fn admit(&self, plaintext: usize) -> Result<(), RecordError> {
        self.0.admit(plaintext)
    }

    /// Seals `buffer[start..]` where it lies and appends the tag.
    ///
    /// # Errors
    /// As [`Sealer::admit`]; the buffer is then unchanged.
    pub fn seal_in_place(&mut self, buffer: &mut BytesMut, start: usize) -> Result<(), RecordError> {
        let plaintext = buffer.len() - start;
        self.0.admit(plaintext)?;
        let tag = self
            .0
            .key
            .seal_in_place_separate_tag(self.0.nonce(), Aad::empty(), &mut buffer[start..])
            .expect("a record is far below what AES-GCM can seal at once");
        buffer.extend_from_slice(tag.as_ref());
        self.0.count(plaintext);
        Ok(())
    }
}

/// Opens the peer's records, in order. After one failure it opens nothing any more.
pub struct Opener {
    key: DirectionKey,
    failed: Option<RecordError>,
}

impl Opener {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>, limits: SealLimits) -> Self {
        Self {
            key: DirectionKey::new(key, limits),
            failed: None,
        }
    }

    /// Records opened so far.
    pub fn records(&self) -> u64 {
        self.key.records
    }

    /// Plaintext bytes opened so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.key.bytes
    }

    /// As if so many records had been opened.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, records: u64) {
        self.key.records = records;
    }

    /// Opens a record where it lies; what remains is the plaintext.
    ///
    /// # Errors
    /// [`RecordError`], and the same one ever after.
    pub fn open_in_place(&mut self, record: &mut BytesMut) -> Result<(), RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.try_open(record)
            .inspect_err(|error| self.failed = Some(*error))
    }

    fn try_open(&mut self, record: &mut BytesMut) -> Result<(), RecordError> {
        let bad = RecordError::BadSeal {
            record: self.key.records,
        };
        let plaintext = record.len().checked_sub(TAG_BYTES).ok_or(bad)?;
        self.key.admit(plaintext)?;
        self.key
            .key
            .open_in_place(self.key.nonce(), Aad::empty(), record)
            .map_err(|_| bad)?;
        record.truncate(plaintext);
        self.key.count(plaintext);
        Ok(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("records", &self.0.records)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("records", &self.key.records)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(limits: SealLimits, records: u64) -> (Sealer, Opener) {
        let key = Zeroizing::new([7; 32]);
        let (mut sealer, mut opener) = (Sealer::new(&key, limits), Opener::new(&key, limits));
        sealer.skip_to(records);
        opener.skip_to(records);
        (sealer, opener)
    }

    fn carry(sealer: &mut Sealer, opener: &mut Opener) -> Result<BytesMut, RecordError> {
        let mut record = BytesMut::from(&b"x"[..]);
        sealer.seal_in_place(&mut record, 0)?;
        let sealed = record.clone();
        opener.open_in_place(&mut record)?;
        assert_eq!(&record[..], b"x");
        Ok(sealed)
    }

    #[test]
    fn a_nonce_counts_on_past_32_bits() {
        let (mut sealer, mut opener) = pair(SealLimits::default(), u64::from(u32::MAX) - 1);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(carry(&mut sealer, &mut opener).unwrap());
        }
        assert_eq!(sealer.records(), u64::from(u32::MAX) + 3);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4, "no nonce twice, and none of the first again");
        let (mut sealer, mut opener) = pair(SealLimits::default(), 0);
        assert!(!seen.contains(&carry(&mut sealer, &mut opener).unwrap()));
    }

    #[test]
    fn the_last_nonce_is_never_used_and_nothing_wraps() {
        let without = SealLimits {
            records_max: u64::MAX,
            bytes_max: u64::MAX,
        };
        let (mut sealer, mut opener) = pair(without, u64::MAX - 1);
        assert!(
            carry(&mut sealer, &mut opener).is_ok(),
            "2^64 - 2 is the last nonce that is used"
        );
        for _ in 0..3 {
            let exhausted = carry(&mut sealer, &mut opener);
            assert!(matches!(
                exhausted,
                Err(RecordError::Exhausted {
                    records: u64::MAX,
                    ..
                })
            ));
        }
        let (mut sealer, _) = pair(SealLimits::default(), RECORDS_PER_KEY_MAX);
        let mut record = BytesMut::from(&b"x"[..]);
        assert!(matches!(
            sealer.seal_in_place(&mut record, 0),
            Err(RecordError::Exhausted { .. })
        ));
        assert_eq!(&record[..], b"x");
    }
}
