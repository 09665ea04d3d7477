//! Reading files.

use std::os::fd::AsFd;

use bytes::Bytes;
use dwell_messages::files::{BLOCK_MAX_BYTES, Contents, ReadFile};
use dwell_messages::{ErrorCode, WireError};
use rustix::fs::{OFlags, fstat};
use rustix::io::{Errno, pread};

use super::errno::failed;
use super::place::{Place, is_changed, metadata_of};

/// How often a file that is written while it is read whole is read again before that is said.
const ATTEMPTS_MAX: usize = 3;
/// What is asked for beyond what a file says it has.
const BEYOND_BYTES: usize = 16 * 1024;

/// Reads a part. A whole file that fits into one answer is of one moment: it is read again when it was written meanwhile.
pub(super) fn read(ask: &ReadFile) -> Result<Contents, WireError> {
    let place = Place::of(&ask.path, ask.links)?;
    let most = usize::try_from(ask.max_bytes)
        .unwrap_or(usize::MAX)
        .min(BLOCK_MAX_BYTES);
    for _ in 0..ATTEMPTS_MAX {
        let (file, before) = place.open_regular(OFlags::RDONLY)?;
        let size = metadata_of(&before).size;
        let (data, end) = part(file.as_fd(), ask.offset, most, size)?;
        let after = fstat(&file).map_err(failed("the file could not be looked at"))?;
        let is_whole = ask.offset == 0 && end;
        if is_whole && is_changed(&before, &after) {
            continue;
        }
        return Ok(Contents {
            data,
            end,
            metadata: metadata_of(&after),
        });
    }
    Err(WireError::new(
        ErrorCode::FileChanged,
        "the file was written each time it was read",
    ))
}

/// At most so many bytes from an offset, and whether the file ends behind them. `size` is what it said it has, which for
/// some files of the system is nothing.
pub(super) fn part(file: impl AsFd, offset: u64, most: usize, size: u64) -> Result<(Bytes, bool), WireError> {
    let expected = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut data = Vec::new();
    let mut room = expected.min(most);
    loop {
        let length = data.len();
        if length == most {
            break;
        }
        data.resize(length + room.clamp(1, most - length), 0);
        let at = offset.saturating_add(length as u64);
        let got = match pread(&file, &mut data[length..], at) {
            Ok(got) => got,
            Err(Errno::INTR) => {
                data.truncate(length);
                continue;
            }
            Err(errno) => return Err(failed("the file could not be read")(errno)),
        };
        data.truncate(length + got);
        if got == 0 {
            return Ok((data.into(), true));
        }
        // What it said it has is there: whether it has grown is seen by one more look.
        room = expected.saturating_sub(data.len()).max(BEYOND_BYTES);
    }
    let end = size > 0 && offset.saturating_add(data.len() as u64) >= size;
    Ok((data.into(), end))
}
