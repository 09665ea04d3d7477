//! What no request about files may hold is refused before anybody acts on it, each with its own code.

#[allow(dead_code, reason = "every test binary uses another part of it")]
mod common;

use bytes::Bytes;
use common::{context, raw};
use dwell_messages::codec::{self, DecodeError, EncodeError};
use dwell_messages::files::{
    Await, BLOCK_MAX_BYTES, Block, Close, FileReply, FileRequest, GetMetadata, Handle, Links, List,
    PATH_MAX_BYTES, ReadBlock, Rename, WALK_MAX_DEPTH, WALK_MAX_DIRECTORIES, WALK_MAX_ENTRIES,
    WATCH_MAX_PATHS, Walk, WalkOn, Watch, WriteBlock, WriteFile, WriteHow,
};
use dwell_messages::{Envelope, Message, Reply, Request, RequestId, Timings};
use serde_bytes::ByteBuf;

fn encode(request: FileRequest) -> Result<Bytes, EncodeError> {
    let message = Message::Request {
        id: RequestId(3),
        process: None,
        request: Request::File(Box::new(request)),
    };
    codec::encode(&Envelope::new(context(), message), 1)
}

/// What a peer that does not check would send.
fn unchecked(request: &FileRequest) -> Bytes {
    let body = match request {
        FileRequest::Metadata(body) => rmp_serde::to_vec_named(body),
        FileRequest::Write(body) => rmp_serde::to_vec_named(body),
        FileRequest::List(body) => rmp_serde::to_vec_named(body),
        FileRequest::Rename(body) => rmp_serde::to_vec_named(body),
        FileRequest::Walk(body) => rmp_serde::to_vec_named(body),
        FileRequest::WalkOn(body) => rmp_serde::to_vec_named(body),
        FileRequest::ReadBlock(body) => rmp_serde::to_vec_named(body),
        FileRequest::WriteBlock(body) => rmp_serde::to_vec_named(body),
        FileRequest::Close(body) => rmp_serde::to_vec_named(body),
        FileRequest::Watch(body) => rmp_serde::to_vec_named(body),
        FileRequest::Await(body) => rmp_serde::to_vec_named(body),
        _ => panic!("not needed here"),
    };
    raw(request.kind().to_wire(), 3, 0, &body.expect("a body of a test"))
}

fn metadata(path: &[u8]) -> FileRequest {
    FileRequest::Metadata(GetMetadata {
        path: ByteBuf::from(path),
        links: Links::Follow,
    })
}

fn rename(from: &[u8], to: &[u8]) -> FileRequest {
    FileRequest::Rename(Rename {
        from: ByteBuf::from(from),
        to: ByteBuf::from(to),
        overwrite: false,
    })
}

#[test]
fn a_path_that_no_file_can_have_is_refused_on_both_sides_with_a_code_of_its_own() {
    let long = [&b"/"[..], &[b'a'; PATH_MAX_BYTES]].concat();
    let cases: [(FileRequest, &str, &str); 8] = [
        (metadata(b""), "path", "is empty"),
        (metadata(b"src/main.rs"), "path", "is not absolute"),
        (metadata(b"/src\0.rs"), "path", "holds a NUL byte"),
        (metadata(&long), "path", "has more than 4,096 bytes"),
        (rename(b"a", b"/b"), "from", "is not absolute"),
        (rename(b"/a", b"/b\0"), "to", "holds a NUL byte"),
        (watch(1, &[b"/a", b"b"], None), "missing", "is not absolute"),
        (watch(1, &[b"/a"], Some(b"")), "present", "is empty"),
    ];
    for (request, field, problem) in cases {
        let bytes = unchecked(&request);
        assert_eq!(encode(request), Err(EncodeError::BadPath { field, problem }));
        let error = codec::decode(&bytes).unwrap_err();
        let id = RequestId(3);
        assert_eq!(error, DecodeError::BadPath { id, field, problem });
        assert_eq!(error.request_id(), Some(id), "the link lives on");
    }
    // The positive control: the longest path that there can be, and bytes that are no text.
    assert!(encode(metadata(&long[..PATH_MAX_BYTES])).is_ok());
    let odd = metadata(b"/\xff\xfe");
    assert!(codec::decode(&unchecked(&odd)).is_ok());
}

