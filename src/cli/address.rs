//! Addresses as people write them: `host`, `host:port`, `::1`, `[::1]:port`.

use std::net::{IpAddr, Ipv6Addr};

use super::failure::Failure;

/// The address with a port, which is `default_port` where none is given.
pub(crate) fn with_port(text: &str, default_port: u16) -> Result<String, Failure> {
    let wrong = || {
        Failure::new("address", format!("`{text}` is no address")).advise(format!(
            "write HOST or HOST:PORT, such as 192.0.2.7:{default_port} or [2001:db8::7]:{default_port}"
        ))
    };
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(wrong());
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{default_port}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        Some(_) | None => (text, default_port),
    };
    let bracketed = host.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
    let whole = match bracketed {
        Some(inside) => inside.is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains([':', ']']),
    };
    if !whole {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
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
            "tcp://host",
            "[host]:1",
            "[::1",
            "::1]:2",
        ] {
            assert_eq!(ported(text), None, "{text:?}");
        }
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
