//! `dwell ps`.

use serde_json::{Value, json};

use super::super::args::Ps;
use super::super::failure::Failure;
use super::super::output;
use super::super::run::status_json;
use super::super::signals::Stop;
use super::{Id, connect, state_name, state_text};
use dwell_actors::harness::{ProcessInfo, SessionInfo};

/// One line of the list.
struct Line<'a> {
    id: Id,
    session: &'a SessionInfo,
    process: &'a ProcessInfo,
}

pub(crate) async fn ps(ask: Ps, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let session = stop.or(connect(&ask.reach)).await?;
    let sessions = stop.or(session.sessions()).await;
    let epoch = session.epoch().to_vec();
    stop.orderly(session.shutdown()).await;
    let sessions = sessions?;
    let lines: Vec<_> = sessions
        .iter()
        .flat_map(|session| session.processes.iter().map(move |process| (session, process)))
        .filter(|(_, process)| ask.all || process.state.is_running())
        .map(|(session, process)| Line {
            id: Id::new(&epoch, session.session, process.process),
            session,
            process,
        })
        .collect();
    if json {
        output::print_json(&json!({
            "commands": lines.iter().map(to_json).collect::<Vec<_>>(),
            "silent_sessions": sessions.iter().filter(|session| session.silent).count(),
        }));
        return Ok(0);
    }
    output::print(&table(&lines));
    if lines.is_empty() {
        output::note(if ask.all {
            "dwell: nothing of this machine's key runs there, and nothing is kept"
        } else {
            "dwell: nothing of this machine's key runs there; what has ended and is still kept: dwell ps --all"
        });
    }
    for session in sessions.iter().filter(|session| session.silent) {
        output::note(&format!("dwell: session {} does not answer", session.session));
    }
    Ok(0)
}

fn to_json(line: &Line<'_>) -> Value {
    let Line { id, session, process } = line;
    json!({
        "id": id.to_string(),
        "program": process.program,
        "state": state_name(process.state),
        "status": process.state.status().map(status_json),
        "pid": process.pid,
        "age_ms": session.listed_unix_ms.saturating_sub(process.started_unix_ms),
        "started_unix_ms": process.started_unix_ms,
        "written_bytes": process.written,
        "kept_from_byte": process.kept,
        "tty": process.tty,
        "stdin": process.stdin,
        "session": session.session,
        "owner": session.owner,
        "connected": session.connected,
        "since_unix_ms": session.since_unix_ms,
    })
}

fn table(lines: &[Line<'_>]) -> String {
    let mut rows = vec![["ID", "PROGRAM", "STATE", "AGE", "OUTPUT", "CLIENT"].map(String::from)];
    rows.extend(lines.iter().map(|line| {
        let process = line.process;
        [
            line.id.to_string(),
            output::printable(&process.program),
            state_text(process.state),
            age(line
                .session
                .listed_unix_ms
                .saturating_sub(process.started_unix_ms)),
            size(process.written.iter().sum()),
            if line.session.connected {
                "connected"
            } else {
                "away"
            }
            .into(),
        ]
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// By the executor's clock alone.
fn age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=10_239_999 => format!("{} KiB", bytes / 1_024),
        10_240_000..=10_485_759_999 => format!("{} MiB", bytes / (1 << 20)),
        _ => format!("{} GiB", bytes / (1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_short_and_say_their_unit() {
        let ages = [0, 119_999, 120_000, 7_200_000, 172_800_000].map(age);
        assert_eq!(ages, ["0 s", "119 s", "2 min", "2 h", "2 d"]);
        let sizes = [0, 9_999, 10_240, 20_971_520, 21_474_836_480].map(size);
        assert_eq!(sizes, ["0 B", "9999 B", "10 KiB", "20 MiB", "20 GiB"]);
    }
}
