//! `dwell inspect`: what is unfinished in the live processes of this user.

use std::path::PathBuf;

use clap::Args;
use dwell_actors::inspect::view::{FlowView, MailboxView, RelayView, Snapshot};
use dwell_actors::inspect::{Answered, Candidate, ask, candidates};
use dwell_messages::Role;
use serde_json::{Value, json};

use super::exit;
use super::failure::Failure;
use super::identity;
use super::output;
use super::ready::role_name;
use super::table::{micros, table};

/// What `dwell inspect --help` ends with.
const EXAMPLES: &str = "\
Examples:
  dwell inspect                 every process of yours that answers
  dwell inspect executor
  dwell inspect 4711 --json | jq .processes[0].table.stuck

A thread of its own answers, so that a process whose actors hang shows what they hang on. One that does not answer at
all within two seconds is said to hang, and the exit code is 1.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// Of which processes: executor, relay or harness, a process id, or the path of a socket [default: all].
    #[arg(value_name = "WHICH", value_parser = which)]
    pub(crate) which: Option<Which>,
    /// Idle mailboxes and links as well.
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// Which processes are asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Role(Role),
    Process(u32),
    Socket(PathBuf),
}

pub(super) fn which(text: &str) -> Result<Which, String> {
    match text {
        "executor" => Ok(Which::Role(Role::Executor)),
        "relay" => Ok(Which::Role(Role::Relay)),
        "harness" => Ok(Which::Role(Role::Harness)),
        path if path.contains('/') => Ok(Which::Socket(path.into())),
        pid => pid
            .parse()
            .map(Which::Process)
            .map_err(|_| "it is executor, relay or harness, a process id, or the path of a socket".into()),
    }
}

pub(crate) fn inspect(ask: &Inspect, json: bool) -> Result<u8, Failure> {
    let answers = answers(ask.which.as_ref())?;
    if json {
        let all: Vec<_> = answers.iter().map(to_json).collect();
        output::print_json(&json!({ "processes": all }));
    } else {
        for answered in &answers {
            match &answered.answer {
                Ok(snapshot) => output::print(&render(snapshot, ask.all)),
                Err(error) => output::note(&format!("dwell: {error}")),
            }
        }
        if answers.is_empty() {
            output::note("dwell: no process of this user answers: start one, or give it the same DWELL_HOME");
        }
    }
    let hung = answers.iter().any(|answered| answered.answer.is_err());
    Ok(if hung { exit::UNANSWERED } else { 0 })
}

/// What they answer. Processes that ended meanwhile are left out, their sockets are gone.
pub(super) fn answers(which: Option<&Which>) -> Result<Vec<Answered>, Failure> {
    let failed = |error| Failure::of("inspect", &error);
    let asked = match which {
        Some(Which::Socket(path)) => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            let all = candidates(dir.unwrap_or_else(|| ".".as_ref())).map_err(failed)?;
            let named = all
                .into_iter()
                .filter(|candidate| candidate.path.file_name() == path.file_name());
            named.collect()
        }
        _ => {
            let mut all = candidates(&identity::home()?.run_dir()).map_err(failed)?;
            all.retain(|candidate| is_meant(candidate, which));
            all
        }
    };
    if asked.is_empty() && which.is_some() {
        return Err(Failure::new("inspect", "no such process answers")
            .advise("what there is: dwell inspect")
            .advise(
                "processes answer that have the same DWELL_HOME and were not started with --no-inspect",
            ));
    }
    let mut answers = ask(asked);
    answers.retain(|answered| {
        !matches!(
            &answered.answer,
            Err(dwell_actors::inspect::InspectError::Gone { .. })
        )
    });
    Ok(answers)
}

fn is_meant(candidate: &Candidate, which: Option<&Which>) -> bool {
    match which {
        None | Some(Which::Socket(_)) => true,
        Some(Which::Role(role)) => candidate.role == *role,
        Some(Which::Process(pid)) => candidate.pid == *pid,
    }
}

pub(super) fn to_json(answered: &Answered) -> Value {
    let (table, error) = match &answered.answer {
        Ok(snapshot) => (serde_json::to_value(snapshot).unwrap_or_default(), Value::Null),
        Err(error) => (Value::Null, error.to_string().into()),
    };
    json!({
        "role": role_name(answered.candidate.role),
        "pid": answered.candidate.pid,
        "table": table,
        "error": error,
    })
}

fn render(snapshot: &Snapshot, all: bool) -> String {
    let mut out = format!(
        "{} {} (dwell {}), up {}, {} calls, {} processes, {} links, {} mailboxes of which {} are idle\n",
        role_name(snapshot.role),
        snapshot.pid,
        output::printable(&snapshot.dwell),
        micros(snapshot.up_us),
        snapshot.calls.len(),
        snapshot.processes.len(),
        snapshot.links.len(),
        snapshot.mailboxes.len() as u64 + snapshot.idle_mailboxes,
        snapshot.idle_mailboxes,
    );
    for stuck in &snapshot.stuck {
        out.push_str(&format!("  STUCK  {}\n", output::printable(&stuck.text)));
    }
    out.push_str(&calls(snapshot));
    out.push_str(&processes(snapshot));
    out.push_str(&mailboxes(&snapshot.mailboxes));
    out.push_str(&links(snapshot, all));
    if let Some(relay) = &snapshot.relay {
        out.push_str(&streams(relay));
    }
    for arbiter in &snapshot.arbiters {
        if let Some(waiting) = arbiter.waiting_us.filter(|waiting| all || *waiting > 100_000) {
            out.push_str(&format!(
                "  actor thread {} has run nothing for {}\n",
                arbiter.thread,
                micros(waiting)
            ));
        }
    }
    if snapshot.left_out > 0 {
        out.push_str(&format!(
            "  and {} rows more that found no room in the tables\n",
            snapshot.left_out
        ));
    }
    out.push('\n');
    out
}

