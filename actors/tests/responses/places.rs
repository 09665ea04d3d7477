//! Endpoints and keys.

use dwell_actors::responses::{ApiKey, ENDPOINT_DEFAULT, Endpoint, EndpointError, KEY_MAX_BYTES, KeyError};

#[test]
fn an_endpoint_is_told_from_what_is_none() {
    let endpoint = |text: &str| text.parse::<Endpoint>();
    assert_eq!(endpoint(ENDPOINT_DEFAULT).unwrap(), Endpoint::default());
    let own = endpoint("ws://127.0.0.1:9/x?y=1").unwrap();
    assert_eq!((own.authority().as_str(), own.path()), ("127.0.0.1:9", "/x?y=1"));
    assert!(!own.is_secure() && own.is_loopback());
    let six = endpoint("http://[::1]:9").unwrap();
    assert_eq!(
        (six.authority().as_str(), six.path(), six.port()),
        ("[::1]:9", "/", 9)
    );
    assert_eq!(endpoint("https://host.example?q").unwrap().path(), "/?q");
    for (text, error) in [
        ("", EndpointError::Scheme),
        ("api.openai.com", EndpointError::Scheme),
        ("ftp://x", EndpointError::Scheme),
        ("wss://", EndpointError::Host),
        ("wss:///path", EndpointError::Host),
        ("wss://a b", EndpointError::Host),
        ("wss://[::1", EndpointError::Host),
        ("wss://[x]", EndpointError::Host),
        ("wss://x:0", EndpointError::Port),
        ("wss://x:65536", EndpointError::Port),
        ("wss://x:", EndpointError::Port),
        ("wss://me:secret@x", EndpointError::UserInfo),
        ("wss://x/#f", EndpointError::Path),
        ("wss://x/a b", EndpointError::Path),
        ("wss://x/\r\nInjected: 1", EndpointError::Path),
    ] {
        assert_eq!(endpoint(text), Err(error), "{text:?}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[test]
fn nothing_is_sent_in_the_clear_to_another_machine() {
    for text in [
        "ws://api.openai.com/v1/responses",
        "http://192.0.2.1/",
        "ws://localhost.example/",
    ] {
        assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Clear), "{text}");
    }
    assert!("http://localhost:1/".parse::<Endpoint>().is_ok());
}

#[test]
fn an_endpoints_query_is_shown_nowhere() {
    let endpoint: Endpoint = "wss://x/p?key=canary".parse().unwrap();
    assert!(!format!("{endpoint:?}").contains("canary") && !endpoint.authority().contains("canary"));
}

#[test]
fn a_key_is_shown_nowhere_and_what_is_none_is_refused_without_repeating_it() {
    let key = ApiKey::parse(" sk-canary\n", "MY_KEY").unwrap();
    assert!(!format!("{key:?}").contains("canary"));
    let missing = ApiKey::from_env("DWELL_TEST_NO_SUCH_KEY").unwrap_err();
    assert_eq!(missing, KeyError::Missing("DWELL_TEST_NO_SUCH_KEY".into()));
    assert!(
        missing.to_string().contains("set DWELL_TEST_NO_SUCH_KEY"),
        "{missing}"
    );
    for wrong in [
        "",
        " ",
        "sk canary",
        "sk-canary\r\nX: 1",
        "sk-cänary",
        &"k".repeat(KEY_MAX_BYTES + 1),
    ] {
        let error = ApiKey::parse(wrong, "MY_KEY").unwrap_err().to_string();
        assert!(error.contains("MY_KEY") && !error.contains("canary"), "{error}");
    }
}
