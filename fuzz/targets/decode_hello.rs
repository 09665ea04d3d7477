//! The payloads of the handshake: the first bytes of a stranger that are looked at.
#![no_main]

use dwell_messages::session::{Hello, Welcome};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(hello) = Hello::decode(data) {
        let again = hello.encode().expect("what was decoded can be encoded");
        assert_eq!(Hello::decode(&again), Ok(hello));
    }
    if let Ok(welcome) = Welcome::decode(data) {
        let again = welcome.encode().expect("what was decoded can be encoded");
        assert_eq!(Welcome::decode(&again), Ok(welcome));
    }
});
