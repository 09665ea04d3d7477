//! The table as one answer.

use std::cmp::Reverse;

use dwell_messages::OutputStream;

use crate::in_flight::view::{
    ArbiterView, CallView, LinkView, MailboxView, ProcessView, ROWS_MAX, Snapshot, VERSION,
};
use crate::in_flight::{Call, CallKind, Findings, Link, Look, Process, Seen, Stage, Waits};
use crate::telemetry::{Collector, Tick};

/// What is unfinished now. Needs no actor.
pub(super) fn take(collector: &Collector) -> Snapshot {
    let board = collector.board();
    let (seen, findings) = (board.look(), board.findings());
    let busy = |look: &&Look| look.depth > 0 || look.control_depth > 0 || look.turn.is_some();
    let mut mailboxes: Vec<_> = seen.mailboxes.iter().filter(busy).copied().collect();
    let idle = seen.mailboxes.len() - mailboxes.len();
    mailboxes.sort_unstable_by_key(|look| (Reverse(look.depth), look.id));
    let mut calls: Vec<_> = seen.calls.iter().collect();
    calls.sort_unstable_by_key(|(id, _)| *id);
    let mut processes: Vec<_> = seen.processes.iter().collect();
    processes.sort_unstable_by_key(|(id, _)| *id);
    let mut links: Vec<_> = seen.links.iter().collect();
    links.sort_unstable_by_key(|(id, _)| *id);
    let over = [mailboxes.len(), calls.len(), processes.len(), links.len()]
        .iter()
        .map(|rows| rows.saturating_sub(ROWS_MAX) as u64)
        .sum::<u64>();
    let relay = seen.relay.clone().map(|(published, mut relay)| {
        relay.as_of_us = seen.now.micros_since(published);
        relay
    });
    Snapshot {
        version: VERSION,
        role: board.role(),
        pid: std::process::id(),
        dwell: env!("CARGO_PKG_VERSION").to_owned(),
        up_us: board.up_us(),
        arbiters: arbiters(&seen),
        mailboxes: mailboxes
            .iter()
            .take(ROWS_MAX)
            .map(|look| mailbox(look, seen.now, &findings))
            .collect(),
        idle_mailboxes: idle as u64,
        calls: calls
            .iter()
            .take(ROWS_MAX)
            .map(|(_, row)| call(row, &seen))
            .collect(),
        processes: processes
            .iter()
            .take(ROWS_MAX)
            .map(|(id, row)| process(row, seen.now, findings.stopped.contains(id)))
            .collect(),
        links: links
            .iter()
            .take(ROWS_MAX)
            .map(|(_, row)| link(row, seen.now))
            .collect(),
        relay,
        stuck: findings.stuck,
        warnings: board.meters().warnings.load(std::sync::atomic::Ordering::Relaxed),
        left_out: seen.left_out + over,
    }
}

fn arbiters(seen: &Seen) -> Vec<ArbiterView> {
    let view = |arbiter: &crate::in_flight::ArbiterLook| ArbiterView {
        thread: arbiter.thread,
        lag_us: arbiter.lag_us,
        waiting_us: arbiter.asked.map(|asked| seen.now.micros_since(asked)),
    };
    seen.arbiters.iter().map(view).collect()
}

fn mailbox(look: &Look, now: Tick, findings: &Findings) -> MailboxView {
    MailboxView {
        actor: look.actor.to_owned(),
        thread: look.thread,
        depth: look.depth,
        leaving: look.leaving,
        taken: look.taken,
        capacity: look.capacity,
        control_depth: look.control_depth,
        dequeued: look.dequeued,
        turn: look.turn.map(|turn| turn.message.to_owned()),
        message_age_us: look.turn.map(|turn| now.micros_since(turn.enqueued)),
        still_us: findings.still.get(&look.id).copied().unwrap_or(0),
    }
}

/// A command whose start is under way is where its request is.
fn call(row: &Call, seen: &Seen) -> CallView {
    let (mut stage, mut since) = row.place();
    if (row.kind, stage) == (CallKind::Run, Stage::Window) {
        let same = |other: &&(u64, std::sync::Arc<Call>)| {
            other.1.kind == CallKind::Request
                && other.1.trace == row.trace
                && other.1.process() == row.process()
        };
        if let Some((_, request)) = seen.calls.iter().find(same) {
            (stage, since) = request.place();
        }
    }
    CallView {
        kind: row.kind.name().to_owned(),
        method: row.method.to_owned(),
        trace_id: row.trace.to_string(),
        sampled: row.sampled,
        process: row.process(),
        age_us: seen.now.micros_since(row.began),
        at: stage.name().to_owned(),
        at_us: seen.now.micros_since(since),
    }
}

fn process(row: &Process, now: Tick, stopped: bool) -> ProcessView {
    let streams = [OutputStream::Stdout, OutputStream::Stderr].map(|stream| row.stream(stream));
    ProcessView {
        process: row.process.0,
        pid: row.host_pid().unwrap_or(0),
        program: row.program.clone(),
        trace_id: row.trace.to_string(),
        age_us: now.micros_since(row.began),
        state: if stopped { "stopped" } else { row.stage().name() }.to_owned(),
        waits: streams.map(|(waits, _, _)| waits.name().to_owned()),
        waits_us: streams.map(|(waits, since, _)| match waits {
            Waits::Process => 0,
            Waits::Consumer | Waits::Anybody | Waits::Link => now.micros_since(since),
        }),
        bytes: streams.map(|(_, _, bytes)| bytes),
    }
}

fn link(row: &Link, now: Tick) -> LinkView {
    let held = row.held_since();
    LinkView {
        kind: row.kind.name().to_owned(),
        stream: format!("{:016x}", row.stream),
        age_us: now.micros_since(row.began),
        silent_us: row.silent_since().map(|since| now.micros_since(since)),
        held_us: held.map(|(since, _)| now.micros_since(since)),
        held_bytes: held.map_or(0, |(_, bytes)| bytes),
        writing_us: row.writing_since().map(|since| now.micros_since(since)),
    }
}
