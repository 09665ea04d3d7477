//! The unsafe half of starting and reaping processes: what neither std nor rustix has a safe form for.
//!
//! It stands apart from the crate's other unsafe module, the telemetry clock, because the guard is made of this one and
//! must stay small enough to be read at one sitting. Everything here is a system call and its proof; what is decided is
//! decided elsewhere.

#![expect(
    unsafe_code,
    reason = "system calls without a safe form; each block says why it is sound"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};

use rustix::io::Errno;
use rustix::process::Pid;

use super::{last_errno, wait_pidfd_blocking};

/// What a started child runs on until it executes its program. It calls a dozen system calls and nothing else.
const CHILD_STACK_BYTES: usize = 64 * 1024;

/// The highest signal number, real-time ones included.
const SIGNAL_MAX: c_int = 64;

/// The child's steps on the way to its program, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A session of its own and, for a terminal, the control of it.
    Session,
    /// Descriptors 0, 1 and 2.
    Stdio,
    /// The working directory.
    Cwd,
    /// The limit with this index in the plan.
    Limit(usize),
    /// The priority.
    Nice,
    /// The program.
    Exec,
    /// Before there was a child.
    Clone,
}

/// Where it ended instead, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchFailed {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
}

/// Everything a child does before its program, prepared: it allocates nothing.
pub(crate) struct Plan<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a [CString],
    pub(crate) env: &'a [CString],
    pub(crate) cwd: Option<&'a CStr>,
    /// All three are 3 or higher.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether descriptor 0 is a terminal that becomes the session's own.
    pub(crate) is_terminal: bool,
    /// Whether the kernel kills it when the thread that starts it ends.
    pub(crate) dies_with_parent: bool,
    /// Kernel numbers of resource limits, and what both the soft and the hard one become.
    pub(crate) limits: &'a [(u32, u64)],
    pub(crate) nice: Option<i32>,
    /// The control group it begins in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// What the child reads. Plain pointers into what the parent keeps alive while it waits.
struct Order {
    program: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    cwd: *const c_char,
    stdio: [c_int; 3],
    is_terminal: bool,
    dies_with_parent: bool,
    limits: *const (u32, u64),
    limit_count: usize,
    nice: Option<i32>,
    report: *mut Report,
}

/// What the child says when it does not reach its program. In memory that both see.
#[derive(Clone, Copy)]
struct Report {
    step: u32,
    index: u32,
    errno: i32,
}

/// A page that parent and child see.
struct SharedPage(*mut Report);

