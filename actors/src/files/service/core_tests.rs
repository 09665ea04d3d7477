use dwell_messages::files::{
    Access, Close, GetMetadata, Links, Open, ReadBlock, ReadFile, Walk, WalkOn, Watch,
};
use serde_bytes::ByteBuf;

use super::*;

type Core = ServiceCore<&'static str, &'static str>;

fn path() -> ByteBuf {
    ByteBuf::from(&b"/a"[..])
}

fn look() -> Claim {
    Claim::of(&FileRequest::Metadata(GetMetadata {
        path: path(),
        links: Links::Follow,
    }))
}

fn read(max_bytes: u32) -> Claim {
    Claim::of(&FileRequest::Read(ReadFile {
        path: path(),
        offset: 0,
        max_bytes,
        links: Links::Follow,
    }))
}

fn open(handle: u64) -> Claim {
    Claim::of(&FileRequest::Open(Open {
        handle: Handle(handle),
        path: path(),
        access: Access::Read,
        permissions: None,
        atomic: false,
        sync: false,
        links: Links::Follow,
    }))
}

fn block(handle: u64) -> Claim {
    Claim::of(&FileRequest::ReadBlock(ReadBlock {
        handle: Handle(handle),
        offset: 0,
        max_bytes: 10,
    }))
}

fn close(handle: u64) -> Claim {
    Claim::of(&FileRequest::Close(Close {
        handle: Handle(handle),
        discard: false,
    }))
}

fn walk(handle: u64) -> Claim {
    Claim::of(&FileRequest::Walk(Walk {
        handle: Handle(handle),
        path: path(),
        max_depth: 1,
        max_directories: 1,
        max_entries: 1,
        follow: false,
        prune_hidden: false,
        ignore_files: false,
    }))
}

