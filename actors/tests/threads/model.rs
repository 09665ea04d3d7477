//! Random histories of one thread's metadata against the plainest account of what must hold.

use std::time::{Duration, Instant};

use dwell_actors::metadata_store::{Change, ThreadId, ThreadPatch, ThreadRecord};
use dwell_actors::metadata_writer::{Flight, MetadataCore, Next};
use dwell_messages::TraceContext;
use proptest::prelude::*;

/// What happens to a thread.
#[derive(Clone, Debug)]
enum Op {
    Observe(ThreadPatch),
    Barrier,
    Mutate(ThreadPatch),
    Persist,
    /// Time passes, by so many milliseconds.
    Pass(u64),
    /// The update under way ends; false: it fails.
    Finish(bool),
}

/// Something that was accepted, in order. A mutation may be refused later; nothing else may.
struct Accepted {
    patch: ThreadPatch,
    refused: bool,
}

struct Waiting {
    name: usize,
    /// How many accepted things there were when it began to wait.
    target: usize,
    /// The mutation that it is, if it is one.
    mutation: Option<usize>,
}

/// The account: what was accepted, what the store holds, who waits.
struct Account {
    core: MetadataCore<usize>,
    now: Instant,
    deferred: Option<ThreadPatch>,
    accepted: Vec<Accepted>,
    /// So many of the accepted are written or refused.
    settled: usize,
    store: ThreadRecord,
    waiting: Vec<Waiting>,
    in_flight: Option<Flight>,
    names: usize,
    failures: usize,
}

impl Account {
    fn new(deferred: ThreadPatch) -> Self {
        Self {
            core: MetadataCore::new(deferred.clone()),
            now: Instant::now(),
            deferred: (!deferred.is_empty()).then_some(deferred),
            accepted: Vec::new(),
            settled: 0,
            store: ThreadRecord::new(ThreadId([1; 16])),
            waiting: Vec::new(),
            in_flight: None,
            names: 0,
            failures: 0,
        }
    }

    fn accept(&mut self, patch: ThreadPatch) {
        self.accepted.push(Accepted {
            patch,
            refused: false,
        });
    }

    /// What was known at the beginning comes with the first change, as part of it.
    fn with_deferred(&mut self, patch: ThreadPatch) -> ThreadPatch {
        let mut whole = self.deferred.take().unwrap_or_default();
        whole.merge(patch);
        whole
    }

    fn name(&mut self) -> usize {
        self.names += 1;
        self.names
    }

    fn op(&mut self, op: Op) {
        let context = TraceContext::default();
        match op {
            Op::Observe(patch) => {
                let whole = self.with_deferred(patch.clone());
                self.accept(whole);
                self.core.observe(patch, context, self.now);
            }
            Op::Persist => {
                if self.deferred.is_some() {
                    let whole = self.with_deferred(ThreadPatch::default());
                    self.accept(whole);
                }
                self.core.materialise(context, self.now);
                self.op(Op::Barrier);
            }
            Op::Barrier => {
                let (name, target) = (self.name(), self.accepted.len());
                match self.core.barrier(name) {
                    Some(_) => assert_eq!(self.settled, target, "a barrier went through too early"),
                    None => {
                        assert!(self.settled < target, "a barrier waits for nothing");
                        self.waiting.push(Waiting {
                            name,
                            target,
                            mutation: None,
                        });
                    }
                }
            }
            Op::Mutate(patch) => {
                if self.deferred.is_some() {
                    let whole = self.with_deferred(ThreadPatch::default());
                    self.accept(whole);
                }
                let name = self.name();
                self.accept(patch.clone());
                let mutation = Some(self.accepted.len() - 1);
                self.waiting.push(Waiting {
                    name,
                    target: self.accepted.len(),
                    mutation,
                });
                self.core.mutate(patch, context, self.now, name);
            }
            Op::Pass(ms) => self.now += Duration::from_millis(ms),
            Op::Finish(well) => self.finish(well),
        }
        self.start();
    }