impl SharedPage {
    fn new() -> Result<Self, Errno> {
        // SAFETY: a fresh anonymous mapping touches no memory of ours; the result is checked.
        let page = unsafe {
            libc::mmap(
                null_mut(),
                size_of::<Report>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(last_errno());
        }
        Ok(Self(page.cast()))
    }

    /// What the child wrote. The kernel gave the page zeroed, and zero is no step.
    fn read(&self) -> Report {
        // SAFETY: the mapping is live, aligned to a page and as long as a `Report`, whose every bit pattern is valid.
        unsafe { self.0.read_volatile() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: it is the mapping `new` made, and nothing else points into it: the child has executed or ended.
        unsafe { libc::munmap(self.0.cast(), size_of::<Report>()) };
    }
}

/// Starts a program in a session of its own: signals at their defaults, none blocked, descriptors 0, 1 and 2 and no
/// other. Returns when it runs or is known not to. Never copies this process's memory, whatever its size.
///
/// # Errors
/// The step that failed. No process is left.
pub(crate) fn launch(plan: &Plan<'_>) -> Result<(Pid, OwnedFd), LaunchFailed> {
    let before = |errno| LaunchFailed {
        step: Step::Clone,
        errno,
    };
    let page = SharedPage::new().map_err(before)?;
    let (argv, env) = (pointers(plan.argv), pointers(plan.env));
    let mut order = Order {
        program: plan.program.as_ptr(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        cwd: plan.cwd.map_or(null(), CStr::as_ptr),
        stdio: plan.stdio.map(|fd| fd.as_raw_fd()),
        is_terminal: plan.is_terminal,
        dies_with_parent: plan.dies_with_parent,
        limits: plan.limits.as_ptr(),
        limit_count: plan.limits.len(),
        nice: plan.nice,
        report: page.0,
    };
    let (pid, pidfd) = match plan.cgroup {
        None => clone_guest(&mut order),
        Some(cgroup) => clone_into(&mut order, cgroup),
    }
    .map_err(before)?;
    let report = page.read();
    let Some(step) = step_of(report) else {
        return Ok((pid, pidfd));
    };
    // It has written and is ending; nobody else knows it.
    let _ = wait_pidfd_blocking(pidfd.as_fd());
    Err(LaunchFailed {
        step,
        errno: Errno::from_raw_os_error(report.errno),
    })
}

/// The child runs in this process's memory while this thread stands still, as `posix_spawn` does it.
fn clone_guest(order: &mut Order) -> Result<(Pid, OwnedFd), Errno> {
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(CHILD_STACK_BYTES / size_of::<u128>());
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the child runs `child_entry` on a stack of its own, whose top is aligned to 16 bytes and whose owner
    // outlives it: CLONE_VFORK holds this thread until the child has executed its program or ended. `order` and all it
    // points to live as long. Every signal is blocked around the call, so no handler of this process runs in the child.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity());
        with_signals_blocked(|| {
            libc::clone(
                child_entry,
                top.cast::<c_void>(),
                flags,
                std::ptr::from_mut(order).cast::<c_void>(),
                &raw mut pidfd,
            )
        })
    };
    started(pid, pidfd)
}

/// The child begins in another control group. Otherwise as `clone_guest`, which libc's call has no place for.
fn clone_into(order: &mut Order, cgroup: BorrowedFd<'_>) -> Result<(Pid, OwnedFd), Errno> {
    let mut pidfd: c_int = -1;
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(CHILD_STACK_BYTES / size_of::<u128>());
    // SAFETY: all zero is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    let wanted = libc::CLONE_PIDFD | libc::CLONE_VFORK;
    arguments.flags = u64::from(wanted.cast_unsigned()) | CLONE_INTO_CGROUP;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    // SAFETY: `arguments` names a stack of its own for the child that outlives it, as `order` does: CLONE_VFORK holds
    // this thread. Every signal is blocked around the call.
    let pid = unsafe { with_signals_blocked(|| clone3(&mut arguments, &mut stack, order)) };
    started(pid, pidfd)
}

/// The call itself, which enters the child on its own stack before any compiled code of this function could touch this
/// one. Answers as libc does: -1 and `errno`.
///
/// # Safety
/// The child's stack and the order outlive the child, no signal can arrive, and the arguments ask for CLONE_VFORK.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    arguments: &mut libc::clone_args,
    stack: &mut Vec<MaybeUninit<u128>>,
    order: &mut Order,
) -> c_int {
    arguments.flags |= u64::from(libc::CLONE_VM.cast_unsigned());
    arguments.stack = stack.as_mut_ptr() as u64;
    arguments.stack_size = (stack.capacity() * size_of::<u128>()) as u64;
    let answer: i64;
    // SAFETY: the kernel reads a structure of the size given and, in the parent, changes what is declared. The child
    // never leaves the block: it calls `child_entry`, which does not return, with its stack aligned as a call wants it.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {order}",
            "call {child}",
            "ud2",
            "2:",
            order = in(reg) std::ptr::from_mut(order),
            child = in(reg) child_entry as extern "C" fn(*mut c_void) -> c_int,
            inlateout("rax") libc::SYS_clone3 => answer,
            in("rdi") std::ptr::from_mut(arguments),
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
        if answer < 0 {
            *libc::__errno_location() = c_int::try_from(-answer).unwrap_or(libc::EINVAL);
            return -1;
        }
    }
    c_int::try_from(answer).unwrap_or(-1)
}

/// Without an entry of its own for this processor the child is a copy of the process, on a copy of this stack.
///
/// # Safety
/// As above.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone3(
    arguments: &mut libc::clone_args,
    _stack: &mut Vec<MaybeUninit<u128>>,
    order: &mut Order,
) -> c_int {
    // SAFETY: without CLONE_VM this is a fork, and the child makes async-signal-safe system calls only.
    unsafe {
        let pid = libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(arguments),
            size_of::<libc::clone_args>(),
        );
        if pid == 0 {
            child(order)
        }
        c_int::try_from(pid).unwrap_or(-1)
    }
}

