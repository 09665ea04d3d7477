//! What the mailbox layer costs over bare actix, and what a record costs off the hot thread.
//!
//! `cargo bench -p dwell-actors --bench mailbox` prints ratios of one run, from interleaved rounds.
//! `… -- --instructions CASE N` runs one case N times for callgrind (`benches/instructions.sh`).

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the baseline is bare actix, the result is a table, and a benchmark that fails should stop"
)]

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use actix::Actor as _;
use dwell_actors::mailbox::{Actor, HostOptions, Mailbox, Message, Reply, Turn, start_here};
use dwell_actors::telemetry::{
    Anchor, Collector, CollectorOptions, Record, Tick, root, sdk, span_id, template,
};
use dwell_messages::{Envelope, Role, TraceContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages sent before the sender waits for all of them.
const BURST: u64 = 128;
/// Messages of one timed sample: below what a ring of records holds.
const SAMPLE_MESSAGES: u64 = 64 * BURST;
/// Questions of one timed sample.
const SAMPLE_QUESTIONS: u64 = 2_048;
/// Interleaved rounds; the table shows medians.
const ROUNDS: usize = 61;
/// Records that are made into spans in one go, as the collector does.
const RECORDS: usize = 512;

thread_local! {
    /// Messages handled by either actor: what the barrier of a burst waits for.
    static HANDLED: Cell<u64> = const { Cell::new(0) };
}

fn handle(number: u64) {
    HANDLED.set(HANDLED.get() + black_box(number | 1).min(1));
}

/// Waits until everything sent has been handled; the same for both sides.
async fn barrier(target: u64) {
    while HANDLED.get() < target {
        tokio::task::yield_now().await;
    }
}

/// The baseline: an ordinary actix actor whose message holds the permit that bounds it.
struct Bare;

struct Plain {
    number: u64,
    _permit: OwnedSemaphorePermit,
}

struct PlainQuestion(u64);

impl actix::Actor for Bare {
    type Context = actix::Context<Self>;
}

impl actix::Message for Plain {
    type Result = ();
}

impl actix::Message for PlainQuestion {
    type Result = u64;
}

impl actix::Handler<Plain> for Bare {
    type Result = ();

    fn handle(&mut self, plain: Plain, _: &mut Self::Context) {
        handle(plain.number);
    }
}

impl actix::Handler<PlainQuestion> for Bare {
    type Result = u64;

    fn handle(&mut self, question: PlainQuestion, _: &mut Self::Context) -> u64 {
        black_box(question.0)
    }
}

/// The same work on the mailbox layer.
struct Ours;

enum Job {
    Number(u64),
    Question(u64, Reply<u64>),
}

impl Message for Job {
    const NAMES: &'static [&'static str] = &["Number", "Question"];

    fn index(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Question(..) => 1,
        }
    }
}

impl Actor for Ours {
    const NAME: &'static str = "Ours";
    type Message = Job;
    type Control = ();

    fn receive(&mut self, envelope: Envelope<Job>, _: &mut Turn<'_, Self>) {
        match envelope.body {
            Job::Number(number) => handle(number),
            Job::Question(number, reply) => reply.send(black_box(number)),
        }
    }

    fn control(&mut self, (): (), _: &mut Turn<'_, Self>) {}
}

struct Bench {
    bare: actix::Addr<Bare>,
    room: Arc<Semaphore>,
    ours: Mailbox<Ours>,
    unsampled: TraceContext,
    sampled: TraceContext,
    collector: Collector,
}

impl Bench {
    fn new() -> Self {
        let collector = Collector::start(CollectorOptions {
            role: Role::Executor,
            keep_recent: false,
            sinks: vec![],
        })
        .unwrap();
        collector.install();
        let capacity = usize::try_from(BURST).unwrap();
        Self {
            bare: Bare.start(),
            room: Arc::new(Semaphore::new(capacity)),
            ours: start_here(HostOptions::new(capacity), || Ours),
            unsampled: root(false),
            sampled: root(true),
            collector,
        }
    }

    async fn run(&self, case: Case, count: u64) {
        match case {
            Case::Nothing => {}
            Case::BareTell => self.bare_tell(count).await,
            Case::Unsampled => self.tell(&self.unsampled, count).await,
            Case::Sampled => self.tell(&self.sampled, count).await,
            Case::BareAsk => self.bare_ask(count).await,
            Case::Ask => self.ask(count).await,
        }
    }

    async fn bare_tell(&self, count: u64) {
        let mut target = HANDLED.get();
        for _ in 0..count / BURST {
            for number in 0..BURST {
                let permit = Arc::clone(&self.room).try_acquire_owned().unwrap();
                self.bare.do_send(Plain {
                    number,
                    _permit: permit,
                });
            }
            target += BURST;
            barrier(target).await;
        }
    }

    async fn tell(&self, context: &TraceContext, count: u64) {
        let mut target = HANDLED.get();
        for _ in 0..count / BURST {
            for number in 0..BURST {
                let envelope = Envelope::new(context.clone(), Job::Number(number));
                self.ours.try_tell(envelope).unwrap();
            }
            target += BURST;
            barrier(target).await;
        }
    }

    async fn bare_ask(&self, count: u64) {
        for number in 0..count {
            black_box(self.bare.send(PlainQuestion(number)).await.unwrap());
        }
    }

