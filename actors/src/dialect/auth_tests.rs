use serde_json::json;

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_000_000;

fn signed_with(secret: &[u8], header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("Bearer {signed}.{signature}")
}

fn token(claims: &Value) -> String {
    signed_with(SECRET, &json!({"alg": "HS256"}), claims)
}

fn signed() -> Signed {
    Signed::new(SECRET).unwrap()
}

fn judge(signed: Signed, authorization: &str) -> Result<(), &'static str> {
    Auth::Signed(signed).admit(Some(authorization), NOW)
}

#[test]
fn nobody_is_asked_where_nothing_was_said() {
    assert_eq!(Auth::default().admit(None, NOW), Ok(()));
    assert!(!Auth::default().asks());
}

#[test]
fn a_token_is_the_one_or_is_refused_with_a_word() {
    let auth = Auth::token("secret");
    assert_eq!(auth.admit(Some("Bearer secret"), NOW), Ok(()));
    assert_eq!(auth.admit(Some("bEARER  secret "), NOW), Ok(()));
    assert_eq!(auth.admit(None, NOW), Err("missing websocket bearer token"));
    assert_eq!(
        auth.admit(Some("Bearer secre"), NOW),
        Err("invalid websocket bearer token")
    );
    for header in ["", "Bearer", "Bearer ", "Basic secret", "secret"] {
        assert_eq!(
            auth.admit(Some(header), NOW),
            Err("invalid authorization header"),
            "{header}"
        );
    }
}

#[test]
fn a_signed_token_has_its_time() {
    assert_eq!(judge(signed(), &token(&json!({"exp": NOW + 1}))), Ok(()));
    assert_eq!(
        judge(signed(), &token(&json!({"exp": NOW - 30}))),
        Ok(()),
        "clocks differ"
    );
    assert_eq!(
        judge(signed(), &token(&json!({"exp": NOW - 31}))),
        Err("expired websocket jwt")
    );
    let later = |by: u64| json!({"exp": NOW + 100, "nbf": NOW + by});
    assert_eq!(judge(signed(), &token(&later(30))), Ok(()));
    assert_eq!(
        judge(signed(), &token(&later(31))),
        Err("websocket jwt is not valid yet")
    );
    let exact = signed().clock_skew(Duration::ZERO);
    assert_eq!(
        judge(exact, &token(&json!({"exp": NOW - 1}))),
        Err("expired websocket jwt")
    );
}

#[test]
fn a_signed_token_is_of_whom_and_for_whom_is_asked() {
    let strict = || signed().issuer("i").audience("a");
    let with = |issuer: Value, audience: Value| token(&json!({"exp": NOW, "iss": issuer, "aud": audience}));
    assert_eq!(judge(strict(), &with(json!("i"), json!("a"))), Ok(()));
    assert_eq!(judge(strict(), &with(json!("i"), json!(["b", "a"]))), Ok(()));
    assert_eq!(
        judge(strict(), &with(json!("j"), json!("a"))),
        Err("websocket jwt issuer mismatch")
    );
    assert_eq!(
        judge(strict(), &with(json!("i"), json!(["b"]))),
        Err("websocket jwt audience mismatch")
    );
    assert_eq!(
        judge(strict(), &token(&json!({"exp": NOW}))),
        Err("websocket jwt issuer mismatch")
    );
}

#[test]
fn a_token_that_was_not_signed_so_is_refused() {
    let claims = json!({"exp": NOW});
    let other = signed_with(&[7; 32], &json!({"alg": "HS256"}), &claims);
    let none = signed_with(SECRET, &json!({"alg": "none"}), &claims);
    let unending = token(&json!({}));
    let changed = token(&claims).replace('.', ".A");
    for text in [
        &*other,
        &none,
        &unending,
        &changed,
        "Bearer a.b",
        "Bearer x",
        "Bearer ...",
    ] {
        assert_eq!(judge(signed(), text), Err("invalid websocket jwt"), "{text}");
    }
    assert_eq!(
        judge(
            signed(),
            &signed_with(SECRET, &json!({"alg": "HS256", "typ": "JWT"}), &claims)
        ),
        Ok(())
    );
}

#[test]
fn a_short_secret_is_none() {
    assert_eq!(Signed::new(&SECRET[1..]).unwrap_err(), ShortSecret { actual: 31 });
}
