//! Paths, as the dialect has them: `file:` URIs.

use std::fmt::Write as _;

use super::fault::Fault;
use crate::files::PATH_MAX_BYTES;

/// What stands for itself in a path that is written as URI.
const PLAIN: &[u8] = b"-._~!$&'()*+,;=:@/";

/// The absolute path that a URI names. Percent signs are decoded, `.` and `..` are resolved by name.
///
/// # Errors
/// It is no URI, of another scheme, has a query or a fragment, or names what this system has not.
pub fn path_of(uri: &str) -> Result<Vec<u8>, Fault> {
    let (scheme, rest) =
        split_scheme(uri).ok_or_else(|| Fault::invalid_params("invalid URI: relative URL without a base"))?;
    if !scheme.eq_ignore_ascii_case("file") {
        let text = format!("unsupported path URI scheme `{}`", scheme.to_ascii_lowercase());
        return Err(Fault::invalid_params(text));
    }
    if rest.contains(['?', '#']) {
        return Err(Fault::invalid_params("a path URI has no query and no fragment"));
    }
    let foreign = || Fault::invalid_request(format!("'{uri}' is invalid on 'linux'"));
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
                return Err(foreign());
            }
            path
        }
        None => rest,
    };
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut is_directory = false;
    for segment in path.split('/') {
        let segment = decoded(segment)?;
        is_directory = matches!(&*segment, b"" | b"." | b"..");
        match &*segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    if segments.first().is_some_and(|first| is_drive(first)) {
        return Err(foreign());
    }
    let mut joined = Vec::with_capacity(path.len() + 1);
    for segment in &segments {
        joined.push(b'/');
        joined.extend_from_slice(segment);
    }
    // What ends in a slash can only be a directory.
    if is_directory || segments.is_empty() {
        joined.push(b'/');
    }
    if joined.contains(&0) {
        return Err(Fault::invalid_params("a path has a NUL byte"));
    }
    if joined.len() > PATH_MAX_BYTES {
        let text = format!(
            "a path has {} bytes, and the limit is {PATH_MAX_BYTES}",
            joined.len()
        );
        return Err(Fault::invalid_params(text));
    }
    Ok(joined)
}

/// The URI of an absolute path.
pub fn uri_of(path: &[u8]) -> String {
    let mut uri = String::with_capacity(path.len() + 8);
    uri.push_str("file://");
    if path.first() != Some(&b'/') {
        uri.push('/');
    }
    for byte in path {
        if byte.is_ascii_alphanumeric() || PLAIN.contains(byte) {
            uri.push(char::from(*byte));
        } else {
            write!(uri, "%{byte:02X}").ok();
        }
    }
    uri
}

fn split_scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let mut bytes = scheme.bytes();
    let begins = bytes.next().is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    (begins && goes_on).then_some((scheme, rest))
}

fn decoded(segment: &str) -> Result<Vec<u8>, Fault> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            // A percent sign without digits stands for itself.
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    // An encoded slash would be a separator that its sender did not mean as one.
    if decoded.contains(&b'/') {
        return Err(Fault::invalid_params("a name in a path has a slash"));
    }
    Ok(decoded)
}

fn is_drive(segment: &[u8]) -> bool {
    matches!(segment, [letter, b':' | b'|'] if letter.is_ascii_alphabetic())
}
