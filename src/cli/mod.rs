//! The command line: what is asked, who does it, and how the process ends.

mod address;
mod args;
mod bench;
mod bridge;
mod capture;
mod demo;
mod dialect;
mod executor;
mod exit;
mod failure;
mod fleet;
mod identity;
mod inspect;
mod key;
mod logs;
mod output;
mod oversight;
mod pump;
mod ready;
mod relay;
mod roles;
mod run;
mod sessions;
mod signals;
mod stdin;
mod table;
mod terminal;
mod threads;
mod top;
mod trace;
mod trust;
mod turn;
mod version;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Verb};
use failure::Failure;

/// Parses the command line, does what it says, and gives the exit code.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(exit::usage(&error)),
    };
    logs::start(arguments.log_format);
    let json = arguments.json;
    let done = match arguments.verb {
        Verb::Demo(ask) => dwell::block_on(demo::demo(ask, json)),
        Verb::Turn(ask) => dwell::block_on(turn::turn(*ask, json)),
        Verb::Relay(ask) => wait(relay::serve(ask, json)),
        Verb::Executor(ask) => wait(executor::serve(ask, json)),
        Verb::Bridge(ask) => wait(bridge::serve(*ask)),
        // The session lives on this thread too: nothing is handed to another on its way.
        Verb::Run(ask) => dwell::block_on(run::run(*ask, json)),
        Verb::Ps(ask) => dwell::block_on(sessions::ps(ask, json)),
        Verb::Attach(ask) => dwell::block_on(sessions::attach(ask, json)),
        Verb::Logs(ask) => dwell::block_on(sessions::logs(ask, json)),
        Verb::Kill(ask) => dwell::block_on(sessions::kill(ask, json)),
        Verb::Trust(ask) => dwell::block_on(trust::trust(ask, json)),
        Verb::Guard => guard(),
        Verb::Key(ask) => key::key(&ask, json),
        Verb::Trace(ask) => trace::trace(&ask, json),
        Verb::Inspect(ask) => inspect::inspect(&ask, json),
        Verb::Top(ask) => top::top(&ask, json),
        Verb::Threads(ask) => threads::threads(&ask, json),
        Verb::Bench(ask) => dwell::block_on(bench::bench(ask, json)),
        Verb::Version => version::version(json),
    };
    let done = done.and_then(|code| output::is_whole().map(|()| code));
    ExitCode::from(done.unwrap_or_else(|failure| failure.report(json)))
}

/// By hand there is nothing to guard: `main` has seen that no executor started this.
fn guard() -> Result<u8, Failure> {
    Err(Failure::new(
        "guard",
        "the guard is started by an executor, and has nothing to do by itself",
    )
    .advise("`dwell executor` starts its own; an embedding program names this one in `GuardProgram::At`"))
}

/// Drives one command to its end, on this thread: the roles have their own.
fn wait(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("runtime", "the event loop cannot be made", &error))?;
    runtime.block_on(work)
}
