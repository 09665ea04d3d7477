//! A keeper: the parent of one command at a time, and the one everything below that command falls back to.
//!
//! Owns the command's leader, its wait status and its tree. Starts, reaps, signals, terminates, reports; never reads or
//! writes the command's data. One thread; its connection is its mailbox, which the executor fills by at most a few words
//! a command. Its end: when the executor's side is gone. What it leaves behind then falls to the guard, which kills it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getppid};

use super::cgroup::{Cgroup, OomCounter};
use super::channel::{self, Packet, Received};
use super::codec::BadMessage;
use super::tree::{self, Identity};
use super::wire::{FromKeeper, REQUEST_MAX_BYTES, Scope, ToKeeper};
use crate::spawn::launch::{ChildEnds, Place, above_standard, launch};
use crate::spawn::sys::{self, Ended};
use crate::spawn::{Exit, ExitStatus, SpawnErrorKind, SpawnRequest, TreeReport};

/// How long a killed tree is waited for before what is left of it is reported as unkillable.
pub(crate) const KILL_BOUND: Duration = Duration::from_secs(2);

/// The first pause between two passes of killing; each next one is twice as long.
const PASS_PAUSE: Duration = Duration::from_millis(4);

/// The longest pause between two passes, once the tree has been reported as unkillable.
const PASS_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How many looks in a row must find nobody, where the spared keep "no children left" from being the sign.
const QUIET_PASSES: u32 = 3;

/// See the module.
pub(super) struct Keeper {
    socket: OwnedFd,
    children: OwnedFd,
    guard: Option<Pid>,
    /// Whether what it keeps may outlive the executor.
    detached: bool,
    cgroup: Option<Cgroup>,
    oom: OomCounter,
    command: Option<Command>,
}

/// The command it keeps, until the last of its tree is gone.
struct Command {
    generation: u32,
    leader: Pid,
    ooms_before: Option<u64>,
    ending: Option<Ending>,
}

/// A termination under way.
struct Ending {
    at: Instant,
    told: u32,
    killing: Option<Killing>,
}

struct Killing {
    since: Instant,
    pause: Duration,
    ended_by_term: u32,
    killed: BTreeSet<Identity>,
    is_reported: bool,
}

/// What goes on.
enum Life {
    Goes,
    Ends,
}

impl Keeper {
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn new(socket: OwnedFd, detached: bool, cgroup: Option<Cgroup>) -> Result<Self, Errno> {
        Ok(Self {
            socket,
            children: sys::child_signals()?,
            guard: getppid(),
            detached,
            oom: OomCounter::of(cgroup.as_ref()),
            cgroup,
            command: None,
        })
    }

