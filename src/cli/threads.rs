//! `dwell threads`: the conversations kept on this machine.

use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine as _;
use clap::{Args, Subcommand, ValueEnum};
use dwell_actors::config::Home;
use dwell_actors::metadata_store::{
    MetadataStore, PageMark, SqliteStore, ThreadId, ThreadQuery, ThreadRecord, ThreadStatus,
};
use dwell_actors::threads::{History, Item, ThreadError, Threads as Kept, log_path};
use serde_json::{Value, json};

use super::failure::Failure;
use super::identity;
use super::output;

/// What `dwell threads --help` ends with.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dwell threads list                        the newest hundred
  dwell threads list --cwd . --status active
  dwell threads list --search parser --limit 20
  dwell threads show ID
  dwell threads export ID > thread.jsonl    one line an item
  dwell threads export ID --json            everything as one object
  dwell threads delete ID                   its record and its history
  dwell threads rebuild                     after the database was damaged and moved away

Titles and previews are searched. A thread that a running process has open cannot be deleted.";

#[derive(Args, Debug)]
pub(crate) struct Threads {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List threads, the newest first.
    List(List),
    /// Show what is known of one thread.
    Show(One),
    /// Delete a thread: its record and its history.
    Delete(One),
    /// Print a thread's history, one line of JSON an item.
    Export(One),
    /// Make records again for histories that have none.
    Rebuild,
}

#[derive(Args, Debug)]
struct List {
    /// Only those that work in this directory.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Only those in this state.
    #[arg(long, value_enum, value_name = "STATE")]
    status: Option<State>,
    /// Only those whose title or preview holds this text.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// The page behind this mark, which the page before ended with.
    #[arg(long, value_name = "MARK")]
    after: Option<Mark>,
}

#[derive(Args, Debug)]
struct One {
    /// The thread's id, as `dwell threads list` shows it.
    #[arg(value_name = "ID")]
    id: ThreadId,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Idle,
    Active,
    Archived,
}

impl From<State> for ThreadStatus {
    fn from(state: State) -> Self {
        match state {
            State::Idle => Self::Idle,
            State::Active => Self::Active,
            State::Archived => Self::Archived,
        }
    }
}

/// Where a page ended, in one word.
#[derive(Clone, Copy, Debug)]
struct Mark(PageMark);

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').and_then(|(updated, id)| {
            Some(PageMark {
                updated_unix_us: updated.parse().ok()?,
                id: id.parse().ok()?,
            })
        });
        parts
            .map(Self)
            .ok_or_else(|| "a mark is what a list ended with: copy it whole".to_owned())
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0.updated_unix_us, self.0.id)
    }
}

pub(crate) fn threads(ask: &Threads, json: bool) -> Result<u8, Failure> {
    let home = identity::home()?;
    match &ask.action {
        Action::List(list) => self::list(&home, list, json)?,
        Action::Show(one) => show(&home, one.id, json)?,
        Action::Delete(one) => delete(&home, one.id, json)?,
        Action::Export(one) => export(&home, one.id, json)?,
        Action::Rebuild => rebuild(&home, json)?,
    }
    Ok(0)
}

fn store(home: &Home) -> Result<SqliteStore, Failure> {
    SqliteStore::open(&home.runs_db()).map_err(|error| Failure::of("store", &error))
}

/// On this thread's own runtime.
fn kept(home: &Home) -> Result<Kept, ThreadError> {
    Kept::builder(home.threads_dir())
        .store(home.runs_db())
        .here()
        .open()
}

fn known(home: &Home, id: ThreadId) -> Result<ThreadRecord, Failure> {
    let record = store(home)?
        .thread(id)
        .map_err(|error| Failure::of("store", &error))?;
    record.ok_or_else(|| Failure::of("no_thread", &ThreadError::Missing(id)))
}

