//! What an executor, its guard and its keepers say to each other.
#![no_main]

use dwell_actors::guard::fuzzing::read_words;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert!(read_words(data) <= 1, "no word is another's");
});