/// See `clone3(2)`; the crate lacks it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn started(pid: c_int, pidfd: c_int) -> Result<(Pid, OwnedFd), Errno> {
    if pid <= 0 {
        return Err(last_errno());
    }
    let pid = Pid::from_raw(pid).ok_or(Errno::INVAL)?;
    // SAFETY: the kernel opened it for this call, and nobody else knows its number.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Keeps `errno` as the call left it.
///
/// # Safety
/// None of its own: it only exchanges this thread's mask.
unsafe fn with_signals_blocked(call: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: both sets are initialised by the calls that write them, and belong to this frame.
    unsafe {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let answer = call();
        let errno = *libc::__errno_location();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut());
        *libc::__errno_location() = errno;
        answer
    }
}

extern "C" fn child_entry(order: *mut c_void) -> c_int {
    // SAFETY: `clone_guest` passes an `Order` that outlives this child.
    unsafe { child(&*order.cast::<Order>()) }
}

/// The child, until its program.
///
/// # Safety
/// Only in a fresh child, with every signal blocked and every pointer of the order valid.
unsafe fn child(order: &Order) -> ! {
    // SAFETY: async-signal-safe system calls with valid pointers only; nothing allocates, locks or unwinds.
    unsafe {
        defaults();
        if libc::setsid() == -1 {
            fail(order, Step::Session);
        }
        if order.dies_with_parent {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        if order.is_terminal && libc::ioctl(order.stdio[0], libc::TIOCSCTTY, 0) == -1 {
            fail(order, Step::Session);
        }
        for (target, source) in (0..).zip(order.stdio) {
            if libc::dup2(source, target) == -1 {
                fail(order, Step::Stdio);
            }
        }
        // Whatever the embedding program left inheritable is none of the command's business.
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        if !order.cwd.is_null() && libc::chdir(order.cwd) == -1 {
            fail(order, Step::Cwd);
        }
        for index in 0..order.limit_count {
            let (resource, value) = *order.limits.add(index);
            let limit = libc::rlimit64 {
                rlim_cur: value,
                rlim_max: value,
            };
            if libc::setrlimit64(resource as _, &raw const limit) == -1 {
                fail(order, Step::Limit(index));
            }
        }
        if let Some(nice) = order.nice
            && libc::setpriority(libc::PRIO_PROCESS, 0, nice) == -1
        {
            fail(order, Step::Nice);
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), null_mut());
        libc::execve(order.program, order.argv, order.env);
        fail(order, Step::Exec)
    }
}

/// Every signal to its default: what this process ignores its commands must not.
///
/// # Safety
/// Only in a fresh child.
unsafe fn defaults() {
    // The kernel's structure: handler, flags, restorer and one word of mask; all zero is the default action. Raw,
    // because libc refuses the two signals it keeps to itself, which somebody above us may have ignored all the same.
    let action = [0_u64; 4];
    // SAFETY: the kernel reads one such structure and writes none; for KILL and STOP it refuses.
    unsafe {
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                null_mut::<c_void>(),
                size_of::<u64>(),
            );
        }
    }
}

/// # Safety
/// Only in a fresh child, with the order's page mapped.
unsafe fn fail(order: &Order, step: Step) -> ! {
    let (number, index) = match step {
        Step::Session => (1, 0),
        Step::Stdio => (2, 0),
        Step::Cwd => (3, 0),
        Step::Limit(index) => (4, index),
        Step::Nice => (5, 0),
        Step::Exec => (6, 0),
        Step::Clone => (7, 0),
    };
    // SAFETY: the page is mapped until the parent has seen this child's end.
    unsafe {
        order.report.write_volatile(Report {
            step: number,
            index: index as u32,
            errno: *libc::__errno_location(),
        });
        libc::_exit(127)
    }
}

fn step_of(report: Report) -> Option<Step> {
    match report.step {
        1 => Some(Step::Session),
        2 => Some(Step::Stdio),
        3 => Some(Step::Cwd),
        4 => Some(Step::Limit(report.index as usize)),
        5 => Some(Step::Nice),
        6 => Some(Step::Exec),
        7 => Some(Step::Clone),
        _ => None,
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([null()])
        .collect()
}