    /// Serves until the executor's side is gone.
    pub(super) fn run(mut self) {
        loop {
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&self.children, PollFlags::IN),
            ];
            if channel::wait(&mut fds, self.next_pass()).is_err() {
                return;
            }
            let [socket, children] = fds.map(|fd| !fd.revents().is_empty());
            if children && matches!(self.reap(), Life::Ends) {
                // Without a command nobody misses it; the guard makes another.
                return;
            }
            if socket && matches!(self.hear(), Life::Ends) {
                return self.executor_is_gone();
            }
            self.pass_if_due();
        }
    }

    fn hear(&mut self) -> Life {
        match channel::receive(&self.socket) {
            Ok(Received::Packet(packet)) => self.obey(packet).map_or(Life::Ends, |()| Life::Goes),
            Ok(Received::Nothing) => Life::Goes,
            Ok(Received::End) | Err(_) => Life::Ends,
        }
    }

    fn obey(&mut self, packet: Packet) -> Result<(), BadMessage> {
        match ToKeeper::decode(&packet.bytes)? {
            ToKeeper::Start { generation, request } => self.start(generation, &request, packet.attached),
            ToKeeper::StartAttached { generation } => {
                let mut attached = packet.attached;
                let file = attached.pop().ok_or(BadMessage("nothing attached"))?;
                match ToKeeper::decode(&read_file(file)?)? {
                    ToKeeper::Start {
                        generation: same,
                        request,
                    } if same == generation => self.start(generation, &request, attached),
                    ToKeeper::Start { .. }
                    | ToKeeper::StartAttached { .. }
                    | ToKeeper::Signal { .. }
                    | ToKeeper::Terminate { .. } => Err(BadMessage("not the start that was announced")),
                }
            }
            ToKeeper::Signal {
                generation,
                scope,
                signal,
            } => {
                if self.keeps(generation)
                    && let Some(signal) = Signal::from_named_raw(signal)
                {
                    signal_scope(scope, signal);
                }
                Ok(())
            }
            ToKeeper::Terminate { generation, grace_ms } => {
                self.terminate(generation, Duration::from_millis(u64::from(grace_ms)));
                Ok(())
            }
        }
    }

    fn keeps(&self, generation: u32) -> bool {
        self.command
            .as_ref()
            .is_some_and(|command| command.generation == generation)
    }

    fn start(
        &mut self,
        generation: u32,
        request: &SpawnRequest,
        attached: Vec<OwnedFd>,
    ) -> Result<(), BadMessage> {
        if self.command.is_some() {
            return Err(BadMessage("a start while a command is kept"));
        }
        let stdio = <[OwnedFd; 3]>::try_from(attached).map_err(|_| BadMessage("not three descriptors"))?;
        let started = self.launch(request, stdio);
        let (message, pidfd) = match &started {
            Ok((leader, pidfd)) => {
                let pid = leader.as_raw_nonzero().get().unsigned_abs();
                (FromKeeper::Started { generation, pid }, Some(pidfd.as_fd()))
            }
            Err(kind) => (
                FromKeeper::Failed {
                    generation,
                    kind: *kind,
                },
                None,
            ),
        };
        self.send(message, pidfd.as_slice());
        if let Ok((leader, _)) = started {
            self.command = Some(Command {
                generation,
                leader,
                // Behind the answer, which it would delay: nobody runs out of memory in as many microseconds.
                ooms_before: self.oom.read(),
                ending: None,
            });
        }
        Ok(())
    }

    fn launch(&self, request: &SpawnRequest, stdio: [OwnedFd; 3]) -> Result<(Pid, OwnedFd), SpawnErrorKind> {
        let [stdin, stdout, stderr] = stdio;
        let raise = |fd| {
            above_standard(fd).map_err(|errno| SpawnErrorKind::ResourceExhausted {
                errno: errno.raw_os_error(),
            })
        };
        let ends = ChildEnds {
            stdio: [raise(stdin)?, raise(stdout)?, raise(stderr)?],
        };
        let place = Place {
            dies_with_parent: !self.detached,
            cgroup: self.cgroup.as_ref().map(Cgroup::directory),
        };
        launch(request, &ends, place)
    }

    /// Reaps whoever died: the leader, and orphans that fell to us.
    fn reap(&mut self) -> Life {
        drain(&self.children);
        let mut leader_ended = None;
        let is_empty = loop {
            match sys::wait_any() {
                Ok(Some((pid, ended))) => {
                    if self.command.as_ref().is_some_and(|command| command.leader == pid) {
                        leader_ended = Some(ended);
                    }
                }
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let Some(command) = &mut self.command else {
            return Life::Goes;
        };
        let generation = command.generation;
        // Before the word that it is empty, after which the next command may come.
        let was_killed = command
            .ending
            .as_ref()
            .is_some_and(|ending| ending.killing.is_some());
        let renewed = match &mut self.cgroup {
            Some(cgroup) if is_empty && was_killed => cgroup.renew(),
            Some(_) | None => Ok(()),
        };
        if let Some(ended) = leader_ended {
            let oom_killed = oom_killed(ended, command.ooms_before, &self.oom);
            let exit = exit_of(ended, oom_killed);
            let message = FromKeeper::Exited {
                generation,
                exit,
                is_empty,
            };
            self.send(message, &[]);
        } else if is_empty {
            self.send(FromKeeper::TreeEmpty { generation }, &[]);
        }
        if is_empty && let Some(command) = self.command.take() {
            self.report_end(&command, 0);
        }
        if renewed.is_ok() { Life::Goes } else { Life::Ends }
    }

    fn terminate(&mut self, generation: u32, grace: Duration) {
        let Some(command) = self
            .command
            .as_mut()
            .filter(|command| command.generation == generation)
        else {
            // It was over before the word came: whoever waits is told so.
            let report = TreeReport::default();
            return self.send(FromKeeper::TreeEnded { generation, report }, &[]);
        };
        let at = Instant::now() + grace;
        match &mut command.ending {
            Some(ending) => ending.at = ending.at.min(at),
            None => {
                let mut told = 0;
                if !grace.is_zero() {
                    for (process, _) in tree::descendants(own_pid(), &[]) {
                        if tree::signal(process, Signal::TERM).is_ok() {
                            told += 1;
                            // A stopped process hears nothing until it goes on.
                            let _ = tree::signal(process, Signal::CONT);
                        }
                    }
                }
                command.ending = Some(Ending {
                    at,
                    told,
                    killing: None,
                });
            }
        }
        self.pass_if_due();
    }

    /// How long until the next pass of killing.
    fn next_pass(&self) -> Option<Duration> {
        let ending = self.command.as_ref()?.ending.as_ref()?;
        Some(ending.at.saturating_duration_since(Instant::now()))
    }

    fn pass_if_due(&mut self) {
        let now = Instant::now();
        let cgroup = self.cgroup.as_ref();
        let Some(ending) = self.command.as_mut().and_then(|command| command.ending.as_mut()) else {
            return;
        };
        if now < ending.at {
            return;
        }
        let told = ending.told;
        let killing = ending.killing.get_or_insert_with(|| {
            let left = count(tree::descendants(own_pid(), &[]).len());
            Killing {
                since: now,
                pause: PASS_PAUSE,
                ended_by_term: told.saturating_sub(left),
                killed: BTreeSet::new(),
                is_reported: false,
            }
        });
        if let Some(cgroup) = cgroup {
            for (process, _) in tree::descendants(own_pid(), &[]) {
                killing.killed.insert(process);
            }
            cgroup.kill();
        }
        killing.killed.append(&mut tree::kill_pass(own_pid(), &[]).killed);
        let overdue = now.saturating_duration_since(killing.since) >= KILL_BOUND && !killing.is_reported;
        killing.is_reported |= overdue;
        killing.pause = (killing.pause * 2).min(PASS_PAUSE_MAX);
        if !killing.is_reported {
            killing.pause = killing.pause.min(KILL_BOUND / 8);
        }
        ending.at = now + killing.pause;
        if overdue {
            let left = count(tree::descendants(own_pid(), &[]).len());
            if let Some(command) = self.command.take() {
                self.report_end(&command, left);
                self.command = Some(command);
            }
        }
    }

    /// Says what came of a termination, if one was asked for and was not yet reported.
    fn report_end(&self, command: &Command, unkillable: u32) {
        let Some(ending) = &command.ending else { return };
        let report = match &ending.killing {
            Some(killing) if killing.is_reported && unkillable == 0 => return,
            Some(killing) => TreeReport {
                ended_by_term: killing.ended_by_term,
                killed: count(killing.killed.len()).saturating_sub(unkillable),
                unkillable,
            },
            None => TreeReport {
                ended_by_term: ending.told,
                ..TreeReport::default()
            },
        };
        let generation = command.generation;
        self.send(FromKeeper::TreeEnded { generation, report }, &[]);
    }

    fn send(&self, message: FromKeeper, attached: &[std::os::fd::BorrowedFd<'_>]) {
        // Who is not there to hear it, or has let hundreds of words lie, is past being told.
        let _ = channel::send(&self.socket, &message.encode(), attached);
    }

    /// The executor died, or gave this keeper up.
    fn executor_is_gone(mut self) {
        if self.detached {
            // It stays until its command's tree is gone, so that it leaves no zombies.
            while reap_all(|_| ()).is_ok()
                && channel::wait(&mut [PollFd::new(&self.children, PollFlags::IN)], None).is_ok()
            {
                drain(&self.children);
            }
            return;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if self.guard.is_some() && getppid() == self.guard {
            // The guard inherits what is left, and kills it together with everybody else's, with one look at `/proc`.
            return;
        }
        self.command = None;
        end_descendants(&[], KILL_BOUND, |_| ());
    }
}

/// Kills all descendants of this process, which is a subreaper, until none is left or the time is over. The spared are
/// not waited for. `reaped` is told of every child that died meanwhile, the spared ones too.
pub(super) fn end_descendants(spare: &[u32], bound: Duration, mut reaped: impl FnMut(Pid)) {
    let deadline = Instant::now() + bound;
    let mut quiet = 0;
    loop {
        let killed = tree::kill_pass(own_pid(), spare).killed;
        quiet = if killed.is_empty() { quiet + 1 } else { 0 };
        let none_is_left = reap_all(&mut reaped).is_err();
        // A parent that dies while it is looked for hides its children from that one look.
        let only_spared_are_left = !spare.is_empty() && quiet >= QUIET_PASSES;
        if none_is_left || only_spared_are_left || Instant::now() >= deadline {
            return;
        }
        // Nothing to wait on but the deaths themselves, which may be anybody's: a short pause.
        let _ = channel::wait(&mut [], Some(PASS_PAUSE));
    }
}

/// Reaps every dead child.
///
/// # Errors
/// `ECHILD` when none is left.
pub(super) fn reap_all(mut reaped: impl FnMut(Pid)) -> Result<(), Errno> {
    while let Some((pid, _)) = sys::wait_any()? {
        reaped(pid);
    }
    Ok(())
}

/// Empties a descriptor of signals; only that there were any counts.
pub(super) fn drain(signals: &OwnedFd) {
    let mut ignored = [0; 1024];
    while rustix::io::read(signals, &mut ignored).is_ok_and(|read| read == ignored.len()) {}
}

pub(super) fn own_pid() -> u32 {
    getpid().as_raw_nonzero().get().unsigned_abs()
}

fn signal_scope(scope: Scope, signal: Signal) {
    let tree = tree::descendants(own_pid(), &[]);
    let foreground = tree.iter().find_map(|(_, stat)| stat.foreground);
    for (process, stat) in tree {
        let is_meant = match scope {
            Scope::Tree => true,
            Scope::Foreground => Some(stat.group) == foreground,
        };
        if is_meant {
            // Gone, or not ours to signal: the caller sees who is left.
            let _ = tree::signal(process, signal);
        }
    }
}

fn read_file(file: OwnedFd) -> Result<Vec<u8>, BadMessage> {
    use std::io::{Read, Seek};
    let mut file = std::fs::File::from(file);
    let mut bytes = Vec::new();
    let unreadable = |_| BadMessage("the attached file cannot be read");
    file.rewind().map_err(unreadable)?;
    let read = file.take(REQUEST_MAX_BYTES as u64).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    Ok(bytes)
}

fn exit_of(ended: Ended, oom_killed: Option<bool>) -> Exit {
    Exit {
        status: match ended.status {
            Ok(code) => ExitStatus::Code(code),
            Err(signal) => ExitStatus::Signal(signal),
        },
        core_dumped: ended.core_dumped,
        user_us: Some(ended.user_us),
        system_us: Some(ended.system_us),
        max_rss_kib: Some(ended.max_rss_kib),
        oom_killed,
    }
}

/// The kernel's out-of-memory killer sends KILL and counts it in the group that ran out.
fn oom_killed(ended: Ended, before: Option<u64>, counter: &OomCounter) -> Option<bool> {
    if ended.status != Err(libc::SIGKILL) {
        return Some(false);
    }
    Some(counter.read()? > before?)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
