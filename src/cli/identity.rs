//! The key of a role on this machine.

use std::path::{Path, PathBuf};

use dwell_actors::config::Home;
use dwell_actors::keys::{Created, Identity, KeyError};
use dwell_messages::Role;
use dwell_relay::{OsRandomness, StaticKeypair};
use zeroize::Zeroizing;

use super::failure::Failure;

/// A key pair, the file it is in, and whether it was made just now.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) pair: StaticKeypair,
    pub(crate) path: PathBuf,
    pub(crate) created: bool,
}

/// Where this user's dwell keeps things.
pub(crate) fn home() -> Result<Home, Failure> {
    Home::resolve(|name| std::env::var_os(name)).map_err(|error| Failure::of("home", &error))
}

/// The role's key; an error when there is none.
pub(crate) fn load(home: &Home, role: Role) -> Result<Own, Failure> {
    let identity = Identity::load(&home.identity(role)).map_err(failure)?;
    own(&identity, Created::Existing)
}

/// The role's key, made on first use in a file that only its owner can read, and never where one was lost.
pub(crate) fn load_or_make(home: &Home, role: Role) -> Result<Own, Failure> {
    let path = home.identity(role);
    match Identity::load(&path) {
        Ok(identity) => return own(&identity, Created::Existing),
        Err(KeyError::Missing { .. }) => {}
        Err(error) => return Err(failure(error)),
    }
    let fresh = StaticKeypair::generate(&mut OsRandomness::new())
        .map_err(|error| Failure::because("randomness", "no key was made", &error))?;
    let generate = || (*fresh.expose_private(), fresh.public().0);
    // What is only there because this machine had the key before.
    let witness = match role {
        Role::Executor => Some(home.authorized_clients()),
        Role::Harness => Some(home.known_executors()),
        Role::Relay => None,
    };
    let witnesses: Vec<&Path> = witness.iter().map(PathBuf::as_path).collect();
    let (identity, created) =
        Identity::load_or_create_beside(&path, &witnesses, generate).map_err(failure)?;
    own(&identity, created)
}

fn own(identity: &Identity, created: Created) -> Result<Own, Failure> {
    let pair = StaticKeypair::from_private(Zeroizing::new(*identity.private()));
    identity.check(|_| pair.public().0).map_err(failure)?;
    Ok(Own {
        pair,
        path: identity.path().to_owned(),
        created: created == Created::New,
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failure(error: KeyError) -> Failure {
    Failure::of("key", &error)
}
