//! Each cause as a sentence, and what can be done about it.

use super::cause::{Cause, Reason};
use crate::waterfall::units::coarse;

impl Reason {
    /// What happened, with the time it took and what is usual. Lower case, no full stop.
    pub fn sentence(&self) -> String {
        let took = time(self.us);
        let said = match &self.cause {
            Cause::Mailbox { machine, actor } => match actor {
                Some(actor) => format!("the {machine}'s {actor} mailbox held the call {took}"),
                None => format!("the {machine}'s mailboxes held the call {took}"),
            },
            Cause::Admission { machine } => format!("the {machine} took {took} to admit the request"),
            Cause::Dispatch { machine } => format!("the {machine} took {took} to choose who serves the call"),
            Cause::SpawnQueue => format!("the spawn waited {took} behind other spawns"),
            Cause::Spawn => format!("starting the command took {took}"),
            Cause::Command { blocked_us: 0 } => format!("the command itself ran {took}"),
            Cause::Command { blocked_us } => format!(
                "the command itself ran {took}, up to {} of it with nobody taking its output",
                time(*blocked_us)
            ),
            Cause::HeldPipe { stream, given_up } => held_pipe(&took, *stream, *given_up),
            Cause::Disk { what, beside: true } => {
                format!("writing to disk beside the call ({what}) took {took}")
            }
            Cause::Disk { what, beside: false } => {
                format!("the command ran {took}, most of it while its output went to disk ({what})")
            }
            Cause::Relay => format!("the relay kept the records {took}, by its own word"),
            Cause::Distance => format!("the way there and back is {took} long"),
            Cause::Transit { relayed } => format!(
                "the way there and back{} took {took} more than the link's own round trip",
                if *relayed { " through the relay" } else { "" }
            ),
            Cause::Sending { machine, segment } => {
                format!("the {machine} took {took} to send its message ({segment})")
            }
            Cause::Receiving { machine, segment } => {
                format!("the {machine} took {took} to take a message in ({segment})")
            }
            Cause::Delivery { machine } => {
                format!("the {machine} took {took} to hand the end on to whom it is for")
            }
            Cause::HandOff => format!("the call took {took} from the caller's thread to the library's"),
            Cause::Outage => format!("the link was down for {took}, and the request was sent again"),
            Cause::Handler { machine } => format!("the {machine} took {took} to serve the request"),
            Cause::Unattributed { machine } => format!("the {machine} has no account of {took}"),
            Cause::Segment { machine, segment } => format!("the {machine}'s {segment} took {took}"),
            Cause::Span { machine, name } => format!("the call waited {took} for the {machine}'s {name}"),
        };
        match self.usual_us {
            Some(usual) => format!("{said}; usually {}", time(usual)),
            None => said,
        }
    }

    /// What to look at or to do next. Lower case, no full stop.
    pub fn advice(&self) -> &'static str {
        match &self.cause {
            Cause::Mailbox { .. } => {
                "the actor was at work on something else: its turns before this one are in `dwell trace show`; fewer \
                 calls at once wait less"
            }
            Cause::Admission { .. } => {
                "the window of requests in flight was full, or many came at once: fewer at once, or a second session"
            }
            Cause::Dispatch { .. } => {
                "a serial command holds the lock until its end: run what may overlap as parallel, or wait until the \
                 environment is ready before you call"
            }
            Cause::SpawnQueue => "many commands started at once: start fewer, or spread them over executors",
            Cause::Spawn => {
                "the executor's machine is short of processors or memory, or the program lies on a slow file system: \
                 look at its load, and try `true`"
            }
            Cause::Command { blocked_us: 0 } => "this is the program's own time: profile it there",
            Cause::Command { .. } => {
                "when whoever reads the output is slow, the program waits: take the output sooner, or say less"
            }
            Cause::HeldPipe { .. } => {
                "something that the command started in the background kept its output open: redirect that output, or \
                 do not leave it behind"
            }
            Cause::Disk { beside: true, .. } => {
                "the call did not wait for it, but a flush or the next write does: look at the disk below $DWELL_HOME"
            }
            Cause::Disk { beside: false, .. } => {
                "output that nobody takes goes to the spool: take it sooner, or put the spool on a faster disk"
            }
            Cause::Relay => {
                "the relay is busy or has little bandwidth: look at its machine, or dial the executor directly"
            }
            Cause::Distance => "only a nearer executor or relay makes it shorter",
            Cause::Transit { relayed: true } => {
                "the network or the relay in between is congested or throttled: compare with a direct link"
            }
            Cause::Transit { relayed: false } => {
                "the network in between is congested or throttled, or much else was on the link"
            }
            Cause::Sending { .. } => {
                "the link took bytes slowly, or much was in front: look for bulk output on the same session"
            }
            Cause::Receiving { .. } => "the machine was short of processor time, or the message is large",
            Cause::Delivery { .. } => "the end is handed on behind the output: take the output sooner",
            Cause::HandOff => "the machine was short of processor time, or the library's own thread was busy",
            Cause::Outage => {
                "look at why links die on the way: the logs of both sides say when and how they ended"
            }
            Cause::Handler { .. } => "look at the executor's load, and at what the request asks for",
            Cause::Unattributed { .. } => "the machine was probably doing something else: look at its load",
            Cause::Segment { .. } => {
                "this version of dwell does not know the segment: `dwell trace show` draws it"
            }
            Cause::Span { .. } => {
                "the call failed before it had an account: `dwell trace show` draws its critical path"
            }
        }
    }
}

fn held_pipe(took: &str, stream: Option<&str>, given_up: bool) -> String {
    let pipe = stream.unwrap_or("a pipe");
    let until = if given_up { ", until it was given up" } else { "" };
    format!("a process still held {pipe} for {took} after the command had ended{until}")
}

fn time(us: u64) -> String {
    coarse(us as f64 * 1e3, false)
}
