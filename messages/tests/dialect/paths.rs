//! `file:` URIs.

use dwell_messages::dialect::{path_of, uri_of};
use proptest::prelude::*;

fn path(uri: &str) -> String {
    String::from_utf8(path_of(uri).unwrap()).unwrap()
}

#[test]
fn every_way_to_write_an_absolute_path_is_understood() {
    for uri in [
        "file:///a/b",
        "file:/a/b",
        "file://localhost/a/b",
        "FILE:///a/b",
        "file:a/b",
        "file:///a/./c/../b",
    ] {
        assert_eq!(path(uri), "/a/b", "{uri}");
    }
    assert_eq!(path("file:///a%20b/%C3%A4"), "/a b/ä");
    assert_eq!(path("file:///../.."), "/");
    assert_eq!(path("file:///"), "/");
    assert_eq!(path("file:///a/"), "/a/");
    assert_eq!(path("file:///100%"), "/100%");
}

#[test]
fn what_is_no_path_is_refused_with_its_own_words() {
    let refusal = |uri: &str| path_of(uri).unwrap_err();
    let native = refusal("/a/b");
    assert_eq!(
        (native.code, &*native.message),
        (-32602, "invalid URI: relative URL without a base")
    );
    let scheme = refusal("http://h/a");
    assert_eq!(
        (scheme.code, &*scheme.message),
        (-32602, "unsupported path URI scheme `http`")
    );
    assert_eq!(refusal("file:///a?q").code, -32602);
    assert_eq!(refusal("file:///a#f").code, -32602);
    assert_eq!(refusal("file:///a%00").code, -32602);
    assert_eq!(refusal("file:///a%2fb").code, -32602);
    for foreign in ["file://host/a", "file:///C:/a", "file:///c|/a"] {
        assert_eq!(
            refusal(foreign).message,
            format!("'{foreign}' is invalid on 'linux'")
        );
    }
    assert_eq!(refusal(&format!("file:///{}", "a".repeat(4_096))).code, -32602);
}

proptest! {
    #[test]
    fn every_path_has_a_uri_that_leads_back_to_it(
        names in proptest::collection::vec(proptest::collection::vec(1_u8..=255, 1..20), 1..6),
    ) {
        let mut bytes = Vec::new();
        for name in names {
            let name: Vec<u8> = name.into_iter().map(|byte| if byte == b'/' { b'_' } else { byte }).collect();
            bytes.push(b'/');
            bytes.extend(name);
        }
        let plain = |name: &[u8]| !matches!(name, b"." | b"..");
        prop_assume!(bytes.split(|byte| *byte == b'/').all(plain));
        let drive = |name: &[u8]| matches!(name, [letter, b':' | b'|'] if letter.is_ascii_alphabetic());
        prop_assume!(!bytes.split(|byte| *byte == b'/').nth(1).is_some_and(drive));
        let uri = uri_of(&bytes);
        prop_assert!(uri.is_ascii());
        prop_assert_eq!(path_of(&uri).unwrap(), bytes);
    }
}
