//! What a client trusts, as text.

use proptest::option;
use proptest::prelude::*;

use super::*;

fn line() -> TrustLine {
    TrustLine {
        name: ExecutorName::new("build-7").unwrap(),
        key: PublicKey([0xab; 32]),
        route: KnownRoute::Relay("relay.example.org:7433".into()),
        code: PairingCode::from([7; 16]),
    }
}

#[test]
fn a_line_to_trust_is_one_word_that_no_shell_touches() {
    let text = line().to_string();
    let expected = format!(
        "dwell+relay:build-7:{}:{}@relay.example.org:7433",
        "ab".repeat(32),
        "07".repeat(16)
    );
    assert_eq!(text, expected);
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+:@.-".contains(&byte))
    );
    assert_eq!(TrustLine::parse(&text), Ok(line()));
    assert_eq!(TrustLine::parse(&format!(" {text}\n")), Ok(line()));
    assert!(!format!("{:?}", line()).contains("07, 07") && !format!("{:?}", line()).contains("0707"));
}

/// C-13: a key of small order is refused where it is parsed.
#[test]
fn a_line_with_nobodys_key_or_cut_anywhere_is_refused() {
    let text = line().to_string();
    let address = text.find('@').unwrap() + 1;
    for end in 0..=address {
        assert!(TrustLine::parse(&text[..end]).is_err(), "cut to {end}");
    }
    let nobody = text.replace(&"ab".repeat(32), &"00".repeat(32));
    assert!(TrustLine::parse(&nobody).unwrap_err().contains("low order"));
    for (from, to) in [
        ("dwell+relay", "dwell+pigeon"),
        ("build-7", "-build"),
        ("build-7", ""),
        ("@relay", "@relay here"),
        ("dwell+", "http+"),
    ] {
        assert!(TrustLine::parse(&text.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn a_hostname_becomes_a_name() {
    for (hostname, name) in [
        ("build-7.example.org", "build-7.example.org"),
        ("-x", "x"),
        ("", "executor"),
        ("böx y", "b_x_y"),
        (&"h".repeat(100), &"h".repeat(64)),
    ] {
        assert_eq!(ExecutorName::from_hostname(hostname).as_str(), name);
    }
}

fn names() -> impl Strategy<Value = ExecutorName> {
    "[A-Za-z0-9_][A-Za-z0-9._-]{0,63}".prop_map(|text| ExecutorName::new(&text).unwrap())
}

fn routes() -> impl Strategy<Value = KnownRoute> {
    (any::<bool>(), "[!-\"$-~]{1,255}").prop_map(|(relay, address)| {
        if relay {
            KnownRoute::Relay(address)
        } else {
            KnownRoute::Direct(address)
        }
    })
}

fn keys() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>()
        .prop_filter("a usable key", |key| !is_low_order(key))
        .prop_map(PublicKey)
}

proptest! {
    #[test]
    fn every_line_to_trust_comes_back(name in names(), key in keys(), route in routes(), code: [u8; 16]) {
        let line = TrustLine { name, key, route, code: PairingCode::from(code) };
        prop_assert_eq!(TrustLine::parse(&line.to_string()), Ok(line));
    }

    #[test]
    fn every_known_executor_comes_back(name in names(), key in keys(), route in option::of(routes())) {
        let known = KnownExecutor { name, key, route };
        prop_assert_eq!(KnownExecutor::parse(&known.to_string()), Ok(known));
    }

    #[test]
    fn no_text_panics_either(text in "\\PC{0,200}", tail in "[a-f0-9:@ =]{0,200}") {
        let _ = (TrustLine::parse(&text), KnownExecutor::parse(&text));
        let _ = (TrustLine::parse(&format!("dwell+relay:{tail}")), KnownExecutor::parse(&format!("x {tail}")));
    }
}
