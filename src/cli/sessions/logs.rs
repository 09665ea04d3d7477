//! `dwell logs`.

use std::io::Write as _;
use std::time::Duration;

use dwell_actors::harness::Observed;
use dwell_messages::process::ReadReply;
use dwell_messages::{Event, ExitStatus, OutputStream};
use serde_json::{Value, json};

use super::super::args::Logs;
use super::super::capture::Capture;
use super::super::exit;
use super::super::failure::Failure;
use super::super::output;
use super::super::roles::not_run;
use super::super::run::status_json;
use super::super::signals::Stop;
use super::{connect, find};

/// Output asked for at once.
const READ_BYTES: u32 = 512 * 1024;
/// How long one read waits for news.
const READ_WAIT: Duration = Duration::from_secs(30);

pub(crate) async fn logs(ask: Logs, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let session = stop.or(connect(&ask.reach)).await?;
    let told = stop
        .or(async {
            let found = find(&session, &ask.id).await?;
            let observed = session.observe(found.session.session, found.process.process);
            let mut said = Said::new(&ask, json);
            follow(&observed, ask.follow, &mut said).await?;
            Ok((found.id, said))
        })
        .await;
    stop.orderly(session.shutdown()).await;
    let (id, said) = told?;
    if said.unread {
        return Ok(exit::OUTPUT_CLOSED);
    }
    if json && !ask.follow {
        output::print_json(&said.to_json(&id.to_string()));
    }
    Ok(0)
}

/// Reads what is kept, and with `on` what comes, to the end.
async fn follow(observed: &Observed, on: bool, said: &mut Said) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let wait = if on { READ_WAIT } else { Duration::ZERO };
        let reply = observed
            .read(after, READ_BYTES, wait)
            .await
            .map_err(|error| not_run(&error))?;
        let next = reply.next.saturating_sub(1).max(after);
        let (is_over, is_empty) = (reply.closed || reply.ended, reply.events.is_empty());
        said.take(reply);
        if said.unread || is_over || (!on && (is_empty || next == after)) {
            return Ok(());
        }
        after = next;
    }
}

/// What was read, on its way out or kept for one JSON object.
struct Said {
    wanted: [bool; 2],
    json: bool,
    follow: bool,
    captures: [Capture; 2],
    gaps: u64,
    status: Option<ExitStatus>,
    over: bool,
    /// Nobody reads what is written any more.
    unread: bool,
}

impl Said {
    fn new(ask: &Logs, json: bool) -> Self {
        let both = ask.stdout == ask.stderr;
        Self {
            wanted: [both || ask.stdout, both || ask.stderr],
            json,
            follow: ask.follow,
            captures: Default::default(),
            gaps: 0,
            status: None,
            over: false,
            unread: false,
        }
    }

    fn take(&mut self, reply: ReadReply) {
        for gap in &reply.gaps {
            self.gap(gap.stream, gap.from, gap.to);
        }
        self.over |= reply.closed || reply.ended;
        for event in reply.events {
            match event {
                Event::Output(said) if self.wanted[said.stream.index()] => {
                    self.output(said.stream, said.offset, &said.data);
                }
                Event::Exited(exited) => self.status = Some(exited.status),
                Event::Output(_) | Event::Gap(_) | Event::Closed(_) => {}
            }
        }
        if self.follow && self.json && self.over {
            output::print_json(&json!({ "ended": true, "status": self.status.map(status_json) }));
        }
    }

    fn gap(&mut self, stream: OutputStream, from: u64, to: u64) {
        if !self.wanted[stream.index()] {
            return;
        }
        self.gaps += to - from;
        if self.json && self.follow {
            output::print_json(&json!({ "stream": name(stream), "gap": { "from": from, "to": to } }));
        } else if !self.json {
            output::note(&format!(
                "dwell: {} bytes of {} are not kept any more for whoever only looks",
                to - from,
                name(stream)
            ));
        }
    }

    fn output(&mut self, stream: OutputStream, offset: u64, data: &[u8]) {
        if self.json {
            let mut piece = Capture::default();
            if self.follow {
                piece.push(data);
                let mut value = piece.to_json();
                value["stream"] = name(stream).into();
                value["offset"] = offset.into();
                output::print_json(&value);
            } else {
                self.captures[stream.index()].push(data);
            }
            return;
        }
        let written = match stream {
            OutputStream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(data).and_then(|()| out.flush())
            }
            OutputStream::Stderr => std::io::stderr().lock().write_all(data),
        };
        self.unread |= !output::noted(written);
    }

    fn to_json(&self, id: &str) -> Value {
        json!({
            "id": id,
            "stdout": self.captures[0].to_json(),
            "stderr": self.captures[1].to_json(),
            "gap_bytes": self.gaps,
            "ended": self.over,
            "status": self.status.map(status_json),
        })
    }
}

fn name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}
