//! The event log: its format, its end, and what is left of it after damage.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use dwell_actors::event_log::{
    FILE_HEADER_BYTES, Fault, ITEM_BODY_MAX_BYTES, Item, ItemKind, LogError, LogFile, LogReader,
    ROOM_MAX_BYTES, Step, TAIL_MAX_BYTES, encode_header, encode_record,
};
use dwell_actors::metadata_store::ThreadId;
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

const THREAD: ThreadId = ThreadId([7; 16]);

pub(crate) fn item(n: usize) -> Item {
    Item {
        kind: ItemKind::from(u8::try_from(n % 10).unwrap()),
        at_unix_us: i64::try_from(n).unwrap() - 5,
        body: vec![u8::try_from(n % 251).unwrap(); n * 7 % 90],
    }
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("threads/one.log");
    (dir, path)
}

fn encoded(items: &[Item]) -> Vec<u8> {
    let mut bytes = encode_header(THREAD).to_vec();
    for (number, item) in (0..).zip(items) {
        encode_record(&mut bytes, number, item);
    }
    bytes
}

/// All items, the fault at the end, and how far it was good.
fn read(bytes: &[u8]) -> (Vec<Item>, Option<Fault>, usize) {
    let mut reader = LogReader::new(bytes, THREAD);
    let mut items = Vec::new();
    loop {
        match reader.step().unwrap() {
            Step::Item(item) => items.push(item),
            Step::End(fault) => {
                assert_eq!(reader.step().unwrap(), Step::End(fault), "an end stays the end");
                return (items, fault, usize::try_from(reader.good_bytes()).unwrap());
            }
        }
    }
}

fn written(path: &Path, items: &[Item]) -> LogFile {
    let mut log = LogFile::unmade(path.to_owned(), THREAD);
    for item in items {
        log.push(item);
    }
    log.sync().unwrap();
    log
}

