//! Which formats are spoken, and reading and writing them.

use std::fmt;
use std::sync::OnceLock;

use dwell_messages::TraceContext;

use super::baggage::{AllowList, Baggage};
use super::jaeger;

/// The variable that chooses.
pub const PROPAGATORS: &str = "OTEL_PROPAGATORS";

pub(super) const TRACEPARENT: &str = "traceparent";
pub(super) const TRACESTATE: &str = "tracestate";
pub(super) const BAGGAGE: &str = "baggage";

/// One way to write ancestry, or what travels with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// W3C `traceparent` and `tracestate`.
    TraceContext,
    /// W3C `baggage`.
    Baggage,
    /// Jaeger's `uber-trace-id`. It has no tracestate: writing it loses that.
    Jaeger,
}

impl Format {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "tracecontext" => Some(Self::TraceContext),
            "baggage" => Some(Self::Baggage),
            "jaeger" => Some(Self::Jaeger),
            _ => None,
        }
    }
}

/// The formats that are spoken, in order, each once. Where two of them name a parent, the later one counts, as with
/// OpenTelemetry's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Propagators {
    formats: Vec<Format>,
}

/// What a setting means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// What is spoken.
    pub propagators: Propagators,
    /// What of the setting was passed over, in one sentence.
    pub problem: Option<String>,
}

/// What a carrier had.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Extracted {
    /// The parent, marked as one of another process.
    pub context: Option<TraceContext>,
    /// What was allowed of the baggage.
    pub baggage: Baggage,
    /// The fields that were there and made no sense.
    pub malformed: Vec<&'static str>,
}

impl Default for Propagators {
    /// W3C's trace context and baggage.
    fn default() -> Self {
        Self::new([Format::TraceContext, Format::Baggage])
    }
}

impl Propagators {
    /// These formats, in this order; a repeated one counts once.
    pub fn new(formats: impl IntoIterator<Item = Format>) -> Self {
        let mut kept = Vec::new();
        for format in formats {
            if !kept.contains(&format) {
                kept.push(format);
            }
        }
        Self { formats: kept }
    }

    /// Nothing is read and nothing is written.
    pub fn none() -> Self {
        Self::new([])
    }

    /// What `OTEL_PROPAGATORS` says by this lookup: `tracecontext`, `baggage`, `jaeger`, separated by commas, or `none`.
    /// Unset, empty, or with no name in it that is known: the default.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Chosen {
        let text = lookup(PROPAGATORS).unwrap_or_default();
        let names: Vec<_> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        if names.is_empty() {
            return Chosen {
                propagators: Self::default(),
                problem: None,
            };
        }
        if names.iter().all(|name| *name == "none") {
            return Chosen {
                propagators: Self::none(),
                problem: None,
            };
        }
        let formats: Vec<_> = names.iter().filter_map(|name| Format::parse(name)).collect();
        let unknown = names.len() - formats.len();
        Chosen {
            problem: (unknown > 0).then(|| {
                format!(
                    "{PROPAGATORS} has {unknown} of {} names that are passed over: use tracecontext, baggage and \
                     jaeger, separated by commas, or none alone",
                    names.len()
                )
            }),
            propagators: if formats.is_empty() {
                Self::default()
            } else {
                Self::new(formats)
            },
        }
    }

    /// What this process's environment says. A setting that makes no sense is one warning.
    pub fn of_this_process() -> &'static Self {
        static CHOSEN: OnceLock<Propagators> = OnceLock::new();
        CHOSEN.get_or_init(|| {
            let chosen = Self::from_lookup(|name| std::env::var(name).ok());
            if let Some(problem) = chosen.problem {
                tracing::warn!("{problem}");
            }
            chosen.propagators
        })
    }

    /// Whether a format is spoken.
    pub fn speaks(&self, format: Format) -> bool {
        self.formats.contains(&format)
    }

    /// Reads a carrier: `get` gives a field's text by its lower-case name.
    pub fn extract(&self, get: impl Fn(&str) -> Option<String>, allowed: &AllowList) -> Extracted {
        let mut extracted = Extracted::default();
        let field = |name: &str| get(name).filter(|text| !text.trim().is_empty());
        for format in &self.formats {
            match format {
                Format::TraceContext => {
                    if let Some(parent) = field(TRACEPARENT) {
                        let state = field(TRACESTATE);
                        let context = TraceContext::from_traceparent(&parent, state.as_deref());
                        extracted.parent(TRACEPARENT, context);
                    }
                }
                Format::Jaeger => {
                    // Never without the field: the crate warns of its absence each time.
                    if let Some(header) = field(jaeger::HEADER) {
                        extracted.parent(jaeger::HEADER, jaeger::extract(&header));
                    }
                    for name in allowed.iter() {
                        let value = field(&format!("{}{name}", jaeger::BAGGAGE_PREFIX));
                        if value.is_some_and(|value| extracted.baggage.insert(name, &value).is_err()) {
                            extracted.malformed.push(jaeger::BAGGAGE_PREFIX);
                        }
                    }
                }
                Format::Baggage => {
                    if let Some(text) = field(BAGGAGE) {
                        let (baggage, whole) = Baggage::parse(&text, allowed);
                        extracted.baggage.merge(baggage);
                        if !whole {
                            extracted.malformed.push(BAGGAGE);
                        }
                    }
                }
            }
        }
        extracted
    }

    /// Writes into a carrier: `set` is given a field's lower-case name and its text. An invalid context is not written.
    pub fn inject(&self, context: &TraceContext, baggage: &Baggage, mut set: impl FnMut(&str, String)) {
        for format in &self.formats {
            match format {
                Format::TraceContext if context.is_valid() => {
                    set(TRACEPARENT, context.to_traceparent());
                    if let Some(state) = &context.state {
                        set(TRACESTATE, state.as_str().to_owned());
                    }
                }
                Format::Jaeger if context.is_valid() => set(jaeger::HEADER, jaeger::inject(context)),
                Format::TraceContext | Format::Jaeger => {}
                Format::Baggage => {
                    if !baggage.is_empty() {
                        set(BAGGAGE, baggage.to_string());
                    }
                }
            }
        }
    }
}

impl Extracted {
    fn parent(&mut self, field: &'static str, context: Option<TraceContext>) {
        match context {
            Some(context) => self.context = Some(context.received()),
            None => self.malformed.push(field),
        }
    }
}

impl fmt::Display for Propagators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.formats.iter().map(|format| match format {
            Format::TraceContext => "tracecontext",
            Format::Baggage => "baggage",
            Format::Jaeger => "jaeger",
        });
        let names: Vec<_> = names.collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}
