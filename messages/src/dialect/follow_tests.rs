//! The rules, one by one; and any history of a process over any bad connection.

use proptest::prelude::*;

use super::*;
use crate::dialect::{Blob, Chunk};

fn output(seq: u64, text: &str) -> Numbered {
    let told = Told::Output(StreamName::Stdout, Bytes::copy_from_slice(text.as_bytes()));
    Numbered { seq, told }
}

fn exited(seq: u64, sandbox_denied: Option<bool>) -> Numbered {
    let told = Told::Exited {
        code: 3,
        sandbox_denied,
    };
    Numbered { seq, told }
}

fn closed(seq: u64) -> Numbered {
    Numbered {
        seq,
        told: Told::Closed,
    }
}

fn chunk(seq: u64, text: &str) -> Chunk {
    Chunk {
        seq,
        stream: StreamName::Stdout,
        chunk: Blob(Bytes::copy_from_slice(text.as_bytes())),
    }
}

fn answer(chunks: Vec<Chunk>, next_seq: u64) -> ReadAnswer {
    ReadAnswer {
        chunks,
        next_seq,
        exited: false,
        exit_code: None,
        closed: false,
        failure: None,
        sandbox_denied: false,
    }
}

fn ended(chunks: Vec<Chunk>, next_seq: u64) -> ReadAnswer {
    ReadAnswer {
        exited: true,
        exit_code: Some(3),
        closed: true,
        ..answer(chunks, next_seq)
    }
}

/// A follower and what it told.
#[derive(Default)]
struct Seen {
    follower: Follower,
    told: Vec<String>,
}

