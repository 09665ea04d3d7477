//! `dwell run` on a terminal: a pseudo-terminal of the test's, the real binary, and a relay and an executor as processes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::roles::{System, dwell};

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(20);

/// Reads of the screen that may wait to be looked at.
const SCREENS_MAX: usize = 256;

/// One `dwell run` on a terminal of its own.
struct Sitting {
    child: Child,
    keyboard: File,
    /// Held open, so that the terminal's mode can be looked at when the process is gone.
    terminal: OwnedFd,
    before: Termios,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Sitting {
    fn start(system: &System, options: &[&str], command: &[&str]) -> Self {
        Self::sit(system, "run", &[options, &["--"], command].concat())
    }

    /// Any verb that reaches the executor.
    fn sit(system: &System, verb: &str, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
        set_size(&master, 40, 100);
        let before = tcgetattr(&terminal).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let child = dwell(&system.harness_home())
            .env("TERM", "vt100")
            .arg(verb)
            .args(reach(system))
            .args(arguments)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().unwrap();
        let (told, output) = sync_channel(SCREENS_MAX);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read) = screen.read(&mut buffer) {
                if read == 0 || told.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            terminal,
            before,
            output,
            seen: String::new(),
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits until the screen has shown this since the last wait.
    fn until(&mut self, text: &str) {
        let end = Instant::now() + BOUND;
        while !self.seen.contains(text) {
            match self
                .output
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(more) => self.seen.push_str(&String::from_utf8_lossy(&more)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text:?} did not come, but {:?}", self.seen)
                }
            }
        }
        self.seen.clear();
    }

    fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.terminal, rows, columns);
        // The test's terminal is nobody's controlling terminal, so the kernel tells nobody.
        kill_process(Pid::from_child(&self.child), Signal::WINCH).unwrap();
    }

    fn is_raw(&self) -> bool {
        mode(&tcgetattr(&self.terminal).unwrap()) != mode(&self.before)
    }

    /// Waits for the process's end, and that the terminal is as it was.
    fn ended(mut self) -> ExitStatus {
        let end = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(!self.is_raw(), "the terminal was not given back");
                return status;
            }
            // Also takes what it still writes: a full terminal would keep it.
            drop(self.output.recv_timeout(Duration::from_millis(10)));
            assert!(Instant::now() < end, "it does not end: {:?}", self.seen);
        }
    }
}

fn reach(system: &System) -> [&str; 4] {
    [
        "--relay",
        system.relay.ready["address"].as_str().unwrap(),
        "--executor",
        system.executor.ready["public_key"].as_str().unwrap(),
    ]
}

