//! `dwell bench attribution`: how much of a call's time its account cannot name.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use dwell_actors::config::Home;
use dwell_actors::harness::CallTimings;
use dwell_actors::oversight::Oversight;
use dwell_messages::Role;
use dwell_relay::StaticKeypair;
use dwell_relay::driver::tls::Trust;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::failure::Failure;
use super::super::fleet::Fleet;
use super::super::identity;
use super::super::output;
use super::super::ready::Ready;
use super::super::roles::{ConnectSpec, Route, Session};
use super::super::signals::Stop;
use super::calibration::Calibration;
use super::delay;
use super::progress::Progress;
use super::statistics::Sorted;

/// What is run.
const PROGRAM: &str = "true";
/// Runs of each case that are not counted: caches, and the first ping.
const WARM_UP: usize = 20;
/// Unattributed at the median: this much of the call, in per cent, ...
const BUDGET_PERCENT: f64 = 1.0;
/// ... or this many microseconds, whichever is more; through a slow link only the share counts.
const BUDGET_US: u64 = 20;
/// The most runs that can be asked for: their accounts are in memory.
const RUNS_MAX: u32 = 1_000_000;
const LOOPBACK_ANY_PORT: &str = "127.0.0.1:0";

#[derive(Args, Debug)]
pub(crate) struct Attribution {
    /// Runs directly and through the relay.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=RUNS_MAX as i64))]
    runs: u32,
    /// Runs through the slow link.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=RUNS_MAX as i64))]
    slow_runs: u32,
    /// How long the slow link keeps every byte, each way, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    delay: u32,
}

/// One way of running a command, and what is allowed there.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    runs: usize,
    /// Microseconds that are allowed beside the share.
    allowed_us: u64,
}

/// What one case came to. Microseconds.
#[derive(Debug)]
struct Figures {
    case: Case,
    total: Sorted,
    unattributed: Sorted,
    transit: Sorted,
    ping: Sorted,
}

impl Figures {
    fn of(case: Case, calls: &[CallTimings]) -> Self {
        let figure = |of: fn(&CallTimings) -> u64| calls.iter().map(of).collect();
        Self {
            case,
            total: figure(|call| call.total_us),
            unattributed: figure(CallTimings::unattributed_us),
            transit: figure(|call| call.transit_us),
            ping: figure(|call| call.ping_us),
        }
    }

    fn percent(&self, unattributed: u64) -> f64 {
        unattributed as f64 * 100.0 / self.total.median().max(1) as f64
    }

    fn is_met(&self) -> bool {
        let median = self.unattributed.median();
        median <= self.case.allowed_us || self.percent(median) <= BUDGET_PERCENT
    }

    fn budget(&self) -> String {
        match self.case.allowed_us {
            0 => format!("{BUDGET_PERCENT} %"),
            us => format!("{BUDGET_PERCENT} % or {us} µs"),
        }
    }

    fn to_json(&self) -> Value {
        let both = |values: &Sorted| json!({ "p50_us": values.median(), "p99_us": values.percentile(99) });
        let median = self.unattributed.median();
        json!({
            "case": self.case.name,
            "runs": self.total.len(),
            "total": both(&self.total),
            "transit": both(&self.transit),
            "ping": both(&self.ping),
            "unattributed": both(&self.unattributed),
            "unattributed_p50_percent": self.percent(median),
            "budget": { "percent": BUDGET_PERCENT, "or_us": self.case.allowed_us },
            "met": self.is_met(),
        })
    }
}

pub(crate) async fn attribution(ask: Attribution, json: bool) -> Result<u8, Failure> {
    // Before anything is started: from here on Ctrl-C ends the benchmark in order.
    let mut stop = Stop::listen()?;
    let place = TempDir::with_prefix("dwell-bench-")
        .map_err(|error| Failure::because("bench", "no temporary directory can be made", &error))?;
    let mut fleet = Fleet::default();
    let measured = stop.or(Box::pin(measure(&ask, place.path(), &mut fleet))).await;
    fleet.end().await;
    if let Err(error) = place.close() {
        tracing::warn!(%error, "the benchmark's temporary directory is still there");
    }
    let (calibration, figures) = measured?;
    if json {
        output::print_json(&to_json(&ask, &calibration, &figures));
    } else {
        output::print(&text(&ask, &calibration, &figures));
    }
    Ok(0)
}

async fn measure(
    ask: &Attribution,
    place: &Path,
    fleet: &mut Fleet,
) -> Result<(Calibration, Vec<Figures>), Failure> {
    let calibration = Calibration::take(PROGRAM).await?;
    let home = Home::at(&place.join("harness"));
    let identity = identity::load_or_make(&home, Role::Harness)?.pair;
    let relay_home = place.join("relay");
    let relay = fleet
        .start(Role::Relay, &relay_home, &["--listen", LOOPBACK_ANY_PORT])
        .await?;
    let relay_address = address(&relay)?.to_string();
    let client = identity.public().to_string();
    let arguments = [
        "--relay",
        &relay_address,
        "--listen",
        LOOPBACK_ANY_PORT,
        "--authorize",
        &client,
    ];
    let executor = fleet
        .start(Role::Executor, &place.join("executor"), &arguments)
        .await?;
    let direct = address(&executor)?;
    let slow = delay::start(direct, Duration::from_millis(u64::from(ask.delay)))
        .map_err(|error| Failure::because("bench", "the slow link cannot be made", &error))?;
    let case = |name, runs: u32, allowed_us| Case {
        name,
        runs: runs as usize,
        allowed_us,
    };
    let cases = [
        (
            case("direct", ask.runs, BUDGET_US),
            Route::Direct(direct.to_string()),
        ),
        (case("relay", ask.runs, BUDGET_US), Route::Relay(relay_address)),
        (
            case("slow link", ask.slow_runs, 0),
            Route::Direct(slow.to_string()),
        ),
    ];
    let mut figures = Vec::with_capacity(cases.len());
    for (case, route) in cases {
        let spec = connect_spec(&identity, route, &executor, &home);
        figures.push(run(case, Session::connect(spec).await?).await?);
    }
    Ok((calibration, figures))
}

