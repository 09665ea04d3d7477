//! The few of git's own files that say what is checked out, as bytes in and facts out.

/// Symbolic references that are followed, one to the next.
pub(super) const SYMBOLIC_DEPTH_MAX: usize = 5;
/// Most bytes of a reference's name.
pub(super) const REFERENCE_MAX_BYTES: usize = 1_024;

/// What a reference holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reference {
    /// Another reference.
    Symbolic(String),
    /// A commit, in hexadecimal.
    Commit(String),
}

/// What `HEAD` or a loose reference holds. `None`: neither a commit nor a reference.
pub(super) fn reference(bytes: &[u8]) -> Option<Reference> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    match text.strip_prefix("ref:") {
        Some(name) => {
            let name = name.trim();
            is_reference(name).then(|| Reference::Symbolic(name.to_owned()))
        }
        None => is_commit(text).then(|| Reference::Commit(text.to_ascii_lowercase())),
    }
}

/// Where a `.git` that is a file points to.
pub(super) fn pointer(bytes: &[u8]) -> Option<&[u8]> {
    let line = bytes.strip_prefix(b"gitdir:")?;
    Some(line.trim_ascii()).filter(|path| !path.is_empty() && !path.contains(&0))
}

/// The commit that `packed-refs` has for a name.
pub(super) fn packed(bytes: &[u8], name: &str) -> Option<String> {
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        // Comments and peeled tags begin with what is no commit.
        let (commit, rest) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
        let commit = std::str::from_utf8(commit)
            .ok()
            .filter(|commit| is_commit(commit))?;
        (rest.trim_ascii() == name.as_bytes()).then(|| commit.to_ascii_lowercase())
    })
}

/// Its branch, as people call it.
pub(super) fn branch(name: &str) -> &str {
    name.strip_prefix("refs/heads/").unwrap_or(name)
}

/// Whether a name may be looked for below `.git`: it is a hostile repository's word.
fn is_reference(name: &str) -> bool {
    let sound = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\0', '\n']);
    name.len() <= REFERENCE_MAX_BYTES && name.starts_with("refs/") && name.split('/').all(sound)
}

/// SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_reference_is_a_commit_or_another_reference_and_nothing_else() {
        let symbolic = Reference::Symbolic("refs/heads/a/b".into());
        assert_eq!(reference(b"ref: refs/heads/a/b\n"), Some(symbolic));
        let commit = Reference::Commit(COMMIT.into());
        assert_eq!(
            reference(format!("{}\n", COMMIT.to_uppercase()).as_bytes()),
            Some(commit)
        );
        let hostile: [&[u8]; 7] = [
            b"",
            b"ref: ",
            b"ref: ../../etc/passwd",
            b"ref: refs/heads/../../../etc/passwd",
            b"ref: refs//heads",
            b"0123",
            b"\xff\xfe",
        ];
        for bytes in hostile {
            assert_eq!(reference(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn packed_references_are_found_by_their_whole_name() {
        let other = "f".repeat(40);
        let file = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{other} refs/heads/main2\n{COMMIT} refs/heads/main\n^{other}\n"
        );
        assert_eq!(packed(file.as_bytes(), "refs/heads/main"), Some(COMMIT.into()));
        assert_eq!(packed(file.as_bytes(), "refs/heads/mai"), None);
    }

    #[test]
    fn a_pointer_is_what_follows_its_word() {
        assert_eq!(
            pointer(b"gitdir: ../.git/worktrees/x\n"),
            Some(&b"../.git/worktrees/x"[..])
        );
        assert_eq!(pointer(b"gitdir:\n"), None);
        assert_eq!(pointer(b"something else"), None);
    }
}
