//! For fuzz targets only: whatever is taken for a word of the guard's protocol is written as it was read.

use super::wire::{FromGuard, FromKeeper, REQUEST_MAX_BYTES, ToGuard, ToKeeper};

/// Reads `bytes` in all four roles; gives how many took them for a word.
///
/// # Panics
/// When a word that was read is written as bytes that mean something else, or as more bytes than it came in.
pub fn read_words(bytes: &[u8]) -> usize {
    assert!(bytes.len() <= REQUEST_MAX_BYTES);
    let mut taken = 0;
    macro_rules! read {
        ($($word:ident)*) => {$(
            if let Ok(word) = $word::decode(bytes) {
                taken += 1;
                let again = word.encode();
                assert!(again.len() <= bytes.len(), "{word:?} has grown");
                assert_eq!($word::decode(&again), Ok($word::decode(bytes).expect("it was read before")));
            }
        )*};
    }
    read!(ToGuard FromGuard ToKeeper FromKeeper);
    taken
}
