//! `dwell attach`.

use std::io::IsTerminal as _;

use super::super::args::Attach;
use super::super::failure::Failure;
use super::super::output;
use super::super::pump::{self, OnStop, Pumped, Sink};
use super::super::roles::Session;
use super::super::run;
use super::super::signals::Stop;
use super::super::stdin;
use super::super::terminal::{self, RawMode};
use super::{connect, find, spec};

pub(crate) async fn attach(ask: Attach, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    // One link to find it, and another to take it up: a link is one session's.
    let looking = stop.or(connect(&ask.reach)).await?;
    let found = stop.or(find(&looking, &ask.id)).await;
    stop.orderly(looking.shutdown()).await;
    let found = found?;
    let (id, process) = (found.id, found.process);
    let mut wanted = found.session.take_up().only(process.process);
    if ask.new {
        wanted = wanted.from(process.process, process.written);
    }
    let session = stop.or(Session::take_up(spec(&ask.reach)?, wanted)).await?;
    let mut running = session
        .adopt(process.process)
        .ok_or_else(|| Failure::new("unknown", format!("{id} has just ended")).advise("dwell ps --all"))?;
    let tty = process.tty && !json && terminal::is_interactive();
    let input = if process.stdin && (tty || stdin::is_forwarded()) {
        Some(stdin::read()?)
    } else {
        None
    };
    let sink = Sink::new(json)?;
    let raw = if tty && std::io::stdin().is_terminal() {
        let (rows, columns) = terminal::size();
        if let Err(error) = running.input().resize(rows, columns).await {
            tracing::debug!(error, "the command's terminal keeps its size");
        }
        Some(RawMode::enter()?)
    } else {
        None
    };
    let outcome = pump::pump(running, input, sink, &mut stop, (raw.is_some(), OnStop::Leave)).await;
    // Before anything else is printed.
    drop(raw);
    match outcome {
        Ok(Pumped::Ended(outcome)) => {
            // Others of the session may run on; with nothing left it ends by itself.
            stop.orderly(session.leave()).await;
            if json {
                output::print_json(&run::to_json(&outcome));
            }
            Ok(outcome.exit)
        }
        Ok(Pumped::Left(running)) => {
            // The link first: what the command writes from now on is for whoever comes next.
            stop.orderly(session.leave()).await;
            drop(running);
            output::note(&format!("dwell: left; it runs on: dwell attach {id}"));
            Ok(0)
        }
        Err(failure) => {
            stop.orderly(session.leave()).await;
            Err(failure.advise(format!("if it still runs: dwell attach {id}")))
        }
    }
}
