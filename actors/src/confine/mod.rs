//! Confining a command: by bubblewrap, which puts it behind mounts of its own, and by a filter of system calls.
//!
//! A confined command is started as a chain of programs in one process tree: this program, which makes itself deaf to
//! signals that are meant for the command; bubblewrap; this program again, inside, which listens to signals as any command
//! does and bars the way to local sockets; the command. So a key on its terminal or a signal to its tree reaches the
//! command and not what holds it, and its exit code is its own: 128 and the signal where one ended it.
//!
//! The keeper sees all of them as the command's tree, and a termination kills it. Bubblewrap dies with its parent and
//! takes the namespace of process ids with it, so nothing of it survives the guard either.

mod plan;
mod shim;
mod trial;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use dwell_messages::confinement::{Confinement, Reach};

pub use self::plan::Unenforceable;
use self::plan::{Seen, mounts};
pub(crate) use self::shim::recognise;
pub(crate) use self::trial::equip;
use crate::spawn::{Environment, SpawnRequest};

/// Where bubblewrap is if no directory of `PATH` has it.
const BUBBLEWRAP: &str = "/usr/bin/bwrap";

/// What confines commands: bubblewrap, and this program inside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confiner {
    bubblewrap: PathBuf,
    own: PathBuf,
}

impl Confiner {
    /// What there is on this machine; whether it works only a trial shows. `own` calls `guard::init` first in its `main`.
    pub(crate) fn find(own: PathBuf) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).filter(|place| place.is_absolute());
        let bubblewrap = places
            .map(|place| place.join("bwrap"))
            .chain([PathBuf::from(BUBBLEWRAP)])
            .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok())?;
        Some(Self { bubblewrap, own })
    }

    /// What to run in place of a command, and in what environment.
    ///
    /// # Errors
    /// Why the whole is not enforced.
    pub(crate) fn wrap(
        &self,
        request: &SpawnRequest,
        cwd: &[u8],
        confinement: &Confinement,
    ) -> Result<(Vec<Vec<u8>>, Environment), Unenforceable> {
        let mounts = mounts(confinement, &look)?;
        let own = self.own.as_os_str().as_bytes();
        let mut line: Vec<Vec<u8>> = Vec::new();
        let mut say = |words: &[&[u8]]| line.extend(words.iter().map(|word| word.to_vec()));
        say(&[own, shim::OUTSIDE, self.bubblewrap.as_os_str().as_bytes()]);
        say(&[
            b"--unshare-user",
            b"--unshare-pid",
            b"--unshare-ipc",
            b"--die-with-parent",
        ]);
        say(&[b"--cap-drop", b"ALL"]);
        if !confinement.network {
            say(&[b"--unshare-net"]);
        }
        for mount in &mounts {
            let how: &[u8] = match (mount.access, mount.optional) {
                (Reach::Read, false) => b"--ro-bind",
                (Reach::Read, true) => b"--ro-bind-try",
                (Reach::Write, false) => b"--bind",
                (Reach::Write, true) => b"--bind-try",
            };
            let path = mount.path.as_os_str().as_bytes();
            say(&[how, path, path]);
        }
        say(&[b"--dev", b"/dev", b"--proc", b"/proc", b"--ro-bind", own, own]);
        say(&[b"--chdir", cwd, b"--", own, shim::INSIDE]);
        say(&[if confinement.network {
            shim::NETWORK
        } else {
            shim::NO_NETWORK
        }]);
        // What a loader would obey must not be obeyed out here, where nothing is confined yet.
        let (inside, outside): (Vec<_>, Vec<_>) = request
            .env
            .pairs()
            .iter()
            .cloned()
            .partition(|(name, _)| is_loaders(name));
        say(&[inside.len().to_string().as_bytes()]);
        for (name, value) in inside {
            say(&[&[name.as_slice(), b"=", value.as_slice()].concat()]);
        }
        // The program, and then what it is told.
        line.extend(request.program().cloned());
        line.extend(request.argv.iter().cloned());
        Ok((line, Environment::exact(outside)))
    }
}

/// Variables that change what a program loads before its first instruction.
fn is_loaders(name: &[u8]) -> bool {
    name.starts_with(b"LD_")
        || matches!(
            name,
            b"GCONV_PATH" | b"GLIBC_TUNABLES" | b"LOCPATH" | b"MALLOC_TRACE" | b"NLSPATH"
        )
}

fn look(path: &Path) -> io::Result<Seen> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Ok(Seen::Link(std::fs::read_link(path)?)),
        Ok(_) => Ok(Seen::Thing),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Seen::Nothing)
        }
        Err(error) => Err(error),
    }
}

/// The directory that a command starts in.
pub(crate) fn directory(cwd: Option<Vec<u8>>) -> Vec<u8> {
    cwd.unwrap_or_else(|| {
        std::env::current_dir().map_or_else(|_| b"/".to_vec(), |cwd| OsString::from(cwd).into_vec())
    })
}
