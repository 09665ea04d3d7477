//! What a confined command's links do to themselves: signals, and the filter that bars local sockets.
//!
//! A namespace of its own keeps a command from every network, and not from whoever listens on a socket in a file: a
//! session's bus, an agent with keys, a daemon that runs anything. So sockets of any family but the network's are barred,
//! pairs excepted, which reach nobody: those of datagrams can be sent to a path, and are barred as well. So is the ring
//! whose operations no filter sees.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, c_int, c_ulong, sock_filter, sock_fprog,
};
use rustix::io::Errno;

use super::last_errno;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// An architecture without a filter: none of its calls fits, and everything is refused.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// From here on numbers are those of another way to call, which the filter does not know.
const X32_FIRST: u32 = 0x4000_0000;
/// Offsets in what the filter is given: the call's number, the architecture, and the low halves of two arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const FIRST: u32 = 16;
const SECOND: u32 = 24;
/// The bits of a socket's type that are not flags.
const TYPE_MASK: u32 = 0xf;

/// This process, and what it becomes, is deaf to every signal that can be ignored but its children's.
pub(crate) fn ignore_signals() {
    each_signal(libc::SIG_IGN);
}

/// Every signal means what it means to any program.
pub(crate) fn default_signals() {
    each_signal(libc::SIG_DFL);
}

fn each_signal(what: libc::sighandler_t) {
    for signal in (1..=31).filter(|signal| *signal != libc::SIGCHLD) {
        // SAFETY: no handler of this program's is installed, only one of the kernel's two own answers; it refuses KILL
        // and STOP.
        unsafe { libc::signal(signal, what) };
    }
}

/// Bars sockets that are no network's, for good, for this process and all it starts. It gains no privileges any more.
///
/// # Errors
/// The kernel's: it has no filters, or this architecture has none here.
pub(crate) fn bar_sockets() -> Result<(), Errno> {
    if ARCHITECTURE == 0 {
        return Err(Errno::NOSYS);
    }
    let mut filter = filter();
    let program = sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_mut_ptr(),
    };
    const ON: c_ulong = 1;
    const OFF: c_ulong = 0;
    // SAFETY: the program and what it points to live across the call, which copies them.
    let answer = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, ON, OFF, OFF, OFF) == -1 {
            return Err(last_errno());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Jumps are forward, over so many instructions. The last two are the answers.
fn filter() -> Vec<sock_filter> {
    let refuse = SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let family = |family: c_int| family.cast_unsigned();
    let steps: [Step; 16] = [
        Step::Load(ARCHITECTURE_AT),
        Step::UnlessEqual(ARCHITECTURE, Go::Refuse),
        Step::Load(NUMBER),
        Step::IfAtLeast(X32_FIRST, Go::Refuse),
        Step::IfEqual(number(libc::SYS_io_uring_setup), Go::Refuse),
        Step::IfEqual(number(libc::SYS_socket), Go::Over(5)),
        Step::UnlessEqual(number(libc::SYS_socketpair), Go::Allow),
        Step::Load(SECOND),
        Step::Mask(TYPE_MASK),
        Step::IfEqual(libc::SOCK_DGRAM.cast_unsigned(), Go::Refuse),
        Step::Always(Go::Allow),
        Step::Load(FIRST),
        Step::IfEqual(family(libc::AF_INET), Go::Allow),
        Step::IfEqual(family(libc::AF_INET6), Go::Allow),
        Step::IfEqual(family(libc::AF_NETLINK), Go::Allow),
        Step::Always(Go::Refuse),
    ];
    let answers = steps.len();
    let mut program: Vec<sock_filter> = steps
        .into_iter()
        .enumerate()
        .map(|(at, step)| step.code(at, answers))
        .collect();
    program.push(code(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0));
    program.push(code(BPF_RET | BPF_K, refuse, 0, 0));
    program
}

enum Step {
    Load(u32),
    Mask(u32),
    IfEqual(u32, Go),
    UnlessEqual(u32, Go),
    IfAtLeast(u32, Go),
    Always(Go),
}

#[derive(Clone, Copy)]
enum Go {
    Allow,
    Refuse,
    Over(u8),
}

impl Step {
    fn code(self, at: usize, answers: usize) -> sock_filter {
        let away = |go: Go| match go {
            Go::Allow => (answers - at - 1) as u8,
            Go::Refuse => (answers - at) as u8,
            Go::Over(steps) => steps,
        };
        match self {
            Self::Load(offset) => code(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0),
            Self::Mask(mask) => code(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0),
            Self::IfEqual(value, go) => code(BPF_JMP | BPF_JEQ | BPF_K, value, away(go), 0),
            Self::UnlessEqual(value, go) => code(BPF_JMP | BPF_JEQ | BPF_K, value, 0, away(go)),
            Self::IfAtLeast(value, go) => code(BPF_JMP | BPF_JGE | BPF_K, value, away(go), 0),
            // Never fails: whatever it is, it is at least nothing.
            Self::Always(go) => code(BPF_JMP | BPF_JGE | BPF_K, 0, away(go), 0),
        }
    }
}

fn code(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}
