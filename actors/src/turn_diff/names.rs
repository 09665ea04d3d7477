//! Paths as a diff shows them: relative to the repository, and quoted where git quotes.

/// A path relative to `root`, by whole components; as it is where it does not lie below it, or there is no root.
pub(super) fn relative<'a>(root: Option<&[u8]>, path: &'a [u8]) -> &'a [u8] {
    let Some(root) = root else { return path };
    match path.strip_prefix(trimmed(root)) {
        Some([b'/', rest @ ..]) if !rest.is_empty() => rest,
        Some(_) | None => path,
    }
}

/// A directory without slashes at its end; the topmost is empty.
fn trimmed(mut directory: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = directory {
        directory = rest;
    }
    directory
}

/// A name behind `prefix`, in quotes if a byte of it would not stand for itself.
pub(super) fn quoted(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + name.len() + 2);
    if !name.iter().any(|byte| needs_quotes(*byte)) {
        out.extend_from_slice(prefix);
        out.extend_from_slice(name);
        return out;
    }
    out.push(b'"');
    for byte in prefix.iter().chain(name) {
        match escape(*byte) {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None if needs_quotes(*byte) => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            None => out.push(*byte),
        }
    }
    out.push(b'"');
    out
}

fn needs_quotes(byte: u8) -> bool {
    !(b' '..0x7f).contains(&byte) || byte == b'"' || byte == b'\\'
}

fn escape(byte: u8) -> Option<u8> {
    Some(match byte {
        0x07 => b'a',
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0b => b'v',
        0x0c => b'f',
        b'\r' => b'r',
        b'"' => b'"',
        b'\\' => b'\\',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_by_components_and_not_by_bytes() {
        assert_eq!(relative(Some(b"/a/b"), b"/a/b/c/d"), b"c/d");
        assert_eq!(relative(Some(b"/a/b/"), b"/a/b/c"), b"c");
        assert_eq!(relative(Some(b"/a/b"), b"/a/bc"), b"/a/bc");
        assert_eq!(relative(Some(b"/a/b"), b"/a/b"), b"/a/b");
        assert_eq!(relative(Some(b"/"), b"/etc/hosts"), b"etc/hosts");
        assert_eq!(relative(None, b"/etc/hosts"), b"/etc/hosts");
    }

    #[test]
    fn names_are_quoted_like_gits() {
        assert_eq!(quoted(b"a/", b"a file"), b"a/a file");
        assert_eq!(quoted(b"a/", b"t\tn\n\"\\"), br#""a/t\tn\n\"\\""#);
        assert_eq!(quoted(b"", "\u{e9}\u{1}".as_bytes()), br#""\303\251\001""#);
        assert_eq!(quoted(b"b/", b"\x7f\xff"), br#""b/\177\377""#);
    }
}
