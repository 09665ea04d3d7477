//! The one fault that a real system shows too rarely: a pidfd that cannot be opened.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::error::SpawnErrorKind;
use super::graveyard::Graveyard;
use super::start::adopt;

#[test]
fn a_child_that_cannot_be_watched_is_killed_and_reaped() {
    let (bell, _queue) = sync_channel(1);
    let mut command = Command::new("/bin/sleep");
    command
        .arg("60")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let error = adopt(child, &Arc::new(Graveyard::new(bell)), |_| Err(Errno::MFILE)).unwrap_err();
    assert_eq!(
        error.kind,
        SpawnErrorKind::Unwatchable {
            errno: Errno::MFILE.raw_os_error()
        }
    );
    assert_eq!(
        waitpid(Some(pid), WaitOptions::NOHANG).unwrap_err(),
        Errno::CHILD,
        "it is reaped"
    );
}
