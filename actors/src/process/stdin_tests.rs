//! P-21: a write that is repeated is applied once, whatever its pieces.

use std::io::Read as _;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

fn write(offset: u64, data: &'static str, eof: bool) -> Write {
    Write {
        offset,
        data: Bytes::from_static(data.as_bytes()),
        eof,
    }
}

fn open() -> (OwnedFd, InputPipe) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap() | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, InputPipe::from_fd(writer).unwrap())
}

async fn put(pipe: &mut InputPipe, write: Write) -> Result<u64, ErrorCode> {
    match apply(pipe, write).await {
        Ok(Reply::Written(written)) => Ok(written.offset),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    }
}

#[tokio::test]
async fn a_repeated_write_is_applied_once_and_a_hole_is_refused() {
    let (reader, mut pipe) = open();
    assert_eq!(put(&mut pipe, write(0, "hello", false)).await, Ok(5));
    assert_eq!(
        put(&mut pipe, write(0, "hello", false)).await,
        Ok(5),
        "the same again"
    );
    assert_eq!(
        put(&mut pipe, write(3, "lo wor", false)).await,
        Ok(9),
        "what is new of it"
    );
    assert_eq!(
        put(&mut pipe, write(1, "el", false)).await,
        Ok(9),
        "a part of it, late"
    );
    assert_eq!(
        put(&mut pipe, write(11, "!", false)).await,
        Err(ErrorCode::BadOffset)
    );
    assert_eq!(put(&mut pipe, write(9, "ld", true)).await, Ok(11));
    assert_eq!(put(&mut pipe, write(11, "", true)).await, Ok(11), "closed again");
    assert_eq!(
        put(&mut pipe, write(11, "!", false)).await,
        Err(ErrorCode::StdinClosed)
    );
    let mut got = String::new();
    std::fs::File::from(reader).read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello world");
}

#[tokio::test]
async fn a_close_that_is_repeated_with_its_data_changes_nothing() {
    let (reader, mut pipe) = open();
    assert_eq!(put(&mut pipe, write(0, "all", true)).await, Ok(3));
    assert_eq!(put(&mut pipe, write(0, "all", true)).await, Ok(3));
    assert_eq!(
        put(&mut pipe, write(0, "al", false)).await,
        Ok(3),
        "nor does its first half"
    );
    assert_eq!(
        put(&mut pipe, write(2, "ll", false)).await,
        Err(ErrorCode::StdinClosed)
    );
    let mut got = String::new();
    std::fs::File::from(reader).read_to_string(&mut got).unwrap();
    assert_eq!(got, "all");
}