fn line(told: Told) -> String {
    match told {
        Told::Output(_, bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Told::Exited { code, sandbox_denied } => format!("exit {code} {sandbox_denied:?}"),
        Told::Closed => "closed".into(),
    }
}

impl Seen {
    fn push(&mut self, event: Numbered) -> Result<bool, FollowError> {
        self.follower.pushed(event, |told| self.told.push(line(told)))
    }

    fn read(&mut self, answer: ReadAnswer) -> Result<bool, FollowError> {
        self.follower.read(answer, |told| self.told.push(line(told)))
    }
}

const EXIT: &str = "exit 3 Some(false)";

#[test]
fn a_call_whose_events_come_in_order_needs_no_read() {
    let mut seen = Seen::default();
    for event in [output(1, "a"), exited(2, Some(false)), output(3, "b"), closed(4)] {
        assert_eq!(seen.push(event), Ok(false));
    }
    assert_eq!(
        seen.told,
        ["a", EXIT, "b", "closed"],
        "output may follow the exit"
    );
    assert!(seen.follower.is_closed());
}

#[test]
fn an_event_that_was_applied_is_dropped_without_a_word() {
    let mut seen = Seen::default();
    assert_eq!(seen.push(output(1, "a")), Ok(false));
    assert_eq!(seen.push(output(1, "a")), Ok(false));
    assert_eq!(seen.push(output(0, "x")), Ok(false));
    assert_eq!(seen.told, ["a"]);
}

#[test]
fn an_exit_without_a_verdict_needs_exactly_one_read() {
    for denied in [false, true] {
        let mut seen = Seen::default();
        assert_eq!(seen.push(output(1, "a")), Ok(false));
        assert_eq!(seen.push(exited(2, None)), Ok(true));
        // What comes meanwhile waits, and asks for nothing.
        assert_eq!(seen.push(closed(3)), Ok(false));
        assert_eq!(seen.told, ["a"], "not before its verdict");
        let verdict = ReadAnswer {
            sandbox_denied: denied,
            ..ended(vec![], 4)
        };
        assert_eq!(seen.read(verdict), Ok(false));
        assert_eq!(
            seen.told[1..],
            [format!("exit 3 Some({denied})"), "closed".into()]
        );
    }
}

#[test]
fn a_missing_number_is_read_and_what_came_behind_it_is_told_once() {
    let mut seen = Seen::default();
    seen.push(output(1, "a")).unwrap();
    assert_eq!(seen.push(output(3, "c")), Ok(true));
    assert_eq!(seen.push(output(4, "d")), Ok(false), "one read at a time");
    assert_eq!(
        seen.read(answer(vec![chunk(2, "b"), chunk(3, "c"), chunk(4, "d")], 5)),
        Ok(false)
    );
    assert_eq!(seen.push(output(3, "c")), Ok(false), "its later repetition");
    assert_eq!(seen.told, ["a", "b", "c", "d"]);
}

#[test]
fn a_live_event_newer_than_the_read_is_told_behind_it() {
    let mut seen = Seen::default();
    assert_eq!(seen.push(output(2, "b")), Ok(true));
    assert_eq!(seen.push(output(3, "c")), Ok(false));
    // The read was answered before the third was told, and sent behind it.
    assert_eq!(
        seen.read(answer(vec![chunk(1, "a"), chunk(2, "b")], 3)),
        Ok(false)
    );
    assert_eq!(seen.told, ["a", "b", "c"]);
}

#[test]
fn the_event_that_closes_the_gap_fits_into_a_full_buffer() {
    let mut seen = Seen::default();
    for seq in 2..2 + PENDING_MAX as u64 {
        seen.push(output(seq, "x")).unwrap();
    }
    assert_eq!(seen.follower.pending(), PENDING_MAX);
    let beyond = seen.push(output(2 + PENDING_MAX as u64, "x"));
    assert_eq!(
        beyond,
        Err(FollowError::TooMuchPending { missing: 1 }),
        "the control"
    );
    assert_eq!(seen.push(output(1, "first")), Ok(false));
    assert_eq!((seen.follower.pending(), seen.told.len()), (0, PENDING_MAX + 1));
}

#[test]
fn bytes_that_wait_are_bounded_and_the_distance_of_a_number_is_not() {
    let mut seen = Seen::default();
    let whole = "x".repeat(PENDING_MAX_BYTES);
    assert_eq!(
        seen.push(output(1_000_000, &whole)),
        Ok(true),
        "however far ahead"
    );
    assert_eq!(
        seen.push(output(1_000_001, "x")),
        Err(FollowError::TooMuchPending { missing: 1 })
    );
}

#[test]
fn whoever_fell_behind_reads_and_loses_nothing_that_is_kept() {
    let mut seen = Seen::default();
    seen.push(output(1, "a")).unwrap();
    assert!(seen.follower.lagged());
    assert!(!seen.follower.lagged(), "one read at a time");
    // Behind the first read comes the second that was asked for meanwhile.
    assert_eq!(seen.read(answer(vec![chunk(2, "b")], 3)), Ok(true));
    assert_eq!(seen.read(ended(vec![], 5)), Ok(false));
    assert_eq!(seen.told, ["a", "b", EXIT, "closed"]);
    assert!(!seen.follower.lagged(), "an end is the end");
}

#[test]
fn an_end_with_a_gap_reads_first_and_a_missing_exit_is_made_from_the_answer() {
    let mut seen = Seen::default();
    seen.push(output(1, "a")).unwrap();
    assert_eq!(seen.push(closed(4)), Ok(true));
    assert_eq!(seen.told, ["a"]);
    assert_eq!(seen.read(ended(vec![chunk(2, "b")], 5)), Ok(false));
    assert_eq!(seen.told, ["a", "b", EXIT, "closed"]);
}

#[test]
fn an_exit_between_two_chunks_gets_the_number_that_is_missing() {
    let mut seen = Seen::default();
    assert!(seen.follower.resumed());
    assert_eq!(
        seen.read(ended(vec![chunk(1, "a"), chunk(3, "late")], 5)),
        Ok(false)
    );
    assert_eq!(seen.told, ["a", EXIT, "late", "closed"]);
}

#[test]
fn what_is_not_kept_any_more_is_an_error_and_not_a_silence() {
    let mut seen = Seen::default();
    seen.push(output(1, "a")).unwrap();
    assert!(seen.follower.lagged());
    let evicted = seen.read(answer(vec![chunk(5, "e")], 6));
    assert_eq!(evicted, Err(FollowError::NotRetained { from: 2, to: 4 }));
    // One number could be the exit's only if there was one.
    let mut seen = Seen::default();
    assert!(seen.follower.lagged());
    assert_eq!(
        seen.read(answer(vec![chunk(2, "b")], 3)),
        Err(FollowError::NotRetained { from: 1, to: 1 })
    );
    // And not if that is known already.
    let mut seen = Seen::default();
    seen.push(exited(1, Some(false))).unwrap();
    assert!(seen.follower.lagged());
    assert_eq!(
        seen.read(ended(vec![chunk(3, "c")], 5)),
        Err(FollowError::NotRetained { from: 2, to: 2 })
    );
}

#[test]
fn a_read_that_does_not_cover_the_gap_fails_instead_of_being_repeated() {
    let mut seen = Seen::default();
    assert_eq!(seen.push(output(3, "c")), Ok(true));
    assert_eq!(
        seen.read(answer(vec![], 1)),
        Err(FollowError::NoProgress { told: 3, read: 0 })
    );
}

#[test]
fn nothing_comes_behind_the_end_and_the_end_has_one_number() {
    let mut seen = Seen::default();
    seen.push(closed(3)).unwrap();
    assert_eq!(
        seen.push(output(3, "x")),
        Err(FollowError::BehindTheEnd { seq: 3, end: 3 })
    );
    assert_eq!(
        seen.push(closed(4)),
        Err(FollowError::BehindTheEnd { seq: 4, end: 3 })
    );
    let mut seen = Seen::default();
    seen.push(output(5, "x")).unwrap();
    assert_eq!(
        seen.push(closed(3)),
        Err(FollowError::BehindTheEnd { seq: 5, end: 3 })
    );
    // Behind an end that was told, what comes is late and no error.
    let mut seen = Seen::default();
    seen.push(closed(1)).unwrap();
    assert_eq!(seen.push(output(2, "x")), Ok(false));
    assert_eq!(seen.told, ["closed"]);
}

#[test]
fn a_verdict_that_a_read_brings_fills_an_exit_that_waits_without_one() {
    let mut seen = Seen::default();
    assert_eq!(seen.push(exited(2, None)), Ok(true));
    let denied = ReadAnswer {
        exited: true,
        exit_code: Some(3),
        sandbox_denied: true,
        ..answer(vec![chunk(1, "a")], 3)
    };
    assert_eq!(seen.read(denied), Ok(false));
    assert_eq!(seen.told, ["a", "exit 3 Some(true)"]);
}

#[test]
fn an_answer_that_is_older_than_the_exit_is_no_verdict_and_a_newer_one_has_one() {
    let mut seen = Seen::default();
    assert_eq!(seen.push(output(2, "b")), Ok(true));
    assert_eq!(seen.push(output(1, "a")), Ok(false));
    assert_eq!(seen.push(exited(3, None)), Ok(false), "one read at a time");
    // That one was asked for the gap, before there was an exit.
    assert_eq!(seen.read(answer(vec![chunk(1, "a"), chunk(2, "b")], 3)), Ok(true));
    assert_eq!(
        seen.read(answer(vec![], 4)),
        Err(FollowError::NoProgress { told: 3, read: 3 }),
        "a server that never knows is not asked for ever"
    );
}

#[test]
fn a_process_that_its_server_lost_is_an_error() {
    let mut seen = Seen::default();
    assert!(seen.follower.lagged());
    let failed = ReadAnswer {
        failure: Some("lost".into()),
        ..ended(vec![], 1)
    };
    assert_eq!(seen.read(failed), Err(FollowError::Failed("lost".into())));
}

/// A whole history: so many chunks, the exit behind some of them, then the end.
fn history(chunks: usize, exit_behind: usize, verdict: bool) -> Vec<Numbered> {
    let mut events: Vec<Numbered> = Vec::new();
    let exit_behind = exit_behind % (chunks + 1);
    for at in 0..=chunks {
        if at == exit_behind {
            events.push(exited(events.len() as u64 + 1, verdict.then_some(false)));
        }
        if at < chunks {
            let seq = events.len() as u64 + 1;
            events.push(output(seq, &format!("{at}")));
        }
    }
    events.push(closed(events.len() as u64 + 1));
    events
}

/// What a server answers that has told so many events, and keeps everything.
fn kept(events: &[Numbered], told: usize, after: u64) -> ReadAnswer {
    let mut answer = answer(vec![], told as u64 + 1);
    for event in &events[..told] {
        match &event.told {
            Told::Output(stream, bytes) if event.seq > after => answer.chunks.push(Chunk {
                seq: event.seq,
                stream: *stream,
                chunk: Blob(bytes.clone()),
            }),
            Told::Output(..) => {}
            Told::Exited { code, .. } => (answer.exited, answer.exit_code) = (true, Some(*code)),
            Told::Closed => answer.closed = true,
        }
    }
    answer
}

proptest! {
    /// Whatever is lost, repeated and turned round on the way: all of it is told once, in order.
    #[test]
    fn every_history_is_told_whole_over_every_connection(
        (chunks, exit_behind, verdict) in (0_usize..40, any::<usize>(), any::<bool>()),
        fates in proptest::collection::vec(0_u8..6, 50),
    ) {
        let events = history(chunks, exit_behind, verdict);
        let mut seen = Seen::default();
        let mut late: Option<Numbered> = None;
        let mut read_at = None;
        for (at, event) in events.iter().enumerate() {
            let fate = fates[at % fates.len()];
            let mut wants = false;
            match fate {
                // Lost; its successor shows it, or the end of the connection.
                0 => {}
                // Turned round with the next.
                1 if late.is_none() => late = Some(event.clone()),
                2 => {
                    wants |= seen.push(event.clone()).unwrap();
                    wants |= seen.push(event.clone()).unwrap();
                }
                3 => wants |= seen.follower.lagged(),
                _ => wants |= seen.push(event.clone()).unwrap(),
            }
            if fate != 1 && let Some(late) = late.take() {
                wants |= seen.push(late).unwrap();
            }
            if wants {
                read_at = Some(());
            }
            // A read is answered with what had been told when it came.
            while read_at.take().is_some() {
                let answer = kept(&events, at + 1, seen.follower.last());
                if seen.read(answer).unwrap() {
                    read_at = Some(());
                }
            }
        }
        // The connection was another one at last: whatever is missing is read.
        let mut wants = seen.follower.resumed();
        while wants {
            let answer = kept(&events, events.len(), seen.follower.last());
            wants = seen.read(answer).unwrap();
        }
        let whole: Vec<_> = events.iter().map(|event| match &event.told {
            Told::Exited { code, .. } => format!("exit {code} Some(false)"),
            other => line(other.clone()),
        }).collect();
        prop_assert_eq!(seen.told, whole);
        prop_assert!(seen.follower.is_closed());
    }
}
