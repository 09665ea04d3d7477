//! Logs, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::args::LogFormat;
use super::output;

const DEFAULT: &str = "warn";

/// Starts writing logs: what `DWELL_LOG` asks for, else `RUST_LOG`, else warnings.
pub(crate) fn start(format: LogFormat) {
    let (filter, problem) = filter(|name| std::env::var(name).ok());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => {
            let color = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder.with_ansi(color).try_init()
        }
    };
    if let Err(error) = started {
        output::note(&format!("dwell: logs cannot be written: {error}"));
    }
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
}

fn filter(lookup: impl Fn(&str) -> Option<String>) -> (EnvFilter, Option<String>) {
    let asked = ["DWELL_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        lookup(name)
            .filter(|value| !value.is_empty())
            .map(|value| (name, value))
    });
    let Some((name, value)) = asked else {
        return (EnvFilter::new(DEFAULT), None);
    };
    match EnvFilter::try_new(&value) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let problem =
                format!("{name} is not a log filter ({error}); write for example {name}=dwell=debug");
            (EnvFilter::new(DEFAULT), Some(problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> (String, Option<String>) {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let (filter, problem) = filter(lookup);
        (filter.to_string(), problem)
    }

    #[test]
    fn the_projects_own_variable_comes_first_and_warnings_are_the_default() {
        assert_eq!(of(&[]), ("warn".into(), None));
        assert_eq!(of(&[("RUST_LOG", "info")]).0, "info");
        assert_eq!(of(&[("RUST_LOG", "info"), ("DWELL_LOG", "debug")]).0, "debug");
        assert_eq!(of(&[("DWELL_LOG", "")]).0, "warn");
    }

    #[test]
    fn a_filter_that_is_none_is_told_and_ends_nothing() {
        let (filter, problem) = of(&[("DWELL_LOG", "a=b=c")]);
        assert_eq!(filter, "warn");
        assert!(problem.is_some_and(|text| text.contains("DWELL_LOG")));
    }
}
