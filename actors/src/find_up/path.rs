//! Paths of an environment: absolute bytes, taken apart by their components and never looked up here.

use dwell_messages::files::PATH_MAX_BYTES;
use dwell_messages::{ErrorCode, WireError};

/// A path without what says nothing in it: no `.`, no doubled `/` and none at its end.
///
/// # Errors
/// `BadPath` for what is not absolute, holds NUL, has more than `PATH_MAX_BYTES` or a `..`: where that leads only the
/// environment's links can say.
pub fn normal(path: &[u8]) -> Result<Vec<u8>, WireError> {
    let bad = |why: &str| Err(WireError::new(ErrorCode::BadPath, why));
    if path.first() != Some(&b'/') {
        return bad("the path does not begin at the root");
    }
    if path.contains(&0) {
        return bad("the path holds a NUL byte");
    }
    if path.len() > PATH_MAX_BYTES {
        let error = WireError::new(ErrorCode::BadPath, "the path is too long");
        return Err(error.with_limit(PATH_MAX_BYTES as u64, path.len() as u64));
    }
    let mut clean = Vec::with_capacity(path.len());
    for name in components(path) {
        if name == b".." {
            return bad("the path holds `..`");
        }
        clean.push(b'/');
        clean.extend_from_slice(name);
    }
    if clean.is_empty() {
        clean.push(b'/');
    }
    Ok(clean)
}

/// The names in a path, `.` left out.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// What lies under a name, or under several with `/` between them, in a directory. An absolute `name` stands for itself.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if name.first() == Some(&b'/') {
        return name.to_vec();
    }
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The directory above; `None` above the root. Of a `normal` path.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    match slash {
        0 if path.len() == 1 => None,
        0 => Some(&path[..1]),
        slash => Some(&path[..slash]),
    }
}

/// Whether one `normal` path is another or lies below it, by components: `/ab` does not lie below `/a`.
pub fn is_within(root: &[u8], path: &[u8]) -> bool {
    let mut below = components(path);
    components(root).all(|name| below.next() == Some(name))
}

/// The directories from `root` down to `path`, both among them. None where `path` does not lie there.
pub fn between(root: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    let mut upwards = Vec::new();
    if !is_within(root, path) {
        return upwards;
    }
    let mut at = Some(path);
    while let Some(directory) = at {
        upwards.push(directory.to_vec());
        if directory.len() <= root.len() {
            break;
        }
        at = parent(directory);
    }
    upwards.reverse();
    upwards
}