fn open(path: &Path, durable: u64) -> Result<(LogFile, Vec<Item>, u64), LogError> {
    let mut items = Vec::new();
    let opened = LogFile::open(path.to_owned(), THREAD, durable, 0, |item| {
        items.push(item.clone())
    })?;
    Ok((opened.log, items, opened.cut_bytes))
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_bytes_of_a_log_are_these() {
    let item = Item {
        kind: ItemKind::UserMessage,
        at_unix_us: 1,
        body: b"hi".to_vec(),
    };
    let hex: String = encoded(&[item])
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let header = "6477656c6c6f67010707070707070707070707070707070700000000f4a99a10";
    assert_eq!(
        hex,
        format!("{header}0b000000170e521b010100000000000000{}", "6869")
    );
}

#[test]
fn what_is_appended_is_read_again_in_order() {
    let (_dir, path) = place();
    let items: Vec<_> = (0..50).map(item).collect();
    drop(written(&path, &items));
    let (mut log, read, cut) = open(&path, 0).unwrap();
    assert_eq!((read.as_slice(), cut, log.items()), (items.as_slice(), 0, 50));
    log.push(&item(50));
    log.sync().unwrap();
    drop(log);
    let (_, read, _) = open(&path, 0).unwrap();
    assert_eq!(read.len(), 51);
    assert_eq!(names(&path), ["one.log"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_log_cut_anywhere_is_repaired_at_a_records_boundary_and_goes_on() {
    let items: Vec<_> = (0..6).map(item).collect();
    let whole = encoded(&items);
    for length in 0..=whole.len() {
        let (_dir, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &whole[..length]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (mut log, kept, cut) = open(&path, 0).unwrap();
        assert_eq!(kept, items[..kept.len()], "cut at {length}");
        let good = encoded(&items[..kept.len()]).len();
        let good = if length < FILE_HEADER_BYTES { 0 } else { good };
        assert!(good <= length && (kept.len() == 6 || encoded(&items[..=kept.len()]).len() > length));
        assert_eq!(cut, (length - good) as u64);
        log.push(&item(99));
        log.sync().unwrap();
        let (all, fault, _) = read(&fs::read(&path).unwrap());
        assert_eq!(
            (all.len(), all.last(), fault),
            (kept.len() + 1, Some(&item(99)), None),
            "cut at {length}"
        );
    }
}

#[test]
fn a_bit_flipped_anywhere_is_found_and_nothing_wrong_is_read() {
    let items: Vec<_> = (0..6).map(item).collect();
    let whole = encoded(&items);
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (kept, fault, good) = read(&bytes);
        assert!(fault.is_some(), "bit {bit}");
        assert_eq!(kept, items[..kept.len()], "bit {bit}");
        assert!(good <= bit / 8, "bit {bit}: good to {good}");
    }
}

#[test]
fn records_repeated_left_out_or_moved_are_not_taken_for_history() {
    let items: Vec<_> = (0..4).map(item).collect();
    let whole = encoded(&items);
    let cuts: Vec<_> = (0..=4).map(|n| encoded(&items[..n]).len()).collect();
    let record = |n: usize| &whole[cuts[n]..cuts[n + 1]];
    let header = &whole[..cuts[0]];
    let repeated = [header, record(0), record(1), record(1), record(2)].concat();
    let left_out = [header, record(0), record(2), record(3)].concat();
    let moved = [header, record(1), record(0)].concat();
    assert_eq!(read(&repeated).0.len(), 2);
    assert_eq!(read(&left_out).0.len(), 1);
    assert_eq!(read(&moved).0.len(), 0);
    let mut others = encode_header(ThreadId([8; 16])).to_vec();
    others.extend_from_slice(record(0));
    assert_eq!(read(&others), (vec![], Some(Fault::Thread), 0));
}

#[test]
fn damage_of_what_was_acknowledged_is_put_aside_with_a_word_and_what_is_before_it_goes_on() {
    let items: Vec<_> = (0..8).map(item).collect();
    let whole = encoded(&items);
    for at in (0..whole.len()).step_by(3) {
        for truncated in [false, true] {
            let (_dir, path) = place();
            let durable = written(&path, &items).durable_bytes();
            assert_eq!(durable, whole.len() as u64);
            let mut bytes = whole.clone();
            if truncated {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x20;
            }
            fs::write(&path, &bytes).unwrap();
            let error = open(&path, durable).unwrap_err();
            let LogError::Damaged {
                kept,
                items: count,
                at: told,
                ..
            } = &error
            else {
                panic!("{error}");
            };
            assert!(error.to_string().contains("resume the thread again"), "{error}");
            assert_eq!(fs::read(kept).unwrap(), bytes, "the evidence is untouched");
            let before = usize::try_from(*count).unwrap();
            let (mut log, again, cut) = open(&path, *told).unwrap();
            assert_eq!((again.as_slice(), cut), (&items[..before], 0));
            log.push(&item(9));
            log.sync().unwrap();
            assert_eq!(names(&path), ["one.log", "one.log.damaged-1"]);
        }
    }
}

#[test]
fn history_that_is_gone_altogether_is_an_error_and_not_an_empty_thread() {
    let (_dir, path) = place();
    let durable = written(&path, &[item(1)]).durable_bytes();
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(&path, durable), Err(LogError::Open { .. })));
}

#[test]
fn a_log_others_may_read_or_a_link_is_refused() {
    let (dir, path) = place();
    drop(written(&path, &[item(1)]));
    let link = dir.path().join("threads/link.log");
    symlink(&path, &link).unwrap();
    assert!(matches!(open(&link, 0), Err(LogError::NotOurs { .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open(&path, 0), Err(LogError::NotOurs { .. })));
}

#[test]
fn a_failed_write_keeps_what_waits_opens_again_and_leaves_nothing_twice() {
    let (_dir, path) = place();
    let mut log = written(&path, &[item(1)]);
    log.push(&item(2));
    log.write().unwrap();
    // Its directory is gone, and a file in its place: neither the open file nor one opened again can be had.
    let dir = path.parent().unwrap();
    let aside = dir.with_extension("aside");
    fs::rename(dir, &aside).unwrap();
    fs::write(dir, b"").unwrap();
    log.distrust();
    log.push(&item(3));
    assert!(matches!(log.write(), Err(LogError::Open { .. })));
    assert!(log.sync().is_err());
    log.push(&item(4));
    assert!(!log.is_durable());
    fs::remove_file(dir).unwrap();
    fs::rename(&aside, dir).unwrap();
    // The torn half of a write that failed lies where the tail is to go.
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(
        b"half a record of which nobody knows, and longer than what will be written over it.........",
    );
    bytes.extend_from_slice(&[b'x'; 400]);
    fs::write(&path, bytes).unwrap();
    log.sync().unwrap();
    let (items, fault, _) = read(&fs::read(&path).unwrap());
    assert_eq!((items, fault), (vec![item(1), item(2), item(3), item(4)], None));
}

#[test]
fn a_clean_log_is_not_touched_by_a_sync() {
    let (_dir, path) = place();
    let mut log = written(&path, &[item(1)]);
    fs::remove_file(&path).unwrap();
    log.write().unwrap();
    log.sync().unwrap();
    assert!(!path.exists());
}

/// Regression: what was appended to a log without a name was acknowledged, and opened again it was a new file with a hole.
#[test]
fn a_log_that_somebody_removed_or_cut_acknowledges_nothing_until_it_is_back() {
    let (_dir, path) = place();
    let mut log = written(&path, &[item(1)]);
    let before = fs::read(&path).unwrap();
    let back = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    fs::remove_file(&path).unwrap();
    log.push(&item(2));
    for _ in 0..2 {
        let gone = log.sync().unwrap_err();
        assert!(matches!(gone, LogError::Gone { .. }), "{gone}");
        assert!(!path.exists(), "nothing is made in its place");
    }
    back(&before[..before.len() - 1]);
    assert!(matches!(log.sync(), Err(LogError::Gone { .. })));
    back(&before);
    log.sync().unwrap();
    drop(log);
    assert_eq!(
        read(&fs::read(&path).unwrap()),
        (vec![item(1), item(2)], None, encoded(&[item(1), item(2)]).len())
    );
}

/// Of which nothing is acknowledged yet, it is made again.
#[test]
fn a_log_that_is_removed_before_its_first_sync_is_made_again() {
    let (_dir, path) = place();
    let mut log = LogFile::unmade(path.clone(), THREAD);
    log.push(&item(1));
    log.write().unwrap();
    fs::remove_file(&path).unwrap();
    log.sync().unwrap();
    assert_eq!(read(&fs::read(&path).unwrap()).0, [item(1)]);
}

#[test]
fn a_log_has_one_writer_also_among_those_who_do_not_know_of_each_others_lease() {
    let (_dir, path) = place();
    let mut log = written(&path, &[item(1)]);
    let busy = open(&path, 0).unwrap_err();
    assert!(matches!(busy, LogError::InUse { .. }), "{busy}");
    log.push(&item(2));
    log.sync().unwrap();
    log.let_go();
    let (other, items, _) = open(&path, 0).unwrap();
    assert_eq!(items.len(), 2);
    // Also not by one that had it before.
    log.push(&item(3));
    assert!(matches!(log.sync(), Err(LogError::InUse { .. })));
    drop(other);
    log.sync().unwrap();
}

/// Regression: a write that failed gave the lock back, and what was tried again lay over the next writer's history.
#[test]
fn a_log_whose_write_failed_is_its_writers_until_it_lets_go_and_not_after_another_has_had_it() {
    let (_dir, path) = place();
    let mut log = written(&path, &[item(1)]);
    log.push(&item(2));
    log.write().unwrap();
    log.distrust();
    assert!(matches!(open(&path, 0), Err(LogError::InUse { .. })));
    log.sync().unwrap();
    log.let_go();
    let (mut other, ..) = open(&path, 0).unwrap();
    other.push(&item(3));
    other.sync().unwrap();
    other.let_go();
    log.push(&item(4));
    assert!(matches!(log.sync(), Err(LogError::InUse { .. })));
    let (items, fault, _) = read(&fs::read(&path).unwrap());
    assert_eq!((items, fault), (vec![item(1), item(2), item(3)], None));
}

/// Regression: what could not be synced was taken for written by whoever asked again, though its file was dropped.
#[test]
fn a_tail_whose_file_was_dropped_is_written_again_by_the_next_write() {
    let (_dir, path) = place();
    let mut log = written(&path, &[item(1)]);
    log.push(&item(2));
    log.write().unwrap();
    log.distrust();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(log.durable_bytes())
        .unwrap();
    log.write().unwrap();
    assert_eq!(read(&fs::read(&path).unwrap()).0, [item(1), item(2)]);
}

/// Regression: after the loss of its record a log was cut at its first damage, and all behind that was gone.
#[test]
fn damage_of_a_log_of_which_nobody_knows_how_much_counts_is_repaired_beside_the_file_as_it_was() {
    let items: Vec<_> = (0..8).map(item).collect();
    let whole = encoded(&items);
    for at in (0..whole.len()).step_by(5) {
        let (_dir, path) = place();
        drop(written(&path, &items));
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, &bytes).unwrap();
        let opened = LogFile::open(path.clone(), THREAD, 0, 0, |_| ());
        if at < FILE_HEADER_BYTES {
            let error = opened.unwrap_err();
            assert!(matches!(error, LogError::Foreign { .. }), "{at}: {error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
            continue;
        }
        let mut opened = opened.unwrap();
        let kept = opened.kept.expect("a copy");
        assert_eq!(fs::read(kept).unwrap(), bytes, "the evidence is untouched");
        let good = opened.log.items();
        opened.log.push(&item(9));
        opened.log.sync().unwrap();
        let (all, fault, _) = read(&fs::read(&path).unwrap());
        assert_eq!((all.len() as u64, fault), (good + 1, None));
    }
}

/// A file whose first write never came to the disk is nobody's history.
#[test]
fn a_log_without_a_header_in_which_nothing_is_begins_anew() {
    for bytes in [&b""[..], &[0; 31], &[0; 32], &[0; 5_000], &b"dwellog\x01"[..]] {
        let (_dir, path) = place();
        drop(written(&path, &[]));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut opened = LogFile::open(path.clone(), THREAD, 0, 0, |_| ()).unwrap();
        assert!(opened.kept.is_none());
        opened.log.push(&item(1));
        opened.log.sync().unwrap();
        assert_eq!(read(&fs::read(&path).unwrap()).0, [item(1)]);
    }
}

#[test]
fn a_long_tail_is_synced_unasked_so_that_memory_stays_bounded() {
    let (_dir, path) = place();
    let mut log = LogFile::unmade(path, THREAD);
    let large = Item {
        kind: ItemKind::Note,
        at_unix_us: 0,
        body: vec![1; ITEM_BODY_MAX_BYTES],
    };
    let mut synced = 0;
    for _ in 0..12 {
        log.push(&large);
        log.write().unwrap();
        synced += u32::from(log.is_durable());
    }
    let each = TAIL_MAX_BYTES / ITEM_BODY_MAX_BYTES;
    assert!(synced as usize >= 12 / (each + 1), "{synced}");
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn room_that_is_made_ready_is_no_part_of_a_log_and_is_written_over() {
    let (_dir, path) = place();
    let items: Vec<_> = (1..6).map(item).collect();
    let mut log = written(&path, &items);
    let (durable, whole) = (log.durable_bytes(), encoded(&items));
    assert_eq!(length(&path), durable);
    log.prepare().unwrap();
    let prepared = length(&path);
    assert!(
        (durable + 1..=durable + ROOM_MAX_BYTES).contains(&prepared),
        "{prepared}"
    );
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.starts_with(&whole) && bytes[whole.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(read(&bytes), (items, None, whole.len()));
    // Once there is enough of it nothing more is made.
    log.prepare().unwrap();
    log.push(&item(6));
    log.sync().unwrap();
    log.prepare().unwrap();
    assert_eq!(
        length(&path),
        prepared,
        "a sync has no new size to bring to the disk"
    );
    let again: Vec<_> = (1..7).map(item).collect();
    assert_eq!(read(&fs::read(&path).unwrap()).0, again);
    assert_eq!(log.durable_bytes(), encoded(&again).len() as u64);
    // A process that dies leaves the room there: the next one cuts it off, and not as damage.
    drop(log);
    let (log, kept, cut) = open(&path, encoded(&again).len() as u64).unwrap();
    assert_eq!((kept, cut), (again, 0));
    assert_eq!(length(&path), log.durable_bytes());
}

#[test]
fn room_grows_with_its_log_up_to_its_bound_and_is_made_again_when_it_is_used_up() {
    let (_dir, path) = place();
    let mut log = LogFile::unmade(path.clone(), THREAD);
    let large = Item {
        kind: ItemKind::Note,
        at_unix_us: 0,
        body: vec![1; 100_000],
    };
    let mut made = Vec::new();
    for _ in 0..60 {
        log.push(&large);
        log.sync().unwrap();
        let before = length(&path);
        log.prepare().unwrap();
        let room = length(&path) - log.durable_bytes();
        assert!(
            room <= ROOM_MAX_BYTES && room * 5 >= ROOM_MAX_BYTES.min(log.durable_bytes()),
            "{room}"
        );
        made.extend((length(&path) > before).then_some(room));
    }
    assert!((5..20).contains(&made.len()) && made.is_sorted(), "{made:?}");
    assert_eq!(made.last(), Some(&ROOM_MAX_BYTES));
    assert_eq!(read(&fs::read(&path).unwrap()).0.len(), 60);
}

#[test]
fn room_that_is_given_back_is_not_made_again_behind_the_back_of_the_next_writer() {
    let (_dir, path) = place();
    let mut log = written(&path, &[item(1)]);
    log.prepare().unwrap();
    assert!(length(&path) > log.durable_bytes());
    log.push(&item(2));
    log.sync().unwrap();
    log.let_go();
    assert_eq!(length(&path), log.durable_bytes());
    // The control is above: without the trim there would be room now.
    log.prepare().unwrap();
    assert_eq!(length(&path), log.durable_bytes());
    let (mut next, items, _) = open(&path, log.durable_bytes()).unwrap();
    assert_eq!(items, [item(1), item(2)]);
    next.push(&item(3));
    next.sync().unwrap();
    log.prepare().unwrap();
    log.let_go();
    assert_eq!(
        read(&fs::read(&path).unwrap()),
        (vec![item(1), item(2), item(3)], None, {
            usize::try_from(next.durable_bytes()).unwrap()
        })
    );
}

#[test]
fn only_zeros_up_to_the_bound_are_room_and_anything_else_behind_a_log_is_a_fault() {
    let whole = encoded(&[item(1), item(2)]);
    let room = usize::try_from(ROOM_MAX_BYTES).unwrap();
    let fault = |zeros: usize, behind: &[u8]| {
        let bytes = [&whole, vec![0; zeros].as_slice(), behind].concat();
        let (items, fault, good) = read(&bytes);
        assert_eq!((items.len(), good), (2, whole.len()));
        fault
    };
    for zeros in [0, 1, 7, 8, 9, 4_095, 4_096, 4_104, 65_536, room] {
        assert_eq!(fault(zeros, b""), None, "{zeros}");
        if zeros > 0 {
            assert!(fault(zeros, b"x").is_some(), "{zeros}");
        }
    }
    assert_eq!(
        fault(room + 4_096, b""),
        Some(Fault::Length),
        "a file of nothing but zeros is not read for ever"
    );
}

/// A power cut in the middle of a write leaves the first bytes of a record, and zeros behind them.
#[test]
fn a_record_that_is_torn_within_the_room_is_cut_off_and_those_before_it_are_kept() {
    let (_dir, path) = place();
    let items = [item(1), item(2), item(30)];
    let (before, whole) = (encoded(&items[..2]), encoded(&items));
    let mut torn = 0;
    for at in before.len() + 1..whole.len() {
        drop(written(&path, &items[..2]));
        let mut bytes = whole[..at].to_vec();
        bytes.resize(whole.len() + 500, 0);
        if bytes.starts_with(&whole) {
            continue;
        }
        torn += 1;
        fs::write(&path, &bytes).unwrap();
        let (mut log, kept, cut) = open(&path, before.len() as u64).unwrap();
        assert_eq!(
            (kept.as_slice(), cut),
            (&items[..2], (bytes.len() - before.len()) as u64),
            "{at}"
        );
        log.push(&items[2]);
        log.sync().unwrap();
        assert_eq!(
            read(&fs::read(&path).unwrap()),
            (items.to_vec(), None, whole.len())
        );
        fs::remove_file(&path).unwrap();
    }
    assert!(torn > 20, "{torn}");
}

fn any_item() -> impl Strategy<Value = Item> {
    (
        any::<u8>(),
        any::<i64>(),
        proptest::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(kind, at_unix_us, body)| Item {
            kind: ItemKind::from(kind),
            at_unix_us,
            body,
        })
}

proptest! {
    #[test]
    fn any_items_come_back_and_any_garbage_behind_them_is_not_one(
        items in proptest::collection::vec(any_item(), 0..8), garbage in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = encoded(&items);
        let good = bytes.len();
        bytes.extend_from_slice(&garbage);
        let (kept, fault, at) = read(&bytes);
        prop_assert_eq!(&kept, &items);
        prop_assert_eq!(at, good);
        // Zeros are room.
        prop_assert_eq!(fault.is_some(), garbage.iter().any(|byte| *byte != 0));
    }

    #[test]
    fn any_bytes_are_a_log_or_none_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (items, _, good) = read(&bytes);
        prop_assert!(items.is_empty() || good > FILE_HEADER_BYTES);
    }
}
