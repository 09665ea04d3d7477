//! `dwell ps`, `attach`, `logs` and `kill`: commands that run on an executor's machine whoever started them, as long as
//! it was this key.

mod attach;
mod id;
mod kill;
mod logs;
mod ps;

use std::time::Duration;

use dwell_actors::harness::{ProcessInfo, ProcessState, SessionInfo, signal_name};
use dwell_messages::{ExitStatus, Role};

pub(crate) use attach::attach;
pub(crate) use id::Id;
pub(crate) use kill::kill;
pub(crate) use logs::logs;
pub(crate) use ps::ps;

use super::args::Reach;
use super::failure::Failure;
use super::identity;
use super::oversight::Inspected;
use super::roles::{ConnectSpec, Session};
use super::run::target;

/// How this side reaches the executor. To be called again for another link.
async fn connect(reach: &Reach) -> Result<Session, Failure> {
    Session::connect(spec(reach)?).await
}

fn spec(reach: &Reach) -> Result<ConnectSpec, Failure> {
    let home = identity::home()?;
    let (executor, route) = target(reach, &home)?;
    let own = identity::load_or_make(&home, Role::Harness)?;
    Ok(ConnectSpec {
        identity: own.pair,
        route,
        trust: reach.trusting.trust()?,
        executor,
        authorization: Vec::new(),
        // Whoever only looks does not wait for long.
        resume_for: Some(Duration::from_secs(10)),
        token: reach.relay_token.clone().map(String::into_bytes),
        traces: home.traces_dir(),
        oversight: Inspected::default().oversight(&home),
        slower_than: None,
        store: home.runs_db(),
    })
}

/// The command that an id names.
struct Found {
    id: Id,
    session: SessionInfo,
    process: ProcessInfo,
}

async fn find(session: &Session, id: &Id) -> Result<Found, Failure> {
    if !id.is_of(session.epoch()) {
        return Err(Failure::new(
            "restarted",
            format!("{id} is of another life of the executor, which was restarted since: it is gone"),
        )
        .advise("what runs now: dwell ps"));
    }
    let info = session
        .sessions()
        .await?
        .into_iter()
        .find(|info| info.session == id.session);
    pick(session.epoch(), id, info)
}

fn pick(epoch: &[u8], id: &Id, info: Option<SessionInfo>) -> Result<Found, Failure> {
    let unknown = || {
        Failure::new(
            "unknown",
            format!(
                "there is no {id} here: it has ended and is not kept any more, or another key started it"
            ),
        )
        .advise("what there is: dwell ps --all")
    };
    let mut info = info.ok_or_else(unknown)?;
    if info.silent {
        return Err(Failure::new(
            "silent",
            format!("the session of {id} does not answer at the moment"),
        )
        .advise("try again; if it stays so, look at the executor's log"));
    }
    let named = |process: &ProcessInfo| Id::new(epoch, info.session, process.process);
    let process = match (id.process, &info.processes[..]) {
        (None, [only]) => only.clone(),
        (None, []) => return Err(unknown()),
        (None, several) => {
            let names: Vec<_> = several
                .iter()
                .map(|process| format!("{} ({})", named(process), process.program))
                .collect();
            let text = format!("{id} may be any of {}", names.join(", "));
            return Err(Failure::new("ambiguous", text).advise("name one of them"));
        }
        (Some(wanted), all) => all
            .iter()
            .find(|process| process.process == wanted)
            .cloned()
            .ok_or_else(unknown)?,
    };
    let id = named(&process);
    info.processes.retain(|other| other.process == process.process);
    Ok(Found {
        id,
        session: info,
        process,
    })
}

/// How a process stands, in words.
fn state_text(state: ProcessState) -> String {
    match (state, state.status()) {
        (ProcessState::Running, _) => "running".into(),
        (_, Some(ExitStatus::Code(code))) => format!("exited {code}"),
        (_, Some(ExitStatus::Signal(signal))) => match signal_name(signal) {
            Some(name) => format!("killed {name}"),
            None => format!("killed {signal}"),
        },
        (ProcessState::Exited(_) | ProcessState::Closed(_), None) => "ended".into(),
    }
}

/// The same for programs.
fn state_name(state: ProcessState) -> &'static str {
    match state {
        ProcessState::Running => "running",
        ProcessState::Exited(_) => "exited",
        ProcessState::Closed(_) => "closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &[u8] = &[1, 2, 3, 4, 5];

    fn process(number: u64) -> ProcessInfo {
        ProcessInfo {
            process: number,
            program: format!("program{number}"),
            pid: 1,
            started_unix_ms: 0,
            state: ProcessState::Running,
            written: [0; 2],
            kept: [0; 2],
            tty: false,
            stdin: false,
        }
    }

    fn id(text: &str) -> Id {
        format!(
            "{}-{text}",
            Id::new(EPOCH, 1, 1).to_string().split('-').next().unwrap()
        )
        .parse()
        .unwrap()
    }

    #[test]
    fn an_id_names_one_process_or_says_which_it_may_be() {
        let one = SessionInfo::for_tests(7, vec![process(1)]);
        let found = pick(EPOCH, &id("7"), Some(one.clone())).map_err(|_| ()).unwrap();
        assert_eq!((found.process.process, found.id), (1, Id::new(EPOCH, 7, 1)));
        let two = SessionInfo::for_tests(7, vec![process(1), process(4)]);
        let found = pick(EPOCH, &id("7.4"), Some(two.clone()))
            .map_err(|_| ())
            .unwrap();
        assert_eq!(found.process.process, 4);
        let kind = |outcome: Result<Found, Failure>| outcome.map(drop).unwrap_err().kind();
        assert_eq!(kind(pick(EPOCH, &id("7"), Some(two))), "ambiguous");
        assert_eq!(kind(pick(EPOCH, &id("7.2"), Some(one))), "unknown");
        assert_eq!(kind(pick(EPOCH, &id("7"), None)), "unknown");
    }
}
