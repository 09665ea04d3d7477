use super::*;

fn bytes(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

fn seqs(answer: &ReadAnswer) -> Vec<u64> {
    answer.chunks.iter().map(|chunk| chunk.seq).collect()
}

#[test]
fn numbers_count_output_and_ends_alike_and_have_no_gaps() {
    let mut log = ProcessLog::new(false, 1_000);
    assert_eq!(
        log.output(OutputStream::Stdout, &bytes(3)),
        (1, StreamName::Stdout)
    );
    assert_eq!(
        log.output(OutputStream::Stderr, &bytes(3)),
        (2, StreamName::Stderr)
    );
    assert_eq!(log.exited(Some(ExitStatus::Code(3))), Some((3, 3)));
    assert_eq!(log.exited(Some(ExitStatus::Code(4))), None);
    assert_eq!(log.output(OutputStream::Stdout, &bytes(1)).0, 4);
    assert_eq!(log.closed(), 5);
    let all = log.read(0, None);
    assert_eq!((seqs(&all), all.next_seq), (vec![1, 2, 4], 6));
    assert!(all.exited && all.closed && all.exit_code == Some(3));
}

#[test]
fn a_read_without_a_limit_names_the_next_number_and_one_with_a_limit_goes_on_behind_what_it_gave() {
    let mut log = ProcessLog::new(false, 1_000);
    for _ in 0..3 {
        log.output(OutputStream::Stdout, &bytes(10));
    }
    log.exited(None);
    let first = log.read(0, Some(0));
    assert_eq!(
        (seqs(&first), first.next_seq),
        (vec![1], 2),
        "one chunk in any case"
    );
    let two = log.read(0, Some(20));
    assert_eq!((seqs(&two), two.next_seq), (vec![1, 2], 3));
    assert_eq!(
        log.read(3, Some(20)).next_seq,
        5,
        "nothing to give: the next there will be"
    );
    assert_eq!(log.read(0, None).next_seq, 5);
    assert_eq!(log.read(0, None).exit_code, Some(-1));
}

#[test]
fn a_read_returns_at_once_for_output_for_an_end_and_for_an_exit_that_is_news() {
    let mut log = ProcessLog::new(false, 1_000);
    assert!(!log.has_news(0));
    log.output(OutputStream::Stdout, &bytes(1));
    assert!(log.has_news(0) && !log.has_news(1));
    log.exited(Some(ExitStatus::Code(0)));
    assert!(
        log.has_news(1) && !log.has_news(2),
        "who knows the exit waits for more"
    );
    log.closed();
    assert!(log.has_news(3) && log.has_news(u64::MAX));
}

#[test]
fn what_is_past_the_retention_is_gone_by_whole_chunks_and_the_oldest_first() {
    let mut log = ProcessLog::new(false, 25);
    for _ in 0..4 {
        log.output(OutputStream::Stdout, &bytes(10));
    }
    let kept = log.read(0, None);
    assert_eq!((seqs(&kept), kept.next_seq, log.bytes()), (vec![3, 4], 5, 20));
}

#[test]
fn many_small_chunks_are_kept_as_long_as_their_bytes_are() {
    let mut log = ProcessLog::new(false, 1 << 20);
    for _ in 0..10_000 {
        log.output(OutputStream::Stdout, &bytes(1));
    }
    assert_eq!(log.read(0, None).chunks.len(), 10_000);
}

#[test]
fn a_signal_is_128_more_and_1_on_a_terminal() {
    let code = |tty, status| ProcessLog::new(tty, 0).exited(Some(status)).unwrap().1;
    assert_eq!(code(false, ExitStatus::Signal(9)), 137);
    assert_eq!(code(true, ExitStatus::Signal(9)), 1);
    assert_eq!(code(true, ExitStatus::Code(7)), 7);
}

#[test]
fn a_write_is_known_again_and_only_so_many_are() {
    let mut log = ProcessLog::new(false, 0);
    assert!(log.is_fresh_write("a") && !log.is_fresh_write("a"));
    log.forget_write("a");
    assert!(log.is_fresh_write("a"));
    for id in 0..WRITE_IDS_MAX {
        assert!(log.is_fresh_write(&id.to_string()));
    }
    assert!(log.is_fresh_write("a"), "the oldest is forgotten");
    assert_eq!(
        (log.write_ids.len(), log.write_order.len()),
        (WRITE_IDS_MAX, WRITE_IDS_MAX)
    );
}
