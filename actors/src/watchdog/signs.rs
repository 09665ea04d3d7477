//! What a look at the table shows that should move on, and how that is said to people.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::OutputStream;

use super::core::{Place, Sign};
use crate::in_flight::view::{FlowView, StreamView};
use crate::in_flight::{Link, LinkKind, Look, Process, Seen, Waits};

/// Kinds of places, as metrics and `inspect` name them.
pub(crate) const WHATS: &[&str] = &[
    "arbiter",
    "consumer",
    "mailbox",
    "relay_flow",
    "silent_peer",
    "stopped_child",
    "turn",
    "window",
    "write",
];

/// The name of a place's kind.
pub(super) fn what(place: Place) -> &'static str {
    match place {
        Place::Mailbox(_) => "mailbox",
        Place::Turn(_) => "turn",
        Place::Arbiter(_) => "arbiter",
        Place::Child(_) => "stopped_child",
        Place::Output(..) => "consumer",
        Place::Ping(_) => "silent_peer",
        Place::Window(_) => "window",
        Place::Write(_) => "write",
        Place::Flow(..) => "relay_flow",
    }
}

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

/// Everything that should move on. `stopped` says which processes are stopped, by their place in the table.
pub(super) fn signs(seen: &Seen, stopped: &HashMap<u64, bool>) -> Vec<Sign> {
    let mut signs = Vec::new();
    signs.extend(seen.mailboxes.iter().filter_map(mailbox));
    let micros = |us: u64| Duration::from_micros(us);
    for arbiter in &seen.arbiters {
        if let Some(asked) = arbiter.asked {
            signs.push(Sign {
                place: Place::Arbiter(arbiter.thread),
                mark: asked.to_raw(),
                known: micros(seen.now.micros_since(asked)),
                thread: arbiter.thread,
            });
        }
    }
    let sign = |place, mark, known| Sign {
        place,
        mark,
        known,
        thread: 0,
    };
    for (id, process) in &seen.processes {
        if stopped.get(id).copied().unwrap_or(false) {
            signs.push(sign(Place::Child(*id), 0, Duration::ZERO));
        }
        for stream in STREAMS {
            let (waits, since, bytes) = process.stream(stream);
            // What waits for the link is the link's to tell.
            if matches!(waits, Waits::Consumer | Waits::Anybody) {
                let place = Place::Output(*id, stream.index() as u8);
                signs.push(sign(place, bytes, micros(seen.now.micros_since(since))));
            }
        }
    }
    for (id, link) in &seen.links {
        let mut since = |place, tick: Option<crate::telemetry::Tick>| {
            if let Some(tick) = tick {
                signs.push(sign(place, tick.to_raw(), micros(seen.now.micros_since(tick))));
            }
        };
        since(Place::Ping(*id), link.silent_since());
        since(Place::Window(*id), link.held_since().map(|(since, _)| since));
        since(Place::Write(*id), link.writing_since());
    }
    if let Some((_, relay)) = &seen.relay {
        for stream in &relay.streams {
            for (way, flow) in [&stream.up, &stream.down].into_iter().enumerate() {
                if flow.queued_frames > 0 {
                    signs.push(sign(
                        Place::Flow(number(stream), way as u8),
                        flow.bytes,
                        Duration::ZERO,
                    ));
                }
            }
        }
    }
    signs
}

/// A mailbox's actor is in a turn, or it should be.
fn mailbox(look: &Look) -> Option<Sign> {
    let moved = look.dequeued.wrapping_add(look.controls.rotate_left(32));
    let waiting = look.depth.saturating_sub(look.leaving) > 0 || look.control_depth > 0;
    let (place, mark) = match look.turn {
        // The same turn: nothing was taken out, and what it handles is what it was.
        Some(turn) => (Place::Turn(look.id), moved ^ turn.enqueued.to_raw()),
        None if waiting => (Place::Mailbox(look.id), moved),
        None => return None,
    };
    Some(Sign {
        place,
        mark,
        known: Duration::ZERO,
        thread: look.thread,
    })
}

fn number(stream: &StreamView) -> u64 {
    u64::from_str_radix(&stream.stream, 16).unwrap_or(0)
}

