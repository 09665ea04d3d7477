//! The one place with unsafe code: what makes a network interface of a file, and mounts of a thread's own.
#![expect(unsafe_code, reason = "there is no safe binding of these requests")]

use std::fs::File;
use std::io;

use rustix::ioctl::{Setter, ioctl};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `TUNSETIFF` of `linux/if_tun.h`: `_IOW('T', 202, int)`.
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: packets of IP, and nothing before them.
const FLAGS: u16 = 0x0001 | 0x1000;
/// `IFNAMSIZ`, with the zero at the end.
const NAME_BYTES: usize = 16;

/// `struct ifreq` of `linux/if.h`, as far as this request reads and writes it, and as long as it is.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; 22],
}

/// Makes `file`, an open `/dev/net/tun`, the other side of a new interface of the calling thread's network namespace. It
/// goes when the file is closed.
///
/// # Errors
/// `InvalidInput` for a name that is too long; else the kernel's, for want of a capability or since the name is taken.
pub(crate) fn attach_tun(file: &File, name: &str) -> io::Result<()> {
    let mut request = InterfaceRequest {
        name: [0; NAME_BYTES],
        flags: FLAGS,
        rest: [0; 22],
    };
    if name.len() >= NAME_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request takes a pointer to a `struct ifreq`, which `InterfaceRequest` is: 40 bytes on 64 bits, the
    // name first with a zero behind it, the flags next. The kernel reads it and writes the name it chose to a copy of its
    // own, so a pointer to a constant is enough; it keeps neither.
    let setter = unsafe { Setter::<TUNSETIFF, InterfaceRequest>::new(request) };
    // SAFETY: as above; on any other file the request is unknown and fails.
    unsafe { ioctl(file, setter) }.map_err(io::Error::from)
}

/// Gives the calling thread, and what it starts from now on, mounts of its own: what is mounted there nobody else sees,
/// copies or holds.
///
/// # Errors
/// The kernel's: it takes root.
pub(crate) fn own_mounts() -> io::Result<()> {
    // SAFETY: unsafe only for CLONE_FILES, which is not asked for.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", all).map_err(io::Error::from)
}
