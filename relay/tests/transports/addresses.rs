//! Addresses are read or refused, never guessed.

use dwell_relay::driver::address::{NetAddress, Scheme};
use dwell_relay::driver::net;
use dwell_relay::driver::tls::Trust;

#[test]
fn an_address_says_what_carries_the_bytes() {
    for (text, scheme, host, port, path) in [
        ("host", Scheme::Tcp, "host", 7433, ""),
        ("host:1", Scheme::Tcp, "host", 1, ""),
        ("tcp://host:1", Scheme::Tcp, "host", 1, ""),
        ("tls://host", Scheme::Tls, "host", 7433, ""),
        ("ws://host", Scheme::Ws, "host", 7433, ""),
        ("WSS://host:443/a/b", Scheme::Wss, "host", 443, "/a/b"),
        ("wss://[::1]/", Scheme::Wss, "::1", 7433, "/"),
        ("::1", Scheme::Tcp, "::1", 7433, ""),
        ("ws://[2001:db8::7]:80/x", Scheme::Ws, "2001:db8::7", 80, "/x"),
    ] {
        let address = NetAddress::parse(text, Some(7433)).unwrap();
        let read = (address.scheme(), address.host(), address.port(), address.path());
        assert_eq!(read, (scheme, host, port, path), "{text}");
        assert_eq!(
            address.to_string().parse(),
            Ok(address),
            "{text} is read again as it is written"
        );
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for text in [
        "",
        ":",
        ":1",
        "host:",
        "host:x",
        "host:65536",
        "a b:1",
        "http://host:1",
        "ws:/host:1",
        "ws://",
        "ws:///path",
        "tcp://host:1/path",
        "tls://host:1/",
        "ws://user@host:1/",
        "ws://host:1/?q",
        "ws://host:1/#f",
        "[::1",
        "[host]:1",
        "::1]:2",
        "ws://höst:1",
        "ws://host:1/\r\nX: y",
    ] {
        assert!(NetAddress::parse(text, Some(7433)).is_err(), "{text:?}");
    }
    assert!(
        "host".parse::<NetAddress>().is_err(),
        "a port is needed where none is the default"
    );
}

#[tokio::test]
async fn dialling_what_is_no_address_says_what_to_write() {
    let error = net::dial("http://host:1", &Trust::default()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("wss://HOST:PORT/PATH"), "{error}");
}