/// Who waits for what, and what to do.
pub(super) fn text(seen: &Seen, place: Place, held: Duration) -> String {
    let held = format!("{:.1} s", held.as_secs_f64());
    let by_id = |id: u64| seen.mailboxes.iter().find(|look| look.id == id);
    let process = |id: u64| {
        seen.processes
            .iter()
            .find(|(other, _)| *other == id)
            .map(|(_, process)| process)
    };
    let link = |id: u64| {
        seen.links
            .iter()
            .find(|(other, _)| *other == id)
            .map(|(_, link)| link)
    };
    match place {
        Place::Turn(id) => by_id(id).map(|look| turn_text(seen, look, &held)),
        Place::Mailbox(id) => by_id(id).map(|look| mailbox_text(look, &held)),
        Place::Arbiter(thread) => Some(arbiter_text(seen, thread, &held)),
        Place::Child(id) => process(id).map(|process| child_text(process, &held)),
        Place::Output(id, stream) => process(id).map(|process| output_text(process, stream, &held)),
        Place::Ping(id) => link(id).map(|link| ping_text(link, &held)),
        Place::Window(id) => link(id).map(|link| window_text(link, &held)),
        Place::Write(id) => link(id).map(|link| {
            format!(
                "a write to {} has not ended for {held}: the other end takes nothing; look whether that process runs and \
                 whether the network between is up",
                peer(link)
            )
        }),
        Place::Flow(stream, way) => Some(flow_text(seen, stream, way, &held)),
    }
    .unwrap_or_default()
}

fn turn_text(seen: &Seen, look: &Look, held: &str) -> String {
    let message = look.turn.map_or("(over)", |turn| turn.message);
    let behind = seen.mailboxes.iter().filter(|other| other.thread == look.thread);
    let behind: u64 = behind
        .map(|other| u64::from(other.depth))
        .sum::<u64>()
        .saturating_sub(1);
    format!(
        "{} has been handling {message} for {held}, and {behind} messages of its actor thread wait behind it: something in \
         that turn blocks or computes; look at the thread's stack (gdb -p, or eu-stack -p), and move the work to a task or \
         a thread",
        look.actor
    )
}

fn mailbox_text(look: &Look, held: &str) -> String {
    format!(
        "{} has {} messages and {} control messages and has taken none out for {held}, and is in no turn: its actor \
         thread runs something else; look at what else is stuck there, and at the thread's stack",
        look.actor,
        look.depth.saturating_sub(look.leaving),
        look.control_depth
    )
}

fn arbiter_text(seen: &Seen, thread: u32, held: &str) -> String {
    let waiting = seen.mailboxes.iter().filter(|look| look.thread == thread);
    let waiting: u64 = waiting.map(|look| u64::from(look.depth)).sum();
    format!(
        "actor thread {thread} has run no task for {held}, and {waiting} messages wait on it: a task there blocks, or the \
         machine gives it no time; look at the thread's stack and at the machine's load"
    )
}

fn child_text(process: &Arc<Process>, held: &str) -> String {
    let pid = process.host_pid().unwrap_or(0);
    format!(
        "process {} ({}, pid {pid}) has been stopped for {held}, and its call waits for it: a signal or a debugger stopped \
         it; kill -CONT {pid} lets it go on",
        process.process.0, process.program
    )
}

fn output_text(process: &Arc<Process>, stream: u8, held: &str) -> String {
    let stream = STREAMS[usize::from(stream.min(1))];
    let (waits, _, bytes) = process.stream(stream);
    let name = match stream {
        OutputStream::Stdout => "standard output",
        OutputStream::Stderr => "standard error",
    };
    let who = match waits {
        Waits::Anybody => {
            "nobody is connected who takes it, and there is no spool left for it: attach to it, end it, or give it more spool"
        }
        Waits::Consumer | Waits::Link | Waits::Process => {
            "its consumer has not read what it was sent: look what the client does with the output, or let it go on \
             reading"
        }
    };
    format!(
        "{name} of process {} ({}) has waited for {held} behind {bytes} bytes: {who}",
        process.process.0, process.program
    )
}

fn peer(link: &Link) -> &'static str {
    match link.kind {
        LinkKind::Direct => "the other end",
        LinkKind::Relayed => "the relay, or the other end behind it,",
        LinkKind::Registration => "the relay",
    }
}