fn address(role: &Ready) -> Result<SocketAddr, Failure> {
    let listens = role.address.as_deref().and_then(|address| address.parse().ok());
    listens.ok_or_else(|| Failure::new("bench", "a role does not say where it listens"))
}

fn connect_spec(identity: &StaticKeypair, route: Route, executor: &Ready, home: &Home) -> ConnectSpec {
    ConnectSpec {
        oversight: Oversight::new(),
        slower_than: None,
        resume_for: None,
        identity: StaticKeypair::from_private(zeroize::Zeroizing::new(*identity.expose_private())),
        route,
        trust: Trust::default(),
        executor: executor.public_key,
        authorization: Vec::new(),
        token: None,
        traces: home.traces_dir(),
        store: home.runs_db(),
    }
}

async fn run(case: Case, session: Session) -> Result<Figures, Failure> {
    for _ in 0..WARM_UP {
        session.measure(PROGRAM).await?;
    }
    let mut progress = Progress::begin(case.name, case.runs);
    let mut calls = Vec::with_capacity(case.runs);
    for done in 0..case.runs {
        calls.push(session.measure(PROGRAM).await?);
        progress.at(done);
    }
    drop(progress);
    session.shutdown().await;
    Ok(Figures::of(case, &calls))
}

fn text(ask: &Attribution, calibration: &Calibration, figures: &[Figures]) -> String {
    let mut text = format!(
        "calibration: bare spawn of {PROGRAM} {} µs, TCP echo {} µs (p50)\n\
         slow link: {} ms each way\n\n\
         {:<10}{:>6}{:>12}{:>12}{:>12}{:>18}{:>12}{:>9}  budget\n",
        calibration.spawn_us,
        calibration.echo_us,
        ask.delay,
        "",
        "runs",
        "total p50",
        "transit p50",
        "ping p50",
        "unattributed p50",
        "p99",
        "p50 %",
    );
    for figures in figures {
        let median = figures.unattributed.median();
        // A `String` takes everything.
        let _ = writeln!(
            text,
            "{:<10}{:>6}{:>9} µs{:>9} µs{:>9} µs{:>15} µs{:>9} µs{:>8.2}%  {}: {}",
            figures.case.name,
            figures.total.len(),
            figures.total.median(),
            figures.transit.median(),
            figures.ping.median(),
            median,
            figures.unattributed.percentile(99),
            figures.percent(median),
            figures.budget(),
            if figures.is_met() { "met" } else { "not met" },
        );
    }
    text
}

fn to_json(ask: &Attribution, calibration: &Calibration, figures: &[Figures]) -> Value {
    json!({
        "calibration": { "spawn_p50_us": calibration.spawn_us, "echo_p50_us": calibration.echo_us },
        "slow_link_ms_each_way": ask.delay,
        "cases": figures.iter().map(Figures::to_json).collect::<Vec<_>>(),
        "met": figures.iter().all(Figures::is_met),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(total_us: u64, unattributed: u64) -> CallTimings {
        CallTimings {
            total_us,
            transit_us: unattributed,
            transit_excess_us: unattributed,
            ..CallTimings::default()
        }
    }

    fn figures(allowed_us: u64, total: u64, unattributed: u64) -> Figures {
        let case = Case {
            name: "case",
            runs: 3,
            allowed_us,
        };
        let calls = [call(total, 0), call(total, unattributed), call(total, total)];
        Figures::of(case, &calls)
    }

    #[test]
    fn the_budget_is_one_per_cent_or_twenty_microseconds_at_the_median() {
        assert!(figures(BUDGET_US, 1_000, 20).is_met());
        assert!(!figures(BUDGET_US, 1_000, 21).is_met());
        assert!(figures(BUDGET_US, 100_000, 1_000).is_met());
        assert!(!figures(BUDGET_US, 100_000, 1_001).is_met());
        assert!(!figures(0, 1_000, 20).is_met(), "a slow link has the share alone");
        assert!(figures(0, 100_000, 1_000).is_met());
    }

    #[test]
    fn both_ways_of_telling_say_whether_each_budget_is_met() {
        let ask = Attribution {
            runs: 3,
            slow_runs: 3,
            delay: 50,
        };
        let calibration = Calibration {
            spawn_us: 800,
            echo_us: 60,
            sync_us: 400,
        };
        let cases = [figures(BUDGET_US, 1_000, 10), figures(0, 1_000, 11)];
        let told = text(&ask, &calibration, &cases);
        assert!(told.contains(": met\n") && told.contains(": not met\n"), "{told}");
        let value = to_json(&ask, &calibration, &cases);
        assert_eq!(value["met"], false);
        assert_eq!(value["cases"][0]["met"], true);
        assert_eq!(value["cases"][1]["unattributed"]["p50_us"], 11);
        assert_eq!(value["calibration"]["spawn_p50_us"], 800);
    }
}