fn set_size(terminal: &OwnedFd, ws_row: u16, ws_col: u16) {
    let size = Winsize {
        ws_row,
        ws_col,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

/// All of a mode that can be compared.
fn mode(termios: &Termios) -> String {
    format!(
        "{:?} {:?} {:?} {:?}",
        termios.input_modes, termios.output_modes, termios.control_modes, termios.local_modes
    )
}

#[test]
fn a_shell_on_a_terminal_has_its_size_follows_it_and_gives_the_terminal_back() {
    let system = System::start(&[]);
    let mut shell = Sitting::start(&system, &[], &["sh"]);
    // The arithmetic keeps what is typed apart from what is answered.
    shell.press(b"echo up$((1+1)); stty size; echo $TERM; tty\r");
    shell.until("up2\r\n40 100\r\nvt100\r\n/dev/pts/");
    assert!(shell.is_raw(), "keys go to the remote job as they are typed");
    shell.resize(30, 90);
    shell.press(b"while [ \"$(stty size)\" != '30 90' ]; do :; done; echo followed$((1+1))\r");
    shell.until("followed2");
    shell.press(b"PS1=ask'ed'; echo set$((1+1))\r");
    shell.until("set2\r\nasked");
    shell.press(b"sleep 1000; echo cut$((1+1))\r");
    shell.press(b"\x03");
    // The interrupt throws away what was typed ahead, until the shell asks for more.
    shell.until("^C\r\nasked");
    shell.press(b"echo alive$((1+1))\r");
    shell.until("alive2");
    shell.press(b"exit 3\r");
    assert_eq!(shell.ended().code(), Some(3));
}

#[test]
fn an_interrupt_is_the_remote_jobs_and_the_terminal_comes_back() {
    let system = System::start(&[]);
    let mut run = Sitting::start(&system, &[], &["sh", "-c", "echo up; exec sleep 1000"]);
    run.until("up");
    run.press(b"\x03");
    assert_eq!(
        run.ended().code(),
        Some(130),
        "128 and SIGINT, of the command itself"
    );
}

#[test]
fn a_link_that_dies_gives_the_terminal_back() {
    let mut system = System::start(&[]);
    let mut run = Sitting::start(
        &system,
        &["--resume-for", "1"],
        &["sh", "-c", "echo up; exec sleep 1000"],
    );
    run.until("up");
    system.relay.end();
    assert_eq!(run.ended().code(), Some(125));
}

#[test]
fn a_command_that_is_killed_gives_the_terminal_back() {
    let system = System::start(&[]);
    let mut run = Sitting::start(&system, &[], &["sh", "-c", "echo up; read line; kill -9 $$"]);
    run.until("up");
    run.press(b"\r");
    assert_eq!(run.ended().code(), Some(137));
}

#[test]
fn the_way_out_leaves_a_command_that_answers_nothing() {
    let system = System::start(&[]);
    let mut run = Sitting::start(
        &system,
        &[],
        &["sh", "-c", "stty raw; trap '' INT; echo up; sleep 1000"],
    );
    run.until("up");
    run.press(b"\x03\x1d\x1d\x1d");
    assert_eq!(run.ended().code(), Some(130));
}

/// A shell that was left on no terminal at all is taken up on one, left by the way out, and taken up again.
#[test]
fn the_way_out_leaves_an_attached_command_running_and_the_next_one_has_it() {
    let system = System::start(&[]);
    let started = dwell(&system.harness_home())
        .arg("run")
        .args(reach(&system))
        .args(["--detach", "--tty=always", "--", "sh"])
        .output()
        .unwrap();
    let id = String::from_utf8(started.stdout).unwrap().trim().to_owned();
    let mut first = Sitting::sit(&system, "attach", &[&id]);
    first.press(b"x=$((40+1)); echo up$((1+1)); stty size\r");
    first.until("up2\r\n40 100");
    assert!(first.is_raw());
    first.press(b"\x1d\x1d\x1d");
    first.until("it runs on");
    assert_eq!(first.ended().code(), Some(0));
    let mut second = Sitting::sit(&system, "attach", &["--new", &id]);
    second.press(b"echo still$((x+1))\r");
    second.until("still42");
    second.press(b"exit 9\r");
    assert_eq!(second.ended().code(), Some(9));
}

#[test]
fn a_time_that_is_over_ends_an_interactive_command_too() {
    let system = System::start(&[]);
    let mut run = Sitting::start(
        &system,
        &["--timeout", "5"],
        &["sh", "-c", "echo up; exec sleep 1000"],
    );
    run.until("up");
    run.until("terminated after 5 s");
    assert_eq!(run.ended().code(), Some(124));
}

#[cfg(feature = "system-tests")]
#[test]
fn a_full_screen_program_draws_follows_a_resize_and_leaves_the_terminal_as_it_was() {
    let which = std::process::Command::new("less").arg("--version").output();
    assert!(which.is_ok(), "this test needs less: install the package `less`");
    let system = System::start(&[]);
    let file = system.homes.path().join("text");
    let lines: String = (1..=500).map(|line| format!("line {line} of it\n")).collect();
    std::fs::write(&file, lines).unwrap();
    let path = file.to_str().unwrap();
    let mut run = Sitting::start(&system, &[], &["less", "-X", path]);
    // One line of the forty is the prompt's.
    run.until("line 39 of it");
    assert!(run.is_raw());
    run.resize(20, 90);
    run.press(b"G");
    run.until("line 500 of it");
    run.press(b"g");
    run.until("line 19 of it");
    run.press(b"q");
    assert_eq!(run.ended().code(), Some(0));
}
