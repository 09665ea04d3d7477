//! An actor of your own: its mailbox is bounded, and its residence is a span without a line of tracing code.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::mpsc::{SyncSender, sync_channel};

use dwell::mailbox::{Actor, HostOptions, Message, Reply, Turn, start_on};
use dwell::messages::{Envelope, Role, Span};
use dwell::runtime::Runtime;
use dwell::telemetry::{ClockOffset, Collector, CollectorOptions, SinkError, SpanSink, root};

/// What lies in the mailbox: a number to add, and where the new total goes.
struct Add(u64, Reply<u64>);

impl Message for Add {
    // Names become attributes of spans, so they are few.
    const NAMES: &'static [&'static str] = &["Add"];

    fn index(&self) -> usize {
        0
    }
}

/// The state. A turn is synchronous: what takes time is a task.
struct Counter(u64);

impl Actor for Counter {
    const NAME: &'static str = "Counter";
    type Message = Add;
    type Control = ();

    fn receive(&mut self, envelope: Envelope<Add>, _: &mut Turn<'_, Self>) {
        let Add(number, reply) = envelope.body;
        self.0 += number;
        reply.send(self.0);
    }

    fn control(&mut self, (): (), _: &mut Turn<'_, Self>) {}
}

/// Hands finished spans to the main thread; a real sink would export them.
struct Memory(SyncSender<Span>);

impl SpanSink for Memory {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        for span in spans {
            let sent = self.0.try_send(span.clone());
            sent.map_err(|error| SinkError(error.to_string()))?;
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sender, spans) = sync_channel(64);
    let options = CollectorOptions {
        role: Role::Harness,
        keep_recent: false,
        sinks: vec![Box::new(Memory(sender))],
    };
    let collector = Collector::start(options)?;
    let runtime = Runtime::start(1, collector.clone())?;
    // Its mailbox holds eight messages: whoever has a ninth waits.
    let counter = start_on(runtime.place().arbiter(), HostOptions::new(8), || Counter(0));

    // Every message travels under a context, the parent of what receiving it costs. This one is sampled.
    let context = root(true);
    assert_eq!(counter.ask(context.clone(), |reply| Add(2, reply)).await?, 2);
    counter.drain().await;
    collector.flush().await;

    let spans: Vec<Span> = spans.try_iter().collect();
    for span in &spans {
        println!("{} {} ns", span.name, span.duration_ns());
    }
    let residence = |span: &Span| span.name == "mailbox Counter" && span.parent == context.span_id.0;
    assert!(spans.iter().any(residence));
    Ok(())
}
