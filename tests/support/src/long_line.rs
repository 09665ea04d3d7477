//! Two network namespaces and a line between them that takes its time: packets, not bytes, are late, so both ends' TCP
//! behaves as it does over a distance, slow start included. For tests that run as root.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys::attach_tun;

/// Packets under way in one direction; what comes then is lost, as at a router.
const PACKETS_MAX: usize = 16 * 1024;
/// Of one packet: more than an interface's own limit.
const PACKET_BYTES: usize = 2_048;

/// Minimum, first and most of a connection's buffers where windows are open from the start.
const BUFFERS: &str = "4096 4194304 8388608";

/// One end of a [`LongLine`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Where `10.78.0.1` is.
    Near,
    /// Where `10.78.0.2` is.
    Far,
}

impl End {
    const BOTH: [Self; 2] = [Self::Near, Self::Far];

    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Near => Ipv4Addr::new(10, 78, 0, 1),
            Self::Far => Ipv4Addr::new(10, 78, 0, 2),
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Near => 'n',
            Self::Far => 'f',
        }
    }
}

/// See the module. Dropped, the namespaces and the line are gone; a thread that is still in one keeps that.
#[derive(Debug)]
pub struct LongLine {
    name: String,
    stop: Option<OwnedFd>,
    carrier: Option<JoinHandle<()>>,
}

impl LongLine {
    /// A line that takes `one_way` in each direction. `name` tells it from others of this process, in a few letters.
    ///
    /// # Errors
    /// Without root, `iproute2` or `/dev/net/tun`: the error says which program or file it was.
    pub fn new(name: &str, one_way: Duration) -> io::Result<Self> {
        let mut line = Self {
            name: format!("dwell{}{name}", std::process::id()),
            stop: None,
            carrier: None,
        };
        let mut ends = Vec::new();
        for end in End::BOTH {
            let namespace = line.namespace(end);
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            let made = line.within(end, move || tun("line0"))?.join();
            ends.push(made.map_err(|_| io::Error::other("the thread that makes an interface panicked"))??);
            let peer = match end {
                End::Near => End::Far,
                End::Far => End::Near,
            };
            let (own, other) = (end.address(), peer.address());
            ip(&format!(
                "-n {namespace} address add {own} peer {other} dev line0"
            ))?;
            ip(&format!("-n {namespace} link set line0 up"))?;
        }
        let (stopped, stop) = rustix::pipe::pipe()?;
        line.stop = Some(stop);
        let thread = std::thread::Builder::new().name("long-line".into());
        line.carrier = Some(thread.spawn(move || carry(&ends, &stopped, one_way))?);
        Ok(line)
    }

    /// Connections made from now on begin with a window of so many segments, in both directions, instead of the ten that
    /// the kernel gives: what a proxy shows that terminates TCP, and the distance without its slow start.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn initial_window(&self, segments: u32) -> io::Result<()> {
        for (end, peer) in [(End::Near, End::Far), (End::Far, End::Near)] {
            let (namespace, own, other) = (self.namespace(end), end.address(), peer.address());
            let windows = format!("initcwnd {segments} initrwnd {segments}");
            ip(&format!(
                "-n {namespace} route replace {other} dev line0 src {own} {windows}"
            ))?;
            // What a receiver's window is cut from, and what a sender may have under way: minimum, first, most.
            let set = move || {
                for path in ["/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"] {
                    std::fs::write(path, BUFFERS).map_err(|error| named(path, &error))?;
                }
                Ok::<_, io::Error>(())
            };
            let set = self.within(end, set)?.join();
            set.map_err(|_| io::Error::other("the thread that opens windows panicked"))??;
        }
        Ok(())
    }

    fn namespace(&self, end: End) -> String {
        format!("{}{}", self.name, end.letter())
    }

    /// Runs something at one end, on a thread of its own: every thread that it starts is there too.
    ///
    /// # Errors
    /// When the namespace cannot be opened, or no thread be started. The thread panics if it may not go there.
    pub fn within<T: Send + 'static>(
        &self,
        end: End,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let path = format!("/run/netns/{}", self.namespace(end));
        let namespace = File::open(&path).map_err(|error| named(&path, &error))?;
        std::thread::Builder::new().spawn(move || {
            if let Err(error) = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            {
                panic!("a network namespace cannot be entered ({error}): run as root");
            }
            work()
        })
    }
}

impl Drop for LongLine {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(carrier) = self.carrier.take() {
            drop(carrier.join());
        }
        for end in End::BOTH {
            drop(ip(&format!("netns delete {}", self.namespace(end))));
        }
    }
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn ip(arguments: &str) -> io::Result<()> {
    let outcome = Command::new("ip").args(arguments.split_whitespace()).output();
    let outcome =
        outcome.map_err(|error| io::Error::new(error.kind(), format!("ip: {error}: install iproute2")))?;
    if outcome.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&outcome.stderr);
    Err(io::Error::other(format!(
        "`ip {arguments}` failed; it needs root: {said}"
    )))
}

fn tun(name: &str) -> io::Result<File> {
    let path = "/dev/net/tun";
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open(path);
    let file = file.map_err(|error| named(path, &error))?;
    attach_tun(&file, name).map_err(|error| named(path, &error))?;
    Ok(file)
}

type Packets = VecDeque<(Instant, Vec<u8>)>;

/// Until the other end of `stopped` is closed.
fn carry(ends: &[File], stopped: &OwnedFd, one_way: Duration) {
    let [near, far] = ends else { return };
    let mut ways = [(near, far, Packets::new()), (far, near, Packets::new())];
    loop {
        let due = ways
            .iter()
            .filter_map(|(_, _, packets)| packets.front())
            .map(|(due, _)| *due)
            .min();
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut files = [
            PollFd::new(stopped, PollFlags::IN),
            PollFd::new(near, PollFlags::IN),
            PollFd::new(far, PollFlags::IN),
        ];
        match poll(&mut files, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if !files[0].revents().is_empty() {
            return;
        }
        for (from, to, packets) in &mut ways {
            if take(from, packets, one_way).is_err() || give(to, packets).is_err() {
                return;
            }
        }
    }
}

fn take(mut from: &File, packets: &mut Packets, one_way: Duration) -> io::Result<()> {
    let mut packet = [0; PACKET_BYTES];
    loop {
        match from.read(&mut packet) {
            Ok(bytes) if packets.len() < PACKETS_MAX => {
                packets.push_back((Instant::now() + one_way, packet[..bytes].to_vec()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What an interface does not take is lost, as on a wire.
fn give(mut to: &File, packets: &mut Packets) -> io::Result<()> {
    while packets.front().is_some_and(|(due, _)| *due <= Instant::now()) {
        if let Some((_, packet)) = packets.pop_front() {
            drop(to.write(&packet));
        }
    }
    Ok(())
}