    fn start(&mut self) {
        match self.core.next(self.now) {
            Next::Start(flight) => {
                assert!(self.in_flight.is_none(), "two updates in flight");
                self.in_flight = Some(*flight);
            }
            Next::WaitUntil(due) => {
                assert!(due > self.now, "it is due and was not begun");
                assert!(self.waiting.is_empty(), "somebody waits for a delay");
            }
            Next::Idle => assert!(
                self.in_flight.is_some() || self.waiting.is_empty(),
                "somebody waits and nothing is under way"
            ),
        }
    }

    fn finish(&mut self, well: bool) {
        let Some(flight) = self.in_flight.take() else {
            return;
        };
        // The flight's generation is a count of what was accepted: it covers the accepted up to there.
        let covered = usize::try_from(flight.generation).unwrap();
        let own_mutation = self
            .waiting
            .iter()
            .position(|waiting| waiting.mutation == Some(covered - 1) && self.settled == covered - 1);
        self.failures += usize::from(!well);
        let error = self.failures;
        let released = self
            .core
            .finished(if well { Ok(()) } else { Err(error) }, self.now);
        if well {
            self.store.apply(flight.patch);
            self.settled = covered;
        } else if let Some(at) = own_mutation {
            self.accepted[covered - 1].refused = true;
            self.settled = covered;
            assert!(
                released
                    .iter()
                    .any(|told| told.waiter == self.waiting[at].name && told.outcome == Err(error))
            );
        }
        for told in &released {
            let at = self
                .waiting
                .iter()
                .position(|waiting| waiting.name == told.waiter);
            let waiting = self.waiting.remove(at.expect("told once, and only who waits"));
            match (told.outcome, waiting.mutation) {
                (Ok(()), _) => assert!(waiting.target <= self.settled, "told too early that all is well"),
                (Err(told), None) => {
                    assert_eq!(told, error, "the error of another update");
                    assert!(
                        covered >= waiting.target,
                        "failed by an update that does not cover it"
                    );
                }
                (Err(told), Some(mutation)) => {
                    assert_eq!(told, error);
                    self.accepted[mutation].refused = true;
                }
            }
        }
        // Nobody whose generation is settled, or whose covering update failed, goes on waiting.
        for waiting in &self.waiting {
            assert!(waiting.target > self.settled, "a lost wake-up");
            assert!(
                well || own_mutation.is_some() || waiting.target > covered,
                "waits beyond its covering update"
            );
        }
        // What the store holds is what was accepted so far, in that order, without what was refused.
        let mut expected = ThreadRecord::new(self.store.id);
        for accepted in self.accepted[..self.settled]
            .iter()
            .filter(|accepted| !accepted.refused)
        {
            expected.apply(accepted.patch.clone());
        }
        assert_eq!(self.store, expected);
    }
}

fn any_patch() -> impl Strategy<Value = ThreadPatch> {
    let text = || {
        prop_oneof![
            2 => Just(Change::Keep),
            1 => Just(Change::Clear),
            3 => "[a-z]{1,2}".prop_map(Change::Set),
        ]
    };
    (
        text(),
        text(),
        proptest::option::of(0..9_u64),
        proptest::option::of(0..9_i64),
    )
        .prop_map(|(title, model, turns, updated_unix_us)| ThreadPatch {
            title,
            model,
            turns,
            updated_unix_us,
            ..ThreadPatch::default()
        })
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any_patch().prop_map(Op::Observe),
        4 => Just(Op::Barrier),
        2 => any_patch().prop_map(Op::Mutate),
        1 => Just(Op::Persist),
        3 => (0..6_000_u64).prop_map(Op::Pass),
        6 => prop::bool::weighted(0.7).prop_map(Op::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn whatever_happens_in_whatever_order_the_store_holds_a_prefix_and_barriers_tell_the_truth(
        deferred in any_patch(), ops in proptest::collection::vec(any_op(), 0..40),
    ) {
        let mut account = Account::new(deferred);
        for op in ops {
            account.op(op);
        }
        // The disk is well again: one barrier, and everything is written.
        account.op(Op::Barrier);
        for _ in 0..100 {
            account.op(Op::Finish(true));
        }
        prop_assert!(account.waiting.is_empty());
        prop_assert_eq!(account.settled, account.accepted.len());
    }
}