fn walk(depth: u32, directories: u32, entries: u32) -> FileRequest {
    FileRequest::Walk(Walk {
        handle: Handle(1),
        path: ByteBuf::from(b"/"),
        max_depth: depth,
        max_directories: directories,
        max_entries: entries,
        follow: false,
        prune_hidden: false,
        ignore_files: false,
    })
}

fn write(how: WriteHow, atomic: bool, bytes: usize) -> FileRequest {
    FileRequest::Write(WriteFile {
        path: ByteBuf::from(b"/a"),
        data: vec![7; bytes].into(),
        how,
        permissions: None,
        atomic,
        sync: false,
        links: Links::Follow,
    })
}

fn watch(handle: u64, missing: &[&[u8]], present: Option<&[u8]>) -> FileRequest {
    FileRequest::Watch(Watch {
        handle: Handle(handle),
        missing: missing.iter().map(|path| ByteBuf::from(*path)).collect(),
        present: present.map(ByteBuf::from),
    })
}

fn block(handle: u64, bytes: usize) -> FileRequest {
    FileRequest::WriteBlock(WriteBlock {
        handle: Handle(handle),
        offset: 0,
        data: vec![7; bytes].into(),
    })
}

#[test]
fn fields_outside_their_bounds_are_refused_on_both_sides_by_name() {
    let read_nothing = FileRequest::ReadBlock(ReadBlock {
        handle: Handle(1),
        offset: 0,
        max_bytes: 0,
    });
    let list_nothing = FileRequest::List(List {
        path: ByteBuf::from(b"/"),
        after: ByteBuf::new(),
        max_entries: 0,
        resolve: false,
    });
    let handle = Handle(0);
    let cases = [
        (walk(WALK_MAX_DEPTH + 1, 1, 1), "max_depth"),
        (walk(1, WALK_MAX_DIRECTORIES + 1, 1), "max_directories"),
        (walk(1, 1, WALK_MAX_ENTRIES + 1), "max_entries"),
        (walk(1, 0, 1), "max_directories"),
        (walk(1, 1, 0), "max_entries"),
        (read_nothing, "max_bytes"),
        (list_nothing, "max_entries"),
        (FileRequest::WalkOn(WalkOn { handle }), "handle"),
        (
            FileRequest::Close(Close {
                handle,
                discard: false,
            }),
            "handle",
        ),
        (block(0, 1), "handle"),
        (write(WriteHow::Append, true, 1), "atomic"),
        (FileRequest::Await(Await { handle }), "handle"),
        (watch(0, &[b"/a"], None), "handle"),
        (watch(1, &[], None), "missing"),
        (watch(1, &[&b"/a"[..]; WATCH_MAX_PATHS + 1], None), "missing"),
    ];
    for (request, name) in cases {
        let bytes = unchecked(&request);
        match encode(request) {
            Err(EncodeError::BadString { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
        let error = codec::decode(&bytes).unwrap_err();
        assert_eq!(error.request_id(), Some(RequestId(3)));
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(encode(walk(WALK_MAX_DEPTH, WALK_MAX_DIRECTORIES, WALK_MAX_ENTRIES)).is_ok());
    assert!(encode(walk(0, 1, 1)).is_ok());
    assert!(encode(watch(1, &[&b"/a"[..]; WATCH_MAX_PATHS], Some(b"/b"))).is_ok());
}

#[test]
fn content_past_a_block_is_refused_and_a_whole_block_is_not() {
    for (request, fits) in [
        (write(WriteHow::Truncate, true, BLOCK_MAX_BYTES), true),
        (block(1, BLOCK_MAX_BYTES), true),
        (write(WriteHow::Truncate, true, BLOCK_MAX_BYTES + 1), false),
        (block(1, BLOCK_MAX_BYTES + 1), false),
    ] {
        assert_eq!(codec::decode(&unchecked(&request)).is_ok(), fits);
        assert_eq!(encode(request).is_ok(), fits);
    }
    let answer = |bytes: usize| Message::Response {
        id: RequestId(3),
        result: Ok(Reply::File(FileReply::Block(Block {
            data: vec![7; bytes].into(),
            end: false,
        }))),
        timings: Timings::default(),
    };
    assert!(codec::encode(&Envelope::new(context(), answer(BLOCK_MAX_BYTES)), 1).is_ok());
    assert!(codec::encode(&Envelope::new(context(), answer(BLOCK_MAX_BYTES + 1)), 1).is_err());
}
