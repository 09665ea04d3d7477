//! This program as a link of the chain: outside of bubblewrap, and inside. See the module above.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::spawn::sys;

/// First argument of the link outside; bubblewrap's whole line follows.
pub(super) const OUTSIDE: &[u8] = b"--dwell-confines-from-outside";
/// First argument of the link inside. `NETWORK` or `NO_NETWORK`, the number of variables, they, the program, and what
/// it is told follow.
pub(super) const INSIDE: &[u8] = b"--dwell-confines-from-inside";
pub(super) const NETWORK: &[u8] = b"network";
pub(super) const NO_NETWORK: &[u8] = b"no-network";

/// What is the executor's own failure, as `dwell run` has it.
const OWN_FAILURE: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Becomes a link of the chain where this process was started as one; otherwise returns at once. Call it before any
/// thread is started.
pub(crate) fn recognise() {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().map(OsStr::as_bytes) {
        Some(OUTSIDE) => outside(arguments),
        Some(INSIDE) => inside(arguments),
        Some(_) | None => {}
    }
}

/// Deaf from here to bubblewrap's end: what is sent to the tree is for the command.
fn outside(mut line: impl Iterator<Item = OsString>) {
    let Some(bubblewrap) = line.next() else {
        fail("no program was named")
    };
    sys::ignore_signals();
    execute(Command::new(bubblewrap).args(line))
}

fn inside(mut line: impl Iterator<Item = OsString>) {
    let network = line.next();
    let count = line
        .next()
        .and_then(|count| count.to_str()?.parse::<usize>().ok());
    let (Some(network), Some(count)) = (network, count) else {
        fail("the command was cut short")
    };
    let variables: Vec<OsString> = line.by_ref().take(count).collect();
    let (Some(program), Some(name)) = (line.next(), line.next()) else {
        fail("no program was named")
    };
    let mut command = Command::new(program);
    command.arg0(name).args(line);
    for variable in &variables {
        let bytes = variable.as_bytes();
        if let Some(at) = bytes.iter().position(|byte| *byte == b'=') {
            command.env(
                OsStr::from_bytes(&bytes[..at]),
                OsStr::from_bytes(&bytes[at + 1..]),
            );
        }
    }
    sys::default_signals();
    if network.as_bytes() != NETWORK
        && let Err(errno) = sys::bar_sockets()
    {
        fail(&format!("the network cannot be barred: {errno}"));
    }
    execute(&mut command)
}

fn execute(command: &mut Command) -> ! {
    let error = command.exec();
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    say(&format!("the command was not executed: {error}"));
    sys::exit_now(code)
}

fn fail(why: &str) -> ! {
    say(why);
    sys::exit_now(OWN_FAILURE)
}

#[expect(
    clippy::print_stderr,
    reason = "whoever reads the command's standard error is told"
)]
fn say(text: &str) {
    eprintln!("dwell: {text}");
}
