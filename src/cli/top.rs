//! `dwell trace top`: calls in flight and where each one is now, again and again.
//!
//! It reads what `dwell inspect` reads. On a terminal it draws over itself; elsewhere it prints a table each time, and
//! with `--json` a line.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use dwell_actors::inspect::Answered;
use dwell_actors::inspect::view::CallView;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};
use serde_json::json;

use super::failure::Failure;
use super::inspect::{Which, answers, to_json};
use super::output;
use super::ready::role_name;
use super::table::{micros, table};

/// The longest between two looks: an hour.
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// The shortest: each costs every process a few hundred microseconds.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Look once.
    #[arg(long)]
    pub(crate) once: bool,
    /// Of which processes: executor, relay or harness, a process id, or the path of a socket [default: all].
    #[arg(value_name = "WHICH", value_parser = super::inspect::which)]
    pub(crate) which: Option<Which>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|interval| (INTERVAL_MIN..=INTERVAL_MAX).contains(interval))
        .ok_or_else(|| {
            format!(
                "seconds are a number from {} to {}",
                INTERVAL_MIN.as_secs_f64(),
                INTERVAL_MAX.as_secs()
            )
        })
}

pub(crate) fn top(ask: &Top, json: bool) -> Result<u8, Failure> {
    let look = || answers(ask.which.as_ref());
    if !json && !ask.once && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        return live(ask, look);
    }
    loop {
        let begun = Instant::now();
        let answered = look()?;
        if json {
            let processes: Vec<_> = answered.iter().map(to_json).collect();
            output::print_json(&json!({ "processes": processes }));
        } else {
            output::print(&plain(&answered));
        }
        if ask.once || !output::is_read() {
            return Ok(0);
        }
        while begun.elapsed() < ask.interval {
            std::thread::park_timeout(ask.interval.saturating_sub(begun.elapsed()));
        }
    }
}

const HEADS: [&str; 8] = ["ROLE", "PID", "METHOD", "PROGRAM", "AGE", "AT", "FOR", "TRACE"];

/// One call of one process.
struct Entry<'a> {
    answered: &'a Answered,
    call: &'a CallView,
    program: String,
    /// Whether something that the watchdog found may be what it waits for.
    still: bool,
}

/// Calls of all processes, those that have been where they are for longest first.
fn entries(answered: &[Answered]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for one in answered {
        let Ok(snapshot) = &one.answer else { continue };
        for call in &snapshot.calls {
            let program = snapshot
                .processes
                .iter()
                .find(|process| process.trace_id == call.trace_id && process.process == call.process)
                .map(|process| output::printable(&process.program));
            entries.push(Entry {
                answered: one,
                call,
                program: program.unwrap_or_else(|| "-".into()),
                still: !snapshot.stuck.is_empty() && call.at_us > 1_000_000,
            });
        }
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.call.at_us));
    entries
}

fn cells(entry: &Entry<'_>) -> [String; 8] {
    [
        role_name(entry.answered.candidate.role).into(),
        entry.answered.candidate.pid.to_string(),
        output::printable(&entry.call.method),
        entry.program.clone(),
        micros(entry.call.age_us),
        output::printable(&entry.call.at),
        micros(entry.call.at_us),
        output::printable(&entry.call.trace_id),
    ]
}

/// What is running on executors: their requests were answered, and so they are in no table of calls.
fn running(answered: &[Answered]) -> Vec<[String; 8]> {
    let snapshots = answered
        .iter()
        .filter_map(|one| Some((one, one.answer.as_ref().ok()?)));
    let rows = snapshots.flat_map(|(one, snapshot)| {
        snapshot.processes.iter().map(move |process| {
            let longest = process
                .waits
                .iter()
                .zip(process.waits_us)
                .max_by_key(|(_, us)| *us);
            let waits = longest.filter(|(_, us)| *us > 0);
            [
                role_name(one.candidate.role).to_owned(),
                one.candidate.pid.to_string(),
                "process".to_owned(),
                output::printable(&process.program),
                micros(process.age_us),
                waits.map_or_else(
                    || process.state.clone(),
                    |(waits, _)| format!("output waits for {waits}"),
                ),
                micros(waits.map_or(process.age_us, |(_, us)| us)),
                output::printable(&process.trace_id),
            ]
        })
    });
    rows.collect()
}

/// What is wrong, a line each.
fn notes(answered: &[Answered]) -> Vec<String> {
    let mut notes = Vec::new();
    for one in answered {
        match &one.answer {
            Ok(snapshot) => notes.extend(snapshot.stuck.iter().map(|stuck| {
                let name = role_name(one.candidate.role);
                output::printable(&format!("{name} {}: {}", one.candidate.pid, stuck.text))
            })),
            Err(error) => notes.push(output::printable(&error.to_string())),
        }
    }
    notes
}

