//! What has not moved, and for how long. Time is an argument; what is looked at comes as signs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// A place that can be stuck.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// A mailbox with something in it whose actor is in no turn.
    Mailbox(u64),
    /// An actor's turn.
    Turn(u64),
    /// A task on an actor thread.
    Arbiter(u32),
    /// A process that is stopped.
    Child(u64),
    /// A stream of a process that waits for whoever reads it.
    Output(u64, u8),
    /// A ping without an answer.
    Ping(u64),
    /// A link with something to send that may not leave.
    Window(u64),
    /// A write that does not come to its end.
    Write(u64),
    /// A direction of a stream at a relay.
    Flow(u64, u8),
}

/// One look at a place where something is that should move on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sign {
    pub(crate) place: Place,
    /// Changes whenever it moves.
    pub(crate) mark: u64,
    /// For how long it has been there by its own account; it may be longer than it was looked at.
    pub(crate) known: Duration,
    /// The actor thread it is on; 0: on none.
    pub(crate) thread: u32,
}

/// A place that has been still for long enough.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Still {
    pub(crate) place: Place,
    pub(crate) held: Duration,
    /// Whether it is to be told: it has not been since it last moved, and not for a while.
    pub(crate) fresh: bool,
}

#[derive(Debug)]
struct Held {
    mark: u64,
    first: Instant,
    told: bool,
}

/// Places that were told of lately; past it more are told of as often as they stand still.
const LATELY_MAX: usize = 4_096;

/// See the module. As many places as the last look had.
#[derive(Debug)]
pub(crate) struct WatchdogCore {
    after: Duration,
    quiet: Duration,
    held: HashMap<Place, Held>,
    /// When a place was last told of, whether or not it has moved since.
    lately: HashMap<Place, Instant>,
}

impl WatchdogCore {
    /// Says what has been still for so long. What moves in jerks, as a slow link does, is told of once in `quiet`.
    pub(crate) fn new(after: Duration, quiet: Duration) -> Self {
        Self {
            after,
            quiet,
            held: HashMap::new(),
            lately: HashMap::new(),
        }
    }

    /// What is stuck now. A place that is not among the signs has moved. What waits behind a turn or task that holds its
    /// thread up is not told of beside it: that it waits is no news, and whoever reads it would look at the wrong place.
    pub(crate) fn look(&mut self, now: Instant, signs: &[Sign]) -> Vec<Still> {
        let mut present = HashSet::with_capacity(signs.len());
        for sign in signs {
            present.insert(sign.place);
            let fresh = Held {
                mark: sign.mark,
                first: now.checked_sub(sign.known).unwrap_or(now),
                told: false,
            };
            let held = self.held.entry(sign.place).or_insert(Held { ..fresh });
            if held.mark != sign.mark {
                *held = Held {
                    mark: sign.mark,
                    first: now.checked_sub(sign.known).unwrap_or(now),
                    told: false,
                };
            }
        }
        self.held.retain(|place, _| present.contains(place));
        let quiet = self.quiet;
        self.lately
            .retain(|_, told| now.saturating_duration_since(*told) < quiet);
        let (turns, tasks) = (
            self.culprits(now, signs, is_turn),
            self.culprits(now, signs, is_task),
        );
        let mut still = Vec::new();
        for sign in signs {
            let explained = match sign.place {
                Place::Mailbox(_) => turns.contains(&sign.thread) || tasks.contains(&sign.thread),
                Place::Arbiter(_) => turns.contains(&sign.thread),
                Place::Turn(_)
                | Place::Child(_)
                | Place::Output(..)
                | Place::Ping(_)
                | Place::Window(_)
                | Place::Write(_)
                | Place::Flow(..) => false,
            };
            let Some(held) = self.held.get_mut(&sign.place).filter(|_| !explained) else {
                continue;
            };
            let since = now.saturating_duration_since(held.first);
            if since >= self.after {
                let fresh = !held.told && !self.lately.contains_key(&sign.place);
                if fresh {
                    held.told = true;
                    if self.lately.len() < LATELY_MAX {
                        self.lately.insert(sign.place, now);
                    }
                }
                still.push(Still {
                    place: sign.place,
                    held: since,
                    fresh,
                });
            }
        }
        still
    }

    /// For how long a place has been still, whether or not that is long enough to be told.
    pub(crate) fn held(&self, now: Instant, place: Place) -> Option<Duration> {
        let held = self.held.get(&place)?;
        Some(now.saturating_duration_since(held.first))
    }

    /// Threads that one thing has held up for half the time already: what waits behind it may have been seen a look
    /// earlier than the thing itself.
    fn culprits(&self, now: Instant, signs: &[Sign], is: fn(Place) -> bool) -> HashSet<u32> {
        let long = |sign: &&Sign| {
            let held = self.held.get(&sign.place);
            held.is_some_and(|held| now.saturating_duration_since(held.first) >= self.after / 2)
        };
        let theirs = signs.iter().filter(|sign| sign.thread != 0 && is(sign.place));
        theirs.filter(long).map(|sign| sign.thread).collect()
    }
}

fn is_turn(place: Place) -> bool {
    matches!(place, Place::Turn(_))
}

