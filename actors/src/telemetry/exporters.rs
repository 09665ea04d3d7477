//! Which exporters the standard variables ask for: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER`, and an endpoint.
//!
//! The OpenTelemetry SDK for Rust reads neither of the first two. The local trace file is none of these: it is dwell's
//! own, and stays.

use dwell_messages::Role;

use super::collector::{SinkError, SpanSink};
use super::console::ConsoleSink;

/// The variable that names exporters.
pub const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
/// The variable that turns all of them off.
pub const DISABLED: &str = "OTEL_SDK_DISABLED";

/// What is exported where, and what of the variables was passed over.
#[derive(Default)]
pub struct Exporters {
    /// The sinks, at most one of a kind.
    pub sinks: Vec<Box<dyn SpanSink>>,
    /// What was asked for and is not done, a sentence each.
    pub problems: Vec<String>,
}

impl std::fmt::Debug for Exporters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporters")
            .field("sinks", &self.sinks.len())
            .field("problems", &self.problems)
            .finish()
    }
}

/// The names in `OTEL_TRACES_EXPORTER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Named {
    /// Asked for by name: then a missing endpoint means the usual one.
    otlp: bool,
    console: bool,
    /// Nobody named any: then an endpoint alone is enough.
    nothing: bool,
    unknown: usize,
}

impl Exporters {
    /// What the variables say by this lookup: `otlp`, `console`, separated by commas, or `none`. Unset: over OTLP where an
    /// endpoint is configured. Nothing here fails: what cannot be done is a problem, and commands run all the same.
    pub fn from_lookup(role: Role, lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| {
            lookup(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let mut exporters = Self::default();
        if set(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return exporters;
        }
        let named = named(set(EXPORTER).as_deref());
        if named.unknown > 0 {
            exporters.problems.push(format!(
                "{EXPORTER} has {} names that are passed over: use otlp, console, or none alone",
                named.unknown
            ));
        }
        if named.otlp || named.nothing {
            exporters.otlp(role, named.otlp, set);
        }
        if named.console {
            exporters.add(ConsoleSink::start(role));
        }
        exporters
    }

    /// What this process's environment says, its problems logged.
    pub(crate) fn of_this_process(role: Role) -> Vec<Box<dyn SpanSink>> {
        let exporters = Self::from_lookup(role, |name| std::env::var(name).ok());
        for problem in exporters.problems {
            tracing::warn!("{problem}");
        }
        exporters.sinks
    }

    #[cfg(feature = "otlp")]
    fn otlp(&mut self, role: Role, asked: bool, set: impl Fn(&str) -> Option<String>) {
        use super::otlp::OtlpSink;
        match OtlpSink::endpoint(asked, set) {
            Ok(Some(endpoint)) => self.add(OtlpSink::to(role, endpoint)),
            Ok(None) => {}
            Err(SinkError(problem)) => self.problems.push(problem),
        }
    }

    #[cfg(not(feature = "otlp"))]
    fn otlp(&mut self, _: Role, asked: bool, _: impl Fn(&str) -> Option<String>) {
        if asked {
            self.problems.push(format!(
                "{EXPORTER} asks for OTLP, which needs the feature `otlp`"
            ));
        }
    }

    fn add(&mut self, sink: Result<impl SpanSink + 'static, SinkError>) {
        match sink {
            Ok(sink) => self.sinks.push(Box::new(sink)),
            Err(SinkError(problem)) => self.problems.push(problem),
        }
    }
}

fn named(text: Option<&str>) -> Named {
    let mut named = Named::default();
    let Some(text) = text else {
        named.nothing = true;
        return named;
    };
    let names: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    for name in &names {
        match *name {
            "otlp" => named.otlp = true,
            "console" => named.console = true,
            "none" if names.iter().all(|name| *name == "none") => {}
            _ => named.unknown += 1,
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exporters_are_named_in_a_list_and_what_is_not_known_is_passed_over() {
        let of = |text| {
            let named = named(text);
            (named.otlp, named.console, named.nothing, named.unknown)
        };
        assert_eq!(of(None), (false, false, true, 0));
        assert_eq!(of(Some("otlp")), (true, false, false, 0));
        assert_eq!(of(Some("console, otlp,otlp")), (true, true, false, 0));
        assert_eq!(of(Some("none")), (false, false, false, 0));
        assert_eq!(of(Some("none,console")), (false, true, false, 1));
        assert_eq!(of(Some("zipkin,otlp,OTLP")), (true, false, false, 2));
    }

    fn with(variables: &[(&str, &str)]) -> (usize, Vec<String>) {
        let exporters = Exporters::from_lookup(Role::Harness, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        (exporters.sinks.len(), exporters.problems)
    }

    #[test]
    fn without_an_endpoint_or_a_name_nothing_is_exported() {
        assert_eq!(with(&[]), (0, vec![]));
        assert_eq!(with(&[(EXPORTER, "none")]), (0, vec![]));
    }

    #[test]
    fn the_console_is_an_exporter_and_a_disabled_sdk_has_none() {
        assert_eq!(with(&[(EXPORTER, "console")]), (1, vec![]));
        assert_eq!(with(&[(EXPORTER, "console"), (DISABLED, "TRUE")]), (0, vec![]));
        assert_eq!(with(&[(EXPORTER, "console"), (DISABLED, "no")]), (1, vec![]));
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn an_endpoint_or_the_name_brings_otlp_and_what_is_not_built_in_is_said() {
        const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        assert_eq!(with(&[(BASE, "http://127.0.0.1:9")]), (1, vec![]));
        assert_eq!(with(&[(BASE, "http://127.0.0.1:9"), (EXPORTER, "none")]).0, 0);
        assert_eq!(with(&[(EXPORTER, "otlp")]).0, 1);
        assert_eq!(with(&[(EXPORTER, "otlp,console")]).0, 2);
        let (sinks, problems) = with(&[(BASE, "http://127.0.0.1:9"), (PROTOCOL, "grpc")]);
        assert_eq!(sinks, 0);
        assert!(problems[0].contains("http/protobuf"), "{problems:?}");
        let (sinks, problems) = with(&[(BASE, "https://127.0.0.1:9")]);
        assert_eq!(sinks, 0);
        assert!(problems[0].contains("collector nearby"), "{problems:?}");
    }
}