fn summary(answered: &[Answered], calls: usize, processes: usize) -> String {
    format!(
        "{} dwell processes, {calls} calls in flight, {processes} commands running",
        answered.len()
    )
}

fn plain(answered: &[Answered]) -> String {
    let (calls, running) = (entries(answered), running(answered));
    let mut text = summary(answered, calls.len(), running.len());
    text.push('\n');
    let rows = calls.iter().map(cells).chain(running.iter().cloned());
    text.push_str(&table(HEADS, rows));
    for note in notes(answered) {
        text.push_str(&format!("  STUCK  {note}\n"));
    }
    text.push('\n');
    text
}

fn live(ask: &Top, look: impl Fn() -> Result<Vec<Answered>, Failure>) -> Result<u8, Failure> {
    // Before the screen is taken: what is wrong with the arguments is to be read.
    let mut answered = look()?;
    let failed =
        |error: std::io::Error| Failure::because("terminal", "the terminal cannot be drawn on", &error);
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let outcome = loop {
        if let Err(error) = terminal.draw(|frame| draw(frame, &answered)) {
            break Err(failed(error));
        }
        match leave_within(ask.interval) {
            Ok(true) => break Ok(0),
            Ok(false) => {}
            Err(error) => break Err(failed(error)),
        }
        match look() {
            Ok(now) => answered = now,
            Err(failure) => break Err(failure),
        }
    };
    ratatui::restore();
    outcome
}

/// Whether somebody wants to leave before it is time to look again.
fn leave_within(interval: Duration) -> std::io::Result<bool> {
    let ends = Instant::now() + interval;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() || !event::poll(left)? {
            return Ok(false);
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let interrupted = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
            // Any other key looks again at once.
            return Ok(false);
        }
    }
}

fn draw(frame: &mut ratatui::Frame<'_>, answered: &[Answered]) {
    let (calls, running, notes) = (entries(answered), running(answered), notes(answered));
    let note_lines = u16::try_from(notes.len().min(8)).unwrap_or(8);
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(note_lines),
    ])
    .areas(frame.area());
    let summary = format!("{}   q leaves", summary(answered, calls.len(), running.len()));
    frame.render_widget(Paragraph::new(Line::from(summary)), head);
    let still = Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED);
    let calls = calls.iter().map(|entry| {
        let row = Row::new(cells(entry));
        if entry.still { row.style(still) } else { row }
    });
    let rows = calls.chain(running.into_iter().map(Row::new));
    let widths = [
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(18),
        Constraint::Length(16),
        Constraint::Length(9),
        Constraint::Length(26),
        Constraint::Length(9),
        Constraint::Length(32),
    ];
    let heads = Row::new(HEADS).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows, widths).header(heads), body);
    let notes = notes
        .into_iter()
        .take(usize::from(note_lines))
        .map(|note| Line::from(Span::raw(note)));
    frame.render_widget(Paragraph::new(notes.collect::<Vec<_>>()), foot);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use dwell_actors::inspect::Candidate;
    use dwell_messages::Role;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn answered() -> Vec<Answered> {
        let text = r#"{"version":1,"role":"harness","pid":7,"dwell":"0","up_us":1,"arbiters":[],"mailboxes":[],
            "idle_mailboxes":0,"calls":[
            {"kind":"run","method":"Process/Start","trace_id":"aa","sampled":true,"process":1,"age_us":9,"at":"link","at_us":3},
            {"kind":"run","method":"Process/Start","trace_id":"bb","sampled":true,"process":2,"age_us":2000000,
            "at":"running","at_us":1900000}],"processes":[],"links":[],
            "stuck":[{"what":"turn","for_us":1,"text":"it hangs"}],"warnings":1,"left_out":0}"#;
        let candidate = Candidate {
            path: PathBuf::from("x"),
            role: Role::Harness,
            pid: 7,
        };
        vec![Answered {
            candidate,
            answer: Ok(serde_json::from_str(text).unwrap()),
        }]
    }

    #[test]
    fn the_call_that_has_stood_still_for_longest_comes_first_and_what_is_stuck_is_said() {
        let text = plain(&answered());
        let (slow, quick) = (text.find("bb").unwrap(), text.find("aa").unwrap());
        assert!(slow < quick, "{text}");
        assert!(text.contains("STUCK  harness 7: it hangs"), "{text}");
        assert!(text.starts_with("1 dwell processes, 2 calls in flight"), "{text}");
    }

    #[test]
    fn the_screen_shows_the_same_at_any_size() {
        for (width, height) in [(120, 20), (20, 4), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &answered())).unwrap();
            if width == 120 {
                let shown = terminal.backend().to_string();
                assert!(shown.contains("running") && shown.contains("it hangs"), "{shown}");
            }
        }
    }

    #[test]
    fn intervals_are_bounded() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert!(interval("0").is_err() && interval("1e9").is_err() && interval("x").is_err());
    }
}