fn is_task(place: Place) -> bool {
    matches!(place, Place::Arbiter(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(1);
    const STEP: Duration = Duration::from_millis(250);

    fn sign(place: Place, mark: u64) -> Sign {
        Sign {
            place,
            mark,
            known: Duration::ZERO,
            thread: 7,
        }
    }

    /// Looks every quarter of a second at what `signs` says is there, and gives each telling: at which look, and of what.
    fn told(looks: u32, signs: impl Fn(u32) -> Vec<Sign>) -> Vec<(u32, Place)> {
        told_with(Duration::ZERO, looks, signs)
    }

    fn told_with(quiet: Duration, looks: u32, signs: impl Fn(u32) -> Vec<Sign>) -> Vec<(u32, Place)> {
        let mut core = WatchdogCore::new(AFTER, quiet);
        let start = Instant::now();
        let mut told = Vec::new();
        for look in 0..looks {
            let still = core.look(start + STEP * look, &signs(look));
            told.extend(
                still
                    .iter()
                    .filter(|still| still.fresh)
                    .map(|still| (look, still.place)),
            );
        }
        told
    }

    #[test]
    fn each_place_that_stands_still_is_told_of_once_after_a_second() {
        for place in [
            Place::Mailbox(1),
            Place::Turn(1),
            Place::Arbiter(1),
            Place::Child(1),
            Place::Output(1, 0),
            Place::Ping(1),
            Place::Window(1),
            Place::Write(1),
            Place::Flow(1, 1),
        ] {
            assert_eq!(told(40, |_| vec![sign(place, 5)]), [(4, place)]);
        }
    }

    /// The control: full all the time, and moving all the time.
    #[test]
    fn what_is_busy_and_moves_is_never_told_of() {
        for slow in 1..4 {
            let moving = |look| {
                vec![
                    sign(Place::Mailbox(1), u64::from(look / slow)),
                    sign(Place::Turn(2), u64::from(look / slow)),
                ]
            };
            assert_eq!(told(100, moving), []);
        }
    }

    #[test]
    fn what_moves_and_stands_still_again_is_told_of_again() {
        let place = Place::Window(3);
        assert_eq!(
            told(20, |look| vec![sign(place, u64::from(look / 10))]),
            [(4, place), (14, place)]
        );
        let gone = |look| if look == 8 { vec![] } else { vec![sign(place, 0)] };
        assert_eq!(told(20, gone), [(4, place), (13, place)]);
    }

    #[test]
    fn what_says_itself_how_long_it_has_waited_is_told_of_at_the_first_look() {
        let ping = Sign {
            known: AFTER,
            ..sign(Place::Ping(1), 9)
        };
        assert_eq!(told(3, |_| vec![ping.clone()]), [(0, Place::Ping(1))]);
    }

    #[test]
    fn what_waits_behind_a_turn_is_told_of_as_that_turn_and_once_it_is_over_by_itself() {
        let behind = |look| {
            let mut signs = vec![sign(Place::Mailbox(1), 0), sign(Place::Arbiter(7), 0)];
            // The turn was seen a look later than the mailbox.
            if (1..20).contains(&look) {
                signs.push(sign(Place::Turn(2), 0));
            }
            signs
        };
        let all = told(30, behind);
        assert_eq!(all[0], (5, Place::Turn(2)));
        // Then the task that still holds the thread up explains the mailbox.
        assert_eq!(all[1..], [(20, Place::Arbiter(7))]);
        let elsewhere = |_| {
            let other = Sign {
                thread: 8,
                ..sign(Place::Mailbox(1), 0)
            };
            vec![other, sign(Place::Turn(2), 0)]
        };
        assert_eq!(told(6, elsewhere), [(4, Place::Mailbox(1)), (4, Place::Turn(2))]);
    }

    /// A slow link stands still for longer than a second again and again, and is no news each time.
    #[test]
    fn what_moves_in_jerks_is_told_of_once_in_a_while() {
        let jerks = |look: u32| vec![sign(Place::Window(3), u64::from(look / 6))];
        assert_eq!(
            told(24, jerks).len(),
            4,
            "the control: without a quiet time each jerk is told of"
        );
        let quiet = told_with(STEP * 12, 24, jerks);
        assert_eq!(quiet, [(4, Place::Window(3)), (16, Place::Window(3))]);
        // And one that stands still for good is told of when that while is over.
        let last_jerk = |look: u32| vec![sign(Place::Window(3), u64::from(look.min(6) / 6))];
        assert_eq!(
            told_with(STEP * 12, 40, last_jerk),
            [(4, Place::Window(3)), (16, Place::Window(3))]
        );
    }

    #[test]
    fn it_remembers_no_more_places_than_it_was_last_shown() {
        let mut core = WatchdogCore::new(AFTER, Duration::ZERO);
        let now = Instant::now();
        for look in 0..1_000 {
            core.look(now, &[sign(Place::Turn(look), 0)]);
        }
        assert_eq!(core.held.len(), 1);
        assert_eq!(core.held(now, Place::Turn(999)), Some(Duration::ZERO));
    }
}