fn ping_text(link: &Link, held: &str) -> String {
    format!(
        "{} has not answered a ping for {held} (stream {:016x}): it stands still, or the network between is gone; look \
         whether it runs; the connection is made anew when the silence lasts",
        peer(link),
        link.stream
    )
}

fn window_text(link: &Link, held: &str) -> String {
    let bytes = link.held_since().map_or(0, |(_, bytes)| bytes);
    let why = match link.kind {
        LinkKind::Relayed => {
            "the relay's window is shut, or the other end has opened nothing of what is under way"
        }
        LinkKind::Direct | LinkKind::Registration => "the other end has opened nothing of what is under way",
    };
    format!(
        "{bytes} bytes have waited for {held} for a link (stream {:016x}) over which nothing may leave: {why}; look \
         whether it reads",
        link.stream
    )
}

fn flow_text(seen: &Seen, stream: u64, way: u8, held: &str) -> String {
    let streams = seen.relay.iter().flat_map(|(_, relay)| &relay.streams);
    let mut found = streams.filter(|other| number(other) == stream);
    let flow: Option<&FlowView> = found
        .next()
        .map(|found| if way == 0 { &found.up } else { &found.down });
    let (to, frames) = (
        if way == 0 { "executor" } else { "harness" },
        flow.map_or(0, |flow| flow.queued_frames),
    );
    format!(
        "{frames} frames of stream {stream:016x} have waited for {held}: the {to}'s connection takes nothing; look whether \
         it runs and reads"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_flight::view::RelayView;
    use crate::in_flight::{Board, turn_of, turn_word};
    use crate::telemetry::Tick;
    use dwell_messages::Role;

    fn look(depth: u32, leaving: u32, turn: bool) -> Look {
        Look {
            id: 3,
            actor: "Dispatcher",
            thread: 2,
            depth,
            leaving,
            turn: turn
                .then(|| turn_of(turn_word(Tick::now(), 0), &["Call"]))
                .flatten(),
            ..Look::default()
        }
    }

    #[test]
    fn a_mailbox_should_move_when_something_waits_in_it_and_not_when_only_effects_do() {
        assert_eq!(mailbox(&look(0, 0, false)), None);
        assert_eq!(
            mailbox(&look(2, 2, false)),
            None,
            "whoever has no room for them is stuck"
        );
        assert_eq!(
            mailbox(&look(3, 2, false)).map(|sign| sign.place),
            Some(Place::Mailbox(3))
        );
        assert_eq!(
            mailbox(&look(1, 0, true)).map(|sign| sign.place),
            Some(Place::Turn(3))
        );
        let control = Look {
            control_depth: 1,
            ..look(0, 0, false)
        };
        assert_eq!(mailbox(&control).map(|sign| sign.place), Some(Place::Mailbox(3)));
    }

    #[test]
    fn frames_that_wait_at_a_relay_are_told_of_with_the_side_that_takes_nothing() {
        let flow = |queued_frames, bytes| FlowView {
            queued_frames,
            queued_us: 0,
            bytes,
            window_left_bytes: 0,
        };
        let stream = |down| StreamView {
            stream: "00000000000000ab".into(),
            half_open: false,
            up: flow(0, 7),
            down,
        };
        let board = Board::new(Role::Relay);
        let publish = |down| {
            board.publish_relay(RelayView {
                streams: vec![stream(down)],
                ..RelayView::default()
            });
            board.look()
        };
        assert_eq!(signs(&publish(flow(0, 5)), &HashMap::new()), []);
        let seen = publish(flow(3, 5));
        let found = signs(&seen, &HashMap::new());
        assert_eq!(
            (found.len(), found[0].place, found[0].mark),
            (1, Place::Flow(0xab, 1), 5)
        );
        let text = text(&seen, found[0].place, Duration::from_secs(1));
        assert!(
            text.starts_with("3 frames") && text.contains("the harness's connection takes nothing"),
            "{text}"
        );
    }

    #[test]
    fn every_kind_of_place_is_listed() {
        assert!(WHATS.is_sorted());
        for place in [
            Place::Mailbox(0),
            Place::Turn(0),
            Place::Arbiter(0),
            Place::Child(0),
            Place::Output(0, 0),
            Place::Ping(0),
            Place::Window(0),
            Place::Write(0),
            Place::Flow(0, 0),
        ] {
            assert!(WHATS.contains(&what(place)));
        }
    }
}
