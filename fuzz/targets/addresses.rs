//! Addresses: they come from command lines, from lines that strangers send, and go into requests.
#![no_main]

use dwell_relay::driver::NetAddress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let strict = NetAddress::parse(text, None);
    let lenient = NetAddress::parse(text, Some(7_007));
    if let Ok(address) = &strict {
        assert_eq!(lenient.as_ref(), Ok(address), "a port that is there is taken");
    }
    let Ok(address) = lenient else { return };
    let again = address.to_string();
    assert_eq!(
        again.parse::<NetAddress>().as_ref(),
        Ok(&address),
        "{text:?} as {again:?}"
    );
    assert!(
        !again.contains(|c: char| c.is_whitespace() || c.is_control()),
        "it is one word"
    );
    assert!(!address.host().is_empty() && !address.host().contains(['[', ']', '/', '@']));
    assert!(again.contains(&address.authority()));
    if address.scheme().is_websocket() {
        assert!(again.is_ascii(), "it goes into a request as it is");
        assert!(address.path().is_empty() || address.path().starts_with('/'));
    } else {
        assert!(address.path().is_empty());
    }
});