    async fn ask(&self, count: u64) {
        for number in 0..count {
            let context = self.unsampled.clone();
            black_box(
                self.ours
                    .ask(context, |reply| Job::Question(number, reply))
                    .await
                    .unwrap(),
            );
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    Nothing,
    BareTell,
    Unsampled,
    Sampled,
    BareAsk,
    Ask,
}

impl Case {
    const TIMED: [Self; 5] = [
        Self::BareTell,
        Self::Unsampled,
        Self::Sampled,
        Self::BareAsk,
        Self::Ask,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::BareTell => "bare-tell",
            Self::Unsampled => "unsampled",
            Self::Sampled => "sampled",
            Self::BareAsk => "bare-ask",
            Self::Ask => "ask",
        }
    }

    fn of(name: &str) -> Option<Self> {
        let mut cases = Self::TIMED.into_iter().chain([Self::Nothing]);
        cases.find(|case| case.name() == name)
    }

    fn messages(self) -> u64 {
        match self {
            Self::Nothing | Self::BareTell | Self::Unsampled | Self::Sampled => SAMPLE_MESSAGES,
            Self::BareAsk | Self::Ask => SAMPLE_QUESTIONS,
        }
    }

    /// What it is measured against, and the largest ratio that is within budget.
    fn budget(self) -> Option<(Self, f64)> {
        match self {
            Self::Nothing | Self::BareTell | Self::BareAsk => None,
            Self::Unsampled => Some((Self::BareTell, 1.4)),
            Self::Sampled => Some((Self::BareTell, 1.9)),
            Self::Ask => Some((Self::BareAsk, 1.3)),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds a message of every case, in rounds that go through all cases so that noise meets all of them alike.
async fn interleaved(bench: &Bench) -> Vec<Vec<f64>> {
    let mut rounds = vec![Vec::with_capacity(ROUNDS); Case::TIMED.len()];
    for round in 0..=ROUNDS {
        for (times, case) in rounds.iter_mut().zip(Case::TIMED) {
            let began = Instant::now();
            bench.run(case, case.messages()).await;
            let ns = began.elapsed().as_nanos() as f64 / case.messages() as f64;
            // The first round warms up.
            if round > 0 {
                times.push(ns);
            }
            bench.collector.flush().await;
        }
    }
    rounds
}

fn print_messages(rounds: &[Vec<f64>]) {
    println!(
        "{:<12} {:>10} {:>8} {:>8}",
        "case", "ns/message", "ratio", "budget"
    );
    for (times, case) in rounds.iter().zip(Case::TIMED) {
        let ns = median(times.clone());
        let Some((base, budget)) = case.budget() else {
            println!("{:<12} {ns:>10.1} {:>8} {:>8}", case.name(), "1.00", "");
            continue;
        };
        let base = Case::TIMED.iter().position(|other| *other == base).unwrap();
        // Per round first: what slowed a whole round down is no difference between its cases.
        let ratio = median(
            times
                .iter()
                .zip(&rounds[base])
                .map(|(ours, bare)| ours / bare)
                .collect(),
        );
        let verdict = if ratio <= budget { "" } else { "  over" };
        println!(
            "{:<12} {ns:>10.1} {ratio:>8.2} {budget:>8.2}{verdict}",
            case.name()
        );
    }
}

/// Nanoseconds a span that a record costs off the hot thread.
fn print_spans() {
    let base = template::intern("Ours", Job::NAMES);
    let context = root(true);
    let records: Vec<Record> = (0..RECORDS)
        .map(|_| {
            let now = Tick::now().to_raw();
            Record {
                enqueued: now,
                dequeued: now,
                ..Record::new(&context, span_id().0, base, 1)
            }
        })
        .collect();
    let scope = sdk::scope();
    let time = |made: &mut dyn FnMut(&Record, &Anchor)| {
        let samples = (0..ROUNDS).map(|_| {
            let began = Instant::now();
            let anchor = Anchor::take();
            records.iter().for_each(|record| made(record, &anchor));
            began.elapsed().as_nanos() as f64 / (2 * RECORDS) as f64
        });
        median(samples.collect())
    };
    let mut spans = Vec::with_capacity(2 * RECORDS);
    let span = time(&mut |record, anchor| {
        if spans.len() == 2 * RECORDS {
            spans.clear();
        }
        spans.push(record.residence(anchor));
        spans.push(record.turn(anchor));
    });
    let mut data = Vec::with_capacity(2 * RECORDS);
    let span_data = time(&mut |record, anchor| {
        if data.len() == 2 * RECORDS {
            data.clear();
        }
        data.push(sdk::span_data(&record.residence(anchor), &scope));
        data.push(sdk::span_data(&record.turn(anchor), &scope));
    });
    println!("\n{:<28} {:>8} {:>8}", "off the hot thread", "ns/span", "budget");
    println!("{:<28} {span:>8.1}", "record -> Span");
    let verdict = if span_data <= 150.0 { "" } else { "  over" };
    println!(
        "{:<28} {span_data:>8.1} {:>8}{verdict}",
        "record -> SpanData", 150
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let system = actix_rt::System::new();
    match arguments.next().as_deref() {
        Some("--instructions") => {
            let case = arguments.next().and_then(|name| Case::of(&name));
            let count = arguments.next().and_then(|count| count.parse::<u64>().ok());
            let (Some(case), Some(count)) = (case, count) else {
                println!("give a case and a number of messages: --instructions bare-tell 16384");
                std::process::exit(2);
            };
            system.block_on(async {
                let bench = Bench::new();
                let mut left = count;
                while left > 0 {
                    let now = left.min(SAMPLE_MESSAGES);
                    bench.run(case, now).await;
                    // The ring must have room for every record: a dropped one costs less than a kept one.
                    bench.collector.flush().await;
                    left -= now;
                }
                assert_eq!(bench.collector.stats().records_dropped, 0);
            });
        }
        Some(_) | None => {
            system.block_on(async {
                let bench = Bench::new();
                print_messages(&interleaved(&bench).await);
                assert_eq!(bench.collector.stats().records_dropped, 0);
            });
            print_spans();
        }
    }
}
