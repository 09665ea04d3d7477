//! File operations that are to be confined: which of them the ordinary file service does as they are meant.
//!
//! Whatever a policy that is understood lets be read is everything, so that reading needs no guarding. A path that is
//! written is followed without any link, by the kernel itself and at the very moment; so what it is called says where it
//! is, and the policy's paths decide. What that does not cover is refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dwell_messages::ErrorCode;
use dwell_messages::confinement::{ConfinedPath, Confinement, Reach};
use dwell_messages::dialect::{Call, CreateDirectory, Fault, OpenMode, Remove, WriteFile, path_of};
use dwell_messages::files::Links;
use serde_json::Value;

use super::command::NO_SANDBOX;
use crate::files::RemoteFiles;

const EROFS: i32 = 30;

/// The policy that a request about files carries.
pub(super) fn sandbox_of(call: &Call) -> Option<&Value> {
    match call {
        Call::ReadFile(ask) => ask.sandbox.as_ref(),
        Call::WriteFile(ask) => ask.sandbox.as_ref(),
        Call::CreateDirectory(ask) => ask.sandbox.as_ref(),
        Call::GetMetadata(ask) => ask.sandbox.as_ref(),
        Call::Canonicalize(ask) => ask.sandbox.as_ref(),
        Call::ReadDirectory(ask) => ask.sandbox.as_ref(),
        Call::Walk(ask) => ask.sandbox.as_ref(),
        Call::Remove(ask) => ask.sandbox.as_ref(),
        Call::Copy(ask) => ask.sandbox.as_ref(),
        Call::OpenFile(ask) => ask.sandbox.as_ref(),
        Call::Initialize(_)
        | Call::EnvironmentInfo
        | Call::EnvironmentStatus
        | Call::ReadEnvironmentConfig(_)
        | Call::DiscoverRoots(_)
        | Call::DiscoverCapabilities(_)
        | Call::Start(_)
        | Call::Read(_)
        | Call::Write(_)
        | Call::Signal(_)
        | Call::Terminate(_)
        | Call::ReadBlock(_)
        | Call::WriteBlock(_)
        | Call::CloseFile(_)
        | Call::WatchMissing(_)
        | Call::Http(_) => None,
    }
}

/// Makes of a request one that does only what a policy allows, and says what becomes of links on the way to what is opened.
///
/// # Errors
/// It does more, or nobody can say.
pub(super) async fn within(
    call: Call,
    confinement: &Confinement,
    files: &RemoteFiles,
) -> Result<(Call, Links), Fault> {
    let reads_everything = confinement.paths.iter().any(|entry| &entry.path[..] == b"/");
    if !reads_everything {
        return Err(Fault::failed(NO_SANDBOX));
    }
    let place = match &call {
        Call::WriteFile(ask) => &ask.path,
        Call::CreateDirectory(ask) => &ask.path,
        Call::Remove(ask) if ask.recursive == Some(false) => &ask.path,
        Call::OpenFile(ask) if ask.mode == OpenMode::Replace => &ask.path,
        // Whole trees: a path says nothing of all that is below it.
        Call::Remove(_) | Call::Copy(_) => return Err(Fault::failed(NO_SANDBOX)),
        Call::OpenFile(_)
        | Call::ReadFile(_)
        | Call::GetMetadata(_)
        | Call::Canonicalize(_)
        | Call::ReadDirectory(_)
        | Call::Walk(_)
        | Call::ReadBlock(_)
        | Call::WriteBlock(_)
        | Call::CloseFile(_)
        | Call::Initialize(_)
        | Call::EnvironmentInfo
        | Call::EnvironmentStatus
        | Call::ReadEnvironmentConfig(_)
        | Call::DiscoverRoots(_)
        | Call::DiscoverCapabilities(_)
        | Call::Start(_)
        | Call::Read(_)
        | Call::Write(_)
        | Call::Signal(_)
        | Call::Terminate(_)
        | Call::WatchMissing(_)
        | Call::Http(_) => return Ok((call, Links::Follow)),
    };
    let path = path_of(place)?;
    let root = writable_root(&path, confinement).ok_or_else(|| Fault::of_file_errno(EROFS))?;
    check(root, confinement, files).await?;
    let mut call = call;
    if let Call::WriteFile(WriteFile { follow_symlinks, .. })
    | Call::CreateDirectory(CreateDirectory { follow_symlinks, .. })
    | Call::Remove(Remove { follow_symlinks, .. }) = &mut call
    {
        *follow_symlinks = false;
    }
    Ok((call, Links::Refuse))
}

/// The entry that lets a path be written, if the longest that leads to it does.
fn writable_root<'a>(path: &[u8], confinement: &'a Confinement) -> Option<&'a ConfinedPath> {
    let path = of(path);
    let leads = confinement
        .paths
        .iter()
        .filter(|entry| path.starts_with(of(&entry.path)));
    // At one place the narrower counts.
    let deciding =
        leads.max_by_key(|entry| (of(&entry.path).components().count(), entry.access == Reach::Read))?;
    // The place itself is its parent's, and stays.
    (deciding.access == Reach::Write && path != of(&deciding.path)).then_some(deciding)
}

/// The names of the policy's paths mean what they say: that where it is written, and those that hold what is protected.
async fn check(root: &ConfinedPath, confinement: &Confinement, files: &RemoteFiles) -> Result<(), Fault> {
    let protects = |place: &ConfinedPath| {
        let mut protected = confinement
            .paths
            .iter()
            .filter(|entry| entry.access == Reach::Read);
        protected.any(|entry| entry.path != place.path && of(&entry.path).starts_with(of(&place.path)))
    };
    let lone = |entry: &&ConfinedPath| {
        let mut around = confinement
            .paths
            .iter()
            .filter(|place| place.access == Reach::Write);
        entry.access == Reach::Read
            && &entry.path[..] != b"/"
            && !around.any(|place| of(&entry.path).starts_with(of(&place.path)))
    };
    let holders = confinement
        .paths
        .iter()
        .filter(|entry| entry.access == Reach::Write && protects(entry));
    for place in [root]
        .into_iter()
        .chain(holders)
        .chain(confinement.paths.iter().filter(lone))
    {
        match files.metadata_of(&place.path, Links::Refuse).await {
            Ok(_) => {}
            Err(error) if error.code == ErrorCode::NotFound && place != root => {}
            Err(_) => return Err(Fault::failed(NO_SANDBOX)),
        }
    }
    Ok(())
}

fn of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_that_leads_to_a_file_decides_whether_it_is_written() {
        let path = |path: &str, access| ConfinedPath {
            path: path.as_bytes().to_vec().into(),
            access,
            optional: false,
        };
        let confinement = Confinement {
            network: false,
            paths: vec![
                path("/w/.git", Reach::Read),
                path("/", Reach::Read),
                path("/w", Reach::Write),
                path("/both", Reach::Write),
                path("/both", Reach::Read),
            ],
        };
        let writes = |path: &str| writable_root(path.as_bytes(), &confinement).is_some();
        assert!(writes("/w/a") && writes("/w/.github/b"));
        for not in [
            "/w/.git",
            "/w/.git/config",
            "/w",
            "/wide/a",
            "/etc/passwd",
            "/both/a",
            "/",
        ] {
            assert!(!writes(not), "{not}");
        }
    }
}
