//! `dwell trace`: what the local trace files say of calls.

mod export;
mod list;
mod show;
mod which;
mod why;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use dwell_actors::trace_export::Format;
use dwell_actors::trace_file::TracePrefix;

use super::failure::Failure;
use super::identity;

pub(crate) use which::load;

/// What `dwell trace --help` ends with.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dwell trace                                the newest call, drawn
  dwell trace ed4f7b                         the call whose id begins so
  dwell trace list --limit 50
  dwell trace top                            calls in flight, and where each one is now
  dwell trace why                            where its time went, against what is usual for the program
  dwell trace export --format html -o call.html
  dwell trace export ed4f7b --format perfetto > call.json";

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Trace {
    #[command(subcommand)]
    pub(crate) action: Option<Action>,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Action {
    /// List calls, the newest first.
    List(List),
    /// Draw one call: its spans, the critical path, and its account.
    Show(Show),
    /// Say where a call's time went, against what is usual for its program.
    Why(One),
    /// Write one call for another tool.
    Export(Export),
    /// Watch calls in flight, and where each one is now.
    Top(super::top::Top),
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) one: One,
    /// Columns of the picture [default: the terminal's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(60..=240))]
    pub(crate) width: Option<u16>,
}

/// A call by its trace.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// The trace's id, of which the first digits are enough; without it, the newest call.
    #[arg(value_name = "ID", value_parser = prefix)]
    pub(crate) trace_id: Option<TracePrefix>,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) one: One,
    /// What to write.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: FormatName,
    /// Where to write it [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What a trace can be exported as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum FormatName {
    /// For any OpenTelemetry collector.
    OtlpJson,
    /// For the upload button of Jaeger's user interface.
    JaegerJson,
    /// For ui.perfetto.dev and chrome://tracing.
    Perfetto,
    /// One page that needs nothing else.
    Html,
}

impl FormatName {
    fn format(self) -> Format {
        match self {
            Self::OtlpJson => Format::OtlpJson,
            Self::JaegerJson => Format::JaegerJson,
            Self::Perfetto => Format::Perfetto,
            Self::Html => Format::Html,
        }
    }
}

pub(crate) fn trace(ask: &Trace, json: bool) -> Result<u8, Failure> {
    let dir = identity::home()?.traces_dir();
    match &ask.action {
        None => show::show(&dir, &ask.show, json),
        Some(Action::Show(show)) => show::show(&dir, show, json),
        Some(Action::List(list)) => list::list(&dir, list, json),
        Some(Action::Why(one)) => why::why(&dir, one, json),
        Some(Action::Export(export)) => export::export(&dir, export, json),
        Some(Action::Top(top)) => super::top::top(top, json),
    }
}

fn prefix(text: &str) -> Result<TracePrefix, &'static str> {
    TracePrefix::parse(text)
}
