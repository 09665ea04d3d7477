//! Keys in their text form: 64 lower-case hexadecimal digits.

/// The 32 bytes of 64 hexadecimal digits of either case; nothing else is taken.
pub(super) fn key_from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(key)
}

/// Appends the lower-case text form; in place, so that a private key leaves no copies in outgrown buffers.
pub(super) fn push_hex(out: &mut String, key: &[u8; 32]) {
    for byte in key {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16"));
        }
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
