//! `dwell kill`.

use std::time::Duration;

use dwell_actors::harness::signal_name;
use dwell_messages::process::SignalTarget;
use serde_json::json;

use super::super::args::Kill;
use super::super::failure::Failure;
use super::super::output;
use super::super::roles::not_run;
use super::super::signals::Stop;
use super::{Found, connect, find, state_text};

/// Time between TERM and KILL unless the user says otherwise.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) async fn kill(ask: Kill, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let session = stop.or(connect(&ask.reach)).await?;
    let done = stop
        .or(async {
            let found = find(&session, &ask.id).await?;
            let Found { id, process, .. } = &found;
            if !process.state.is_running() {
                return Err(Failure::new(
                    "ended",
                    format!("{id} has ended already ({})", state_text(process.state)),
                )
                .advise(format!("what it said: dwell logs {id}"))
                .advise(format!("its end, taken for good: dwell attach {id}")));
            }
            let observed = session.observe(found.session.session, process.process);
            let told = match ask.signal {
                Some(signal) => {
                    let sent = observed.signal_to(SignalTarget::Leader, signal).await;
                    sent.map_err(|error| not_run(&error))?;
                    let name = signal_name(signal).map_or_else(|| signal.to_string(), str::to_owned);
                    (
                        json!({ "id": id.to_string(), "signal": signal }),
                        format!("{name} was sent to {id}\n"),
                    )
                }
                None => {
                    let ended = observed.stop(ask.grace.unwrap_or(GRACE)).await;
                    let report = ended.map_err(|error| not_run(&error))?;
                    let mut text = format!("{id} was terminated, with all it had started\n");
                    if report.killed > 0 {
                        text = format!("{id} was terminated; {} had to be killed\n", report.killed);
                    }
                    if report.unkillable > 0 {
                        text = format!("{id} does not end: {} are left\n", report.unkillable);
                    }
                    let value = json!({
                        "id": id.to_string(),
                        "killed": report.killed,
                        "unkillable": report.unkillable,
                    });
                    (value, text)
                }
            };
            Ok(told)
        })
        .await;
    stop.orderly(session.shutdown()).await;
    let (value, text) = done?;
    if json {
        output::print_json(&value);
    } else {
        output::print(&text);
    }
    Ok(0)
}
