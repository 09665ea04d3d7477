//! Addresses as people write them: `host`, `host:port`, `::1`, `[::1]:port`, and `tls://`, `ws://` and `wss://` before
//! those.

use std::net::IpAddr;

use dwell_relay::driver::NetAddress;

use super::failure::Failure;

/// The address to dial, with a port, which is `default_port` where none is given.
pub(crate) fn with_port(text: &str, default_port: u16) -> Result<String, Failure> {
    parse(text, default_port).map(|address| address.to_string())
}

/// The `host:port` to listen on. One port serves every scheme; those in TLS need a certificate.
pub(crate) fn to_listen(text: &str, default_port: u16, has_certificate: bool) -> Result<String, Failure> {
    let address = parse(text, default_port)?;
    if address.scheme().is_tls() && !has_certificate {
        return Err(Failure::new(
            "address",
            format!("`{text}` asks for TLS and there is no certificate"),
        )
        .advise("give one with --tls-cert FILE --tls-key FILE"));
    }
    if !matches!(address.path(), "" | "/") {
        return Err(Failure::new(
            "address",
            format!("`{text}` has a path, and a listener serves every path"),
        )
        .advise(format!("listen on {}", address.authority())));
    }
    Ok(address.authority())
}

fn parse(text: &str, default_port: u16) -> Result<NetAddress, Failure> {
    NetAddress::parse(text, Some(default_port)).map_err(|_| {
        Failure::new("address", format!("`{text}` is no address"))
            .advise(format!(
                "write HOST or HOST:PORT, such as 192.0.2.7:{default_port} or [2001:db8::7]:{default_port}"
            ))
            .advise("or wss://HOST:PORT/PATH, ws://HOST:PORT/PATH, tls://HOST:PORT")
    })
}

/// What has to listen there: the address without what carries the bytes.
pub(crate) fn authority(address: &str) -> String {
    address
        .parse::<NetAddress>()
        .map_or_else(|_| address.to_owned(), |address| address.authority())
}

/// Whether an address with a port can only be reached from this machine. A name other than `localhost` may be anything.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = host(address);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The address as another machine would dial it: what listens everywhere has no address of its own.
pub(crate) fn as_dialled(address: &str) -> String {
    match (host(address).parse::<IpAddr>(), address.rsplit_once(':')) {
        (Ok(ip), Some((_, port))) if ip.is_unspecified() => format!("THIS_HOST:{port}"),
        _ => address.to_owned(),
    }
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ported(text: &str) -> Option<String> {
        with_port(text, 7433).ok()
    }

    #[test]
    fn a_missing_port_is_the_roles_own() {
        assert_eq!(
            ported("relay.example.org").as_deref(),
            Some("relay.example.org:7433")
        );
        assert_eq!(ported("192.0.2.1:80").as_deref(), Some("192.0.2.1:80"));
        assert_eq!(ported("::1").as_deref(), Some("[::1]:7433"));
        assert_eq!(ported("[::1]").as_deref(), Some("[::1]:7433"));
        assert_eq!(ported("[::1]:0").as_deref(), Some("[::1]:0"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_advice() {
        for text in [
            "",
            ":",
            ":80",
            "host:",
            "host:port",
            "host:65536",
            "a b",
            "http://host",
            "tcp://host/path",
            "[host]:1",
            "[::1",
            "::1]:2",
        ] {
            assert_eq!(ported(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_scheme_is_kept_and_tcp_is_understood() {
        assert_eq!(ported("tcp://host").as_deref(), Some("host:7433"));
        assert_eq!(ported("wss://host/a").as_deref(), Some("wss://host:7433/a"));
        assert_eq!(ported("tls://::1").as_deref(), Some("tls://[::1]:7433"));
        assert_eq!(authority("wss://host:1/a"), "host:1");
    }

    #[test]
    fn a_listener_is_a_port_whatever_is_served_there() {
        let listened = |text: &str, tls| to_listen(text, 7433, tls).ok();
        for text in ["0.0.0.0", "ws://0.0.0.0", "ws://0.0.0.0/"] {
            assert_eq!(listened(text, false).as_deref(), Some("0.0.0.0:7433"), "{text}");
        }
        assert_eq!(listened("wss://0.0.0.0", true).as_deref(), Some("0.0.0.0:7433"));
        assert_eq!(listened("wss://0.0.0.0", false), None, "there is no certificate");
        assert_eq!(
            listened("ws://0.0.0.0/path", true),
            None,
            "a listener has no path"
        );
    }

    #[test]
    fn only_loopback_is_loopback() {
        for address in ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.8.8.8:1"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in [
            "0.0.0.0:1",
            "[::]:1",
            "192.0.2.1:1",
            "example.org:1",
            "localhost.example.org:1",
        ] {
            assert!(!is_loopback(address), "{address}");
        }
    }

    #[test]
    fn what_listens_everywhere_is_dialled_by_another_name() {
        assert_eq!(as_dialled("0.0.0.0:7433"), "THIS_HOST:7433");
        assert_eq!(as_dialled("[::]:7433"), "THIS_HOST:7433");
        assert_eq!(as_dialled("127.0.0.1:7433"), "127.0.0.1:7433");
    }
}
