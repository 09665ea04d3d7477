//! Bits turned on the way: an error or the right output, never a wrong one and never a hang.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_actors::harness::{Command, Finished, RunError, Target};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{ExitStatus, PublicKey};
use dwell_relay::StaticKeypair;
use dwell_relay::outer::OUTER_HEADER_BYTES;
use dwell_relay::preamble::PREAMBLE_BYTES;
use dwell_testkit::{Direction, Fault, Plan, TcpFaultProxy};
use tokio::sync::Semaphore;

use crate::support::{Roles, connect_as, copy, frames, wait};

/// Positions tried each way unless `DWELL_SOAK` is set, which tries all.
const SAMPLE: usize = 96;
/// Preamble and handshake lie in here.
const FRONT_BYTES: usize = 400;
const CALL_DEADLINE: Duration = Duration::from_secs(3);
const CASE_MAX: Duration = Duration::from_secs(15);
/// Where a stamp lies in an outer header.
const STAMP: std::ops::Range<usize> = 24..28;

fn command() -> Command {
    Command::new("sh")
        .args(["-c", "printf %s \"$0\"; printf %s \"$1\" >&2; exit 5"])
        .args([pattern('a'), pattern('n')])
        .deadline(CALL_DEADLINE)
}

fn pattern(first: char) -> String {
    (0..1_000_u32)
        .map(|index| char::from_u32(first as u32 + index % 13).unwrap())
        .collect()
}

fn assert_right(finished: &Finished, case: &str) {
    assert_eq!(finished.status, ExitStatus::Code(5), "{case}");
    assert_eq!(finished.stdout.to_text(), pattern('a'), "{case}");
    assert_eq!(finished.stderr.to_text(), pattern('n'), "{case}");
    assert_eq!(finished.output_bytes, [1_000, 1_000], "{case}");
}

/// What a byte of one direction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
enum Place {
    Preamble,
    Length,
    Stamp,
    Header,
    Handshake,
    Record,
    /// Clear and unauthenticated: windows and pings.
    Clear,
    NotReached,
}

fn place(direction: Direction, captured: &[u8], at: usize) -> Place {
    let mut start = 0;
    if direction == Direction::ToUpstream {
        if at < PREAMBLE_BYTES {
            return Place::Preamble;
        }
        start = PREAMBLE_BYTES;
    }
    for frame in frames(&captured[start.min(captured.len())..]) {
        let end = start + OUTER_HEADER_BYTES + frame.payload.len();
        if at < end {
            return match (at - start, frame.kind) {
                (0..4, _) => Place::Length,
                (within, _) if STAMP.contains(&within) => Place::Stamp,
                (0..OUTER_HEADER_BYTES, _) => Place::Header,
                (_, OuterKind::Data) => Place::Record,
                (_, OuterKind::Handshake) => Place::Handshake,
                _ => Place::Clear,
            };
        }
        start = end;
    }
    Place::NotReached
}

struct Case {
    proxy: TcpFaultProxy,
    outcome: Result<Finished, String>,
    /// Whether the link carries another call.
    lives: bool,
}

/// Who talks to whom.
#[derive(Clone)]
struct Ends {
    relay: SocketAddr,
    executor: PublicKey,
    client: Arc<StaticKeypair>,
}

impl Ends {
    fn of(roles: &Roles) -> Self {
        let client = Arc::new(copy(&roles.client));
        Self {
            relay: roles.relay_address(),
            executor: roles.executor.public_key(),
            client,
        }
    }
}

async fn case(ends: &Ends, plan: Plan, name: &str) -> Case {
    let begun = Instant::now();
    let proxy = TcpFaultProxy::start(ends.relay, 1).await.unwrap();
    proxy.plan(plan);
    let target = Target::relay(proxy.address().to_string(), ends.executor);
    let mut lives = false;
    let outcome;
    match connect_as(&ends.client, target).await {
        Err(error) => outcome = Err(error.to_string()),
        Ok(harness) => match wait(harness.exec(command())).await {
            Ok(finished) => {
                assert_right(&finished, name);
                outcome = Ok(finished);
                let again = wait(harness.exec(command())).await;
                if let Ok(finished) = &again {
                    assert_right(finished, name);
                    // The spans of both come behind them: a bit turned there ends the link too.
                    harness.flush_traces().await;
                    lives = harness.environment_info().await.is_ok();
                }
            }
            Err(error) => {
                let typed = matches!(
                    error,
                    RunError::Lost(_)
                        | RunError::NotStarted(_)
                        | RunError::DeadlineExceeded
                        | RunError::Refused(_)
                );
                assert!(typed && !error.to_string().is_empty());
                outcome = Err(error.to_string());
            }
        },
    }
    assert!(
        begun.elapsed() < CASE_MAX,
        "{name} took {:?}: {outcome:?}",
        begun.elapsed()
    );
    Case {
        proxy,
        outcome,
        lives,
    }
}

fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn positions(direction: Direction, bytes: usize) -> Vec<(usize, u8)> {
    if std::env::var_os("DWELL_SOAK").is_some() {
        return (0..bytes)
            .flat_map(|at| (0..8).map(move |bit| (at, bit)))
            .collect();
    }
    let mut state = direction as u64 + 42;
    // The handshake is short and the records are long: every other position is near the front.
    let ranges = [bytes as u64, FRONT_BYTES.min(bytes) as u64];
    let draw = |index: usize| {
        let at = next_random(&mut state) % ranges[index % 2];
        (at as usize, (next_random(&mut state) % 8) as u8)
    };
    (0..SAMPLE).map(draw).collect()
}

async fn flip_everywhere(direction: Direction) {
    let roles = Roles::start().await;
    let ends = Ends::of(&roles);
    let clean = case(&ends, Plan::pass(), "no fault").await;
    assert!(clean.outcome.is_ok() && clean.lives, "{:?}", clean.outcome);
    // The first call's half: what a dead link must not reach.
    let bytes = clean.proxy.captured(direction).len() / 2;
    let room = Arc::new(Semaphore::new(8));
    let mut cases = Vec::new();
    for (at, bit) in positions(direction, bytes) {
        let (room, ends) = (Arc::clone(&room), ends.clone());
        cases.push(tokio::spawn(async move {
            let _room = room.acquire_owned().await.unwrap();
            let name = format!("{direction:?} byte {at} bit {bit}");
            let plan = Plan::one(
                direction,
                Fault::FlipBit {
                    at_byte: at as u64,
                    bit,
                },
            );
            let case = case(&ends, plan, &name).await;
            let place = place(direction, &case.proxy.captured(direction), at);
            let harmless = matches!(place, Place::Stamp | Place::Clear | Place::NotReached);
            assert!(harmless || !case.lives, "{name} ({place:?}) went unnoticed");
            if place == Place::Stamp {
                let links = case.proxy.accepted();
                assert!(
                    case.lives,
                    "{name}: a stamp ended the link, of {links}: {:?}",
                    case.outcome
                );
            }
            (place, case.outcome.is_ok())
        }));
    }
    let mut tally = BTreeMap::new();
    for case in cases {
        *tally.entry(case.await.unwrap()).or_insert(0_u32) += 1;
    }
    assert!(
        tally.keys().any(|(place, _)| *place == Place::Record),
        "{tally:?}"
    );
    assert!(
        tally.keys().any(|(place, _)| *place == Place::Handshake),
        "{tally:?}"
    );
}

#[tokio::test]
async fn a_bit_turned_on_the_way_up_never_makes_a_wrong_run() {
    flip_everywhere(Direction::ToUpstream).await;
}

#[tokio::test]
async fn a_bit_turned_on_the_way_down_never_makes_a_wrong_run() {
    flip_everywhere(Direction::ToClient).await;
}

#[tokio::test]
async fn turned_stamps_change_the_relays_word_and_nothing_else() {
    let roles = Roles::start().await;
    let ends = Ends::of(&roles);
    let mut told = 0;
    // How messages share records depends on the moment, and with it where the terminal event's stamp stands: a
    // layout seen once is tried, and another one looked at when it did not come again.
    for _ in 0..LAYOUTS_MAX {
        let clean = case(&ends, Plan::pass(), "no fault").await;
        told += turn_stamps(&ends, &stamps(&clean.proxy.captured(Direction::ToClient))).await;
        if told > 0 {
            return;
        }
    }
    panic!("no stamp of a terminal event was among those turned, in {LAYOUTS_MAX} layouts");
}

/// Layouts that are tried until a terminal event's stamp was hit.
const LAYOUTS_MAX: usize = 20;
/// What the turned bit adds to a stamp, in microseconds.
const ADDED_US: u64 = 1 << 22;

/// Where the stamps of the first frames stand.
fn stamps(captured: &[u8]) -> Vec<usize> {
    let mut start = 0;
    let mut offsets = Vec::new();
    for frame in frames(captured).into_iter().take(12) {
        offsets.push(start + 25);
        start += OUTER_HEADER_BYTES + frame.payload.len();
    }
    offsets
}

/// Turns one stamp a run; counts the runs that were told of it.
async fn turn_stamps(ends: &Ends, offsets: &[usize]) -> u32 {
    let mut told = 0;
    for at in offsets.iter().copied() {
        let name = format!("stamp at {at}");
        let plan = Plan::one(
            Direction::ToClient,
            Fault::FlipBit {
                at_byte: at as u64,
                bit: 6,
            },
        );
        let case = case(ends, plan, &name).await;
        if place(Direction::ToClient, &case.proxy.captured(Direction::ToClient), at) != Place::Stamp {
            continue;
        }
        let timings = case.outcome.unwrap().timings;
        // Its word is taken for no more than all of the way, which no honest relay keeps a record for.
        told += u32::from(timings.relay_us == timings.transit_us);
        assert!(timings.total_us < ADDED_US, "{name}: {timings}");
        assert!(timings.transit_us < ADDED_US, "{name}: {timings}");
        assert!(timings.unattributed_harness_us < ADDED_US, "{name}: {timings}");
        assert!(timings.unattributed_executor_us < ADDED_US, "{name}: {timings}");
        assert!(case.lives);
    }
    told
}