fn calls(snapshot: &Snapshot) -> String {
    let rows = snapshot.calls.iter().map(|call| {
        [
            output::printable(&call.kind),
            output::printable(&call.method),
            process_number(call.process),
            micros(call.age_us),
            output::printable(&call.at),
            micros(call.at_us),
            output::printable(&call.trace_id),
        ]
    });
    table(["CALL", "METHOD", "PROCESS", "AGE", "AT", "FOR", "TRACE"], rows)
}

fn processes(snapshot: &Snapshot) -> String {
    let rows = snapshot.processes.iter().map(|process| {
        let waits = process
            .waits
            .iter()
            .zip(process.waits_us)
            .filter(|(_, us)| *us > 0);
        let waits: Vec<_> = waits
            .map(|(waits, us)| format!("{} {}", output::printable(waits), micros(us)))
            .collect();
        [
            process_number(process.process),
            process.pid.to_string(),
            output::printable(&process.program),
            output::printable(&process.state),
            micros(process.age_us),
            process.bytes.iter().sum::<u64>().to_string(),
            if waits.is_empty() {
                "-".into()
            } else {
                waits.join(", ")
            },
        ]
    });
    table(
        [
            "PROCESS",
            "PID",
            "PROGRAM",
            "STATE",
            "AGE",
            "BYTES",
            "OUTPUT WAITS FOR",
        ],
        rows,
    )
}

fn mailboxes(mailboxes: &[MailboxView]) -> String {
    let rows = mailboxes.iter().map(|mailbox| {
        let age = mailbox.message_age_us.map_or_else(|| "-".into(), micros);
        [
            output::printable(&mailbox.actor),
            mailbox.thread.to_string(),
            mailbox.depth.to_string(),
            mailbox.leaving.to_string(),
            mailbox.control_depth.to_string(),
            format!("{}/{}", mailbox.taken, mailbox.capacity),
            mailbox
                .turn
                .as_deref()
                .map_or_else(|| "-".into(), output::printable),
            age,
            micros(mailbox.still_us),
        ]
    });
    table(
        [
            "MAILBOX", "THREAD", "DEPTH", "LEAVING", "CONTROL", "PERMITS", "TURN", "AGE", "STILL",
        ],
        rows,
    )
}

fn links(snapshot: &Snapshot, all: bool) -> String {
    let for_us = |us: Option<u64>| us.map_or_else(|| "-".into(), micros);
    let shown = snapshot.links.iter().filter(|link| {
        all || link.silent_us.is_some() || link.held_us.is_some() || link.writing_us.is_some()
    });
    let rows = shown.map(|link| {
        [
            output::printable(&link.kind),
            output::printable(&link.stream),
            micros(link.age_us),
            for_us(link.silent_us),
            for_us(link.held_us),
            link.held_bytes.to_string(),
            for_us(link.writing_us),
        ]
    });
    table(
        ["LINK", "STREAM", "AGE", "UNANSWERED", "HELD", "BYTES", "WRITING"],
        rows,
    )
}

fn streams(relay: &RelayView) -> String {
    let flow = |flow: &FlowView| format!("{} frames {}", flow.queued_frames, micros(flow.queued_us));
    let rows = relay.streams.iter().map(|stream| {
        [
            output::printable(&stream.stream),
            if stream.half_open { "half-open" } else { "paired" }.into(),
            flow(&stream.up),
            stream.up.bytes.to_string(),
            flow(&stream.down),
            stream.down.bytes.to_string(),
        ]
    });
    format!(
        "  {} connections of which {} have said nothing, {} executors, {} streams; as of {} ago\n{}",
        relay.connections,
        relay.openings,
        relay.executors,
        relay.streams_total,
        micros(relay.as_of_us),
        table(
            [
                "STREAM",
                "STATE",
                "WAITS UP",
                "BYTES UP",
                "WAITS DOWN",
                "BYTES DOWN"
            ],
            rows
        )
    )
}

fn process_number(process: u64) -> String {
    if process == 0 {
        "-".into()
    } else {
        process.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_a_number_and_a_path_are_told_apart() {
        assert_eq!(which("relay"), Ok(Which::Role(Role::Relay)));
        assert_eq!(which("4711"), Ok(Which::Process(4_711)));
        assert_eq!(which("./x.sock"), Ok(Which::Socket("./x.sock".into())));
        assert!(which("something").is_err());
    }

    #[test]
    fn what_a_process_says_cannot_steer_the_terminal() {
        let text = r#"{"version":1,"role":"executor","pid":1,"dwell":"0\u001b[2J","up_us":1,"arbiters":[],"mailboxes":[],
            "idle_mailboxes":3,"calls":[{"kind":"run","method":"\u001b]0;x","trace_id":"a","sampled":true,"process":0,
            "age_us":1500000,"at":"link","at_us":2}],"processes":[],"links":[],"stuck":[{"what":"turn","for_us":1,
            "text":"\u0007"}],"warnings":0,"left_out":0,"a_field_of_later":1}"#;
        let snapshot: Snapshot = serde_json::from_str(text).unwrap();
        let shown = render(&snapshot, true);
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown}");
        assert!(shown.contains("1.5 s") && shown.contains("3 are idle"), "{shown}");
    }
}
