//! The executor's end of a command's terminal.
//!
//! The pair is made here and not by the guard: the other end is opened through the master itself, so no path and
//! no mounted `/dev/pts` of another namespace comes into it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetpgrp, tcgetwinsize, tcsetwinsize};

use super::request::TerminalSize;
use super::sys;

/// What `TERM` is when the environment does not say.
pub(super) const TERM_DEFAULT: &[u8] = b"xterm-256color";

/// The master of a command's terminal. Clones are the same terminal; when the last, and with it the reading and the
/// writing end, is gone the kernel hangs up: the session's foreground group gets `SIGHUP`.
#[derive(Debug, Clone)]
pub struct Terminal {
    master: Arc<OwnedFd>,
}

/// Both ends of a new terminal.
pub(super) struct Pair {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// # Errors
/// What the kernel answered; nothing stays open.
pub(super) fn open(size: TerminalSize) -> Result<Pair, Errno> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    set_size(&master, size)?;
    let slave = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
    Ok(Pair { master, slave })
}

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> Self {
        Self {
            master: Arc::new(master),
        }
    }

    /// Gives the terminal another size, clamped as [`TerminalSize::clamped`] does; the foreground job gets `SIGWINCH` when
    /// it differs. After the command's end nobody hears it, and it is no error.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Ok(set_size(&self.master, size)?)
    }

    /// The size it has.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn size(&self) -> io::Result<TerminalSize> {
        let size = tcgetwinsize(&self.master)?;
        Ok(TerminalSize {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }

    /// Sends INT, QUIT or TSTP to the foreground group, as the key would, whatever the terminal's mode is.
    ///
    /// # Errors
    /// `EINVAL` for any other signal.
    pub(super) fn signal_key(&self, number: i32) -> Result<(), Errno> {
        sys::signal_terminal(self.master.as_fd(), number)
    }

    /// The foreground group, if there is one.
    pub(super) fn foreground(&self) -> Option<rustix::process::Pid> {
        tcgetpgrp(&self.master).ok()
    }
}

fn set_size(master: &OwnedFd, size: TerminalSize) -> Result<(), Errno> {
    let size = size.clamped();
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size)
}