fn list(home: &Home, ask: &List, json: bool) -> Result<(), Failure> {
    let cwd = match &ask.cwd {
        Some(dir) => {
            let whole = std::path::absolute(dir)
                .map_err(|error| Failure::because("cwd", "the directory has no absolute path", &error))?;
            // As a component at a time: `.` is the directory itself.
            Some(
                whole
                    .components()
                    .collect::<PathBuf>()
                    .to_string_lossy()
                    .into_owned(),
            )
        }
        None => None,
    };
    let query = ThreadQuery {
        cwd,
        status: ask.status.map(Into::into),
        text: ask.search.clone(),
        after: ask.after.map(|mark| mark.0),
        limit: usize::from(ask.limit),
    };
    let page = store(home)?
        .threads(&query)
        .map_err(|error| Failure::of("store", &error))?;
    let next = page.next.map(|mark| Mark(mark).to_string());
    if json {
        let threads: Vec<_> = page.threads.iter().map(to_json).collect();
        output::print_json(&json!({ "threads": threads, "next": next }));
        return Ok(());
    }
    if page.threads.is_empty() {
        output::note("no thread matches; agents make them through the library");
    }
    let now = dwell_actors::telemetry::wall_unix_us();
    let rows = page.threads.iter().map(|thread| {
        format!(
            "{}  {:>9}  {:<8}  {:>4}  {}\n",
            thread.id,
            age(now.saturating_sub(thread.updated_unix_us)),
            thread.status.as_str(),
            thread.turns,
            output::printable(thread.name().unwrap_or("-")),
        )
    });
    output::print(&rows.collect::<String>());
    if let Some(mark) = next {
        output::note(&format!("more: dwell threads list --after {mark}"));
    }
    Ok(())
}

fn show(home: &Home, id: ThreadId, json: bool) -> Result<(), Failure> {
    let thread = known(home, id)?;
    if json {
        output::print_json(&to_json(&thread));
        return Ok(());
    }
    let Value::Object(fields) = to_json(&thread) else {
        return Ok(());
    };
    let lines = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{name:<16} {}\n", output::printable(&text))
        });
    let log = format!("{:<16} {}\n", "log", log_path(&home.threads_dir(), id).display());
    output::print(&lines.chain([log]).collect::<String>());
    Ok(())
}

fn delete(home: &Home, id: ThreadId, json: bool) -> Result<(), Failure> {
    let deleted = dwell_actors::block_on(async { kept(home)?.delete(id).await });
    if !deleted.map_err(|error| Failure::of("delete", &error))? {
        return Err(Failure::of("no_thread", &ThreadError::Missing(id)));
    }
    if json {
        output::print_json(&json!({ "id": id.to_string(), "deleted": true }));
    } else {
        output::print(&format!("deleted {id}\n"));
    }
    Ok(())
}

fn export(home: &Home, id: ThreadId, json: bool) -> Result<(), Failure> {
    let thread = known(home, id)?;
    let mut history = History::open(&home.threads_dir(), id).map_err(|error| Failure::of("log", &error))?;
    let mut kept = Vec::new();
    for (number, item) in (0_u64..).zip(&mut history) {
        let item = item.map_err(|error| Failure::of("log", &error))?;
        let value = item_to_json(number, &item);
        if json {
            kept.push(value);
        } else {
            output::print_json(&value);
        }
    }
    if json {
        let fault = history.fault().map(|fault| fault.to_string());
        output::print_json(&json!({ "thread": to_json(&thread), "items": kept, "fault": fault }));
    } else if let Some(fault) = history.fault() {
        output::note(&format!("the history is not read further: {fault}"));
    }
    Ok(())
}

fn rebuild(home: &Home, json: bool) -> Result<(), Failure> {
    let made = dwell_actors::block_on(async { kept(home)?.rebuild().await });
    let made = made.map_err(|error| Failure::of("rebuild", &error))?;
    if json {
        output::print_json(&json!({ "made": made }));
    } else {
        output::print(&format!("{made} records made again\n"));
    }
    Ok(())
}

fn to_json(thread: &ThreadRecord) -> Value {
    json!({
        "id": thread.id.to_string(),
        "title": thread.title,
        "preview": thread.preview,
        "status": thread.status.as_str(),
        "created_unix_us": thread.created_unix_us,
        "updated_unix_us": thread.updated_unix_us,
        "cwd": thread.cwd,
        "repo_root": thread.repo_root,
        "repo_branch": thread.repo_branch,
        "repo_commit": thread.repo_commit,
        "model": thread.model,
        "tokens_input": thread.tokens_input,
        "tokens_cached": thread.tokens_cached,
        "tokens_output": thread.tokens_output,
        "turns": thread.turns,
        "items": thread.items,
        "parent": thread.parent.map(|parent| parent.to_string()),
    })
}

/// A body that is text is text; any other is in base64 besides.
fn item_to_json(number: u64, item: &Item) -> Value {
    let mut value = json!({
        "number": number,
        "kind": item.kind.as_str(),
        "at_unix_us": item.at_unix_us,
        "text": String::from_utf8_lossy(&item.body),
    });
    if std::str::from_utf8(&item.body).is_err() {
        value["base64"] = base64::engine::general_purpose::STANDARD
            .encode(&item.body)
            .into();
    }
    value
}

/// Roughly how long ago.
fn age(us: i64) -> String {
    let seconds = us.max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} m ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}