fn code(refused: Result<(), (&'static str, WireError)>) -> Option<ErrorCode> {
    refused.err().map(|(_, error)| error.code)
}

#[test]
fn a_session_has_few_short_jobs_and_one_long_one_at_a_time() {
    let mut core = Core::default();
    for _ in 0..5 {
        core.submit("short", look()).unwrap();
        core.submit(
            "walk on",
            Claim::of(&FileRequest::WalkOn(WalkOn { handle: Handle(1) })),
        )
        .unwrap_err();
    }
    for handle in 1..=3 {
        core.submit("walk", walk(handle)).unwrap();
    }
    let mut at_work = Vec::new();
    while let Some(begun) = core.next(0) {
        at_work.push(begun);
    }
    let walks = at_work.iter().filter(|begun| begun.call == "walk").count();
    assert_eq!(
        (walks, at_work.len()),
        (LONG_AT_WORK_MAX, LONG_AT_WORK_MAX + SHORT_AT_WORK_MAX)
    );
    // Each that is done gives its turn to one of its kind.
    for begun in at_work {
        let call = begun.call;
        core.finish(begun.ticket, Some("open"));
        assert_eq!(core.next(0).map(|next| next.call), Some(call));
        assert!(core.next(0).is_none());
    }
}

#[test]
fn what_is_about_one_handle_is_served_in_order_and_one_after_another() {
    let mut core = Core::default();
    core.submit("open", open(1)).unwrap();
    core.submit("one", block(1)).unwrap();
    core.submit("two", block(1)).unwrap();
    core.submit("close", close(1)).unwrap();
    for expected in ["open", "one", "two"] {
        let begun = core.next(0).unwrap();
        assert_eq!(begun.call, expected);
        assert!(core.next(0).is_none(), "its file is away");
        assert_eq!(core.finish(begun.ticket, Some("file")), (vec![], None));
    }
    let begun = core.next(0).unwrap();
    assert_eq!((begun.call, begun.file), ("close", Some("file")));
    core.finish(begun.ticket, None);
    assert_eq!(
        code(core.submit("late", block(1))),
        Some(ErrorCode::UnknownHandle)
    );
    assert_eq!(
        code(core.submit("again", open(1))),
        None,
        "a closed handle is free"
    );
}

#[test]
fn whoever_waits_for_what_could_not_be_opened_is_given_back() {
    let mut core = Core::default();
    core.submit("open", open(1)).unwrap();
    core.submit("one", block(1)).unwrap();
    core.submit("two", close(1)).unwrap();
    let begun = core.next(0).unwrap();
    assert_eq!(core.finish(begun.ticket, None), (vec!["one", "two"], None));
    assert_eq!(
        code(core.submit("late", block(1))),
        Some(ErrorCode::UnknownHandle)
    );
}

#[test]
fn what_is_open_is_bounded_and_a_handle_is_not_opened_twice() {
    let mut core = Core::default();
    for handle in 1..=WALKS_MAX as u64 {
        core.submit("walk", walk(handle)).unwrap();
    }
    assert_eq!(code(core.submit("walk", walk(100))), Some(ErrorCode::Busy));
    for handle in WALKS_MAX as u64 + 1..=HANDLES_MAX as u64 {
        core.submit("open", open(handle)).unwrap();
    }
    assert_eq!(code(core.submit("open", open(200))), Some(ErrorCode::Busy));
    assert_eq!(code(core.submit("open", open(5))), Some(ErrorCode::BadRequest));
}

#[test]
fn content_waits_while_its_client_has_not_acknowledged_enough_and_the_rest_does_not() {
    let mut core = Core::default();
    let block = u32::try_from(BLOCK_MAX_BYTES).unwrap();
    core.submit("large", read(u32::MAX)).unwrap();
    core.submit("small", read(1_000)).unwrap();
    core.submit("look", look()).unwrap();
    let almost = UNACKNOWLEDGED_MAX_BYTES - 2_000;
    let first = core.next(almost).unwrap();
    assert_eq!(first.call, "small", "there is no room for a block");
    assert_eq!(
        core.next(almost).unwrap().call,
        "look",
        "and what carries nothing needs none"
    );
    core.finish(first.ticket, None);
    assert!(
        core.next(almost).is_none() && !core.is_held(),
        "another is still at work"
    );
    let room = UNACKNOWLEDGED_MAX_BYTES - BLOCK_MAX_BYTES;
    assert!(core.next(room + 1).is_none());
    assert_eq!(core.next(room).unwrap().call, "large");
    // What is at work counts like what is on its way.
    core.submit("next", read(block)).unwrap();
    assert!(core.next(room).is_none());
    let mut held = Core::default();
    held.submit("large", read(block)).unwrap();
    assert!(
        held.next(UNACKNOWLEDGED_MAX_BYTES).is_none() && held.is_held(),
        "nobody else will ask"
    );
}

#[test]
fn after_a_takeover_nothing_is_open_and_old_work_touches_nothing_new() {
    let mut core = Core::default();
    core.submit("open", open(1)).unwrap();
    let old = core.next(0).unwrap();
    core.submit("waits", block(1)).unwrap();
    core.submit("open", open(2)).unwrap();
    let other = core.next(0).unwrap();
    core.finish(other.ticket, Some("two"));
    assert_eq!(core.close_all(), (vec!["waits"], vec!["two"]));
    assert_eq!(
        code(core.submit("late", block(2))),
        Some(ErrorCode::UnknownHandle)
    );
    // The next owner counts from 1, too.
    core.submit("new", open(1)).unwrap();
    assert_eq!(
        core.finish(old.ticket, Some("one")),
        (vec![], Some("one")),
        "to be closed"
    );
    let new = core.next(0).unwrap();
    core.finish(new.ticket, Some("new one"));
    core.submit("block", block(1)).unwrap();
    assert_eq!(core.next(0).unwrap().file, Some("new one"));
}

#[test]
fn watches_are_counted_apart_from_walks_and_from_files() {
    let watch = |handle| {
        Claim::of(&FileRequest::Watch(Watch {
            handle: Handle(handle),
            missing: vec![path()],
            present: None,
        }))
    };
    let mut core = Core::default();
    let mut handles = 1..;
    for handle in handles.by_ref().take(WATCHES_MAX) {
        assert_eq!(code(core.submit("watch", watch(handle))), None);
    }
    let mut next = || handles.next().unwrap_or_default();
    assert_eq!(code(core.submit("watch", watch(next()))), Some(ErrorCode::Busy));
    for _ in 0..WALKS_MAX {
        assert_eq!(code(core.submit("walk", walk(next()))), None);
    }
    assert_eq!(code(core.submit("walk", walk(next()))), Some(ErrorCode::Busy));
    assert_eq!(code(core.submit("open", open(next()))), None);
}

#[test]
fn the_closing_of_a_watch_is_not_behind_what_takes_long_and_that_of_a_file_is() {
    let mut core = Core::default();
    let watch = FileRequest::Watch(Watch {
        handle: Handle(1),
        missing: vec![path()],
        present: None,
    });
    for (call, claim) in [("watch", Claim::of(&watch)), ("open", open(2))] {
        core.submit(call, claim).unwrap();
        let begun = core.next(0).unwrap();
        core.finish(begun.ticket, Some("it"));
    }
    core.submit("walk", walk(3)).unwrap();
    assert_eq!(core.next(0).unwrap().call, "walk");
    core.submit("close the file", close(2)).unwrap();
    core.submit("close the watch", close(1)).unwrap();
    let begun = core.next(0).unwrap();
    assert_eq!(
        (begun.call, begun.ticket.span()),
        ("close the watch", Span::Short)
    );
    assert!(core.next(0).is_none(), "the file's waits for the walk");
    core.finish(begun.ticket, None);
    assert_eq!(
        code(core.submit("await", close(1))),
        Some(ErrorCode::UnknownHandle)
    );
}
