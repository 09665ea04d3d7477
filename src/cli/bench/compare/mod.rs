//! `dwell bench`: dwell beside the same work done by others, in one run.

mod bare;
mod budget;
mod child;
mod contest;
mod cost;
mod dialect;
mod echo;
mod measure;
mod own;
mod paths;
mod peer;
mod plan;
mod report;
mod results;
mod series;
mod socket;
mod ssh;
mod task;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::Args;
use dwell_actors::config::Home;
use dwell_messages::Role;
use dwell_relay::StaticKeypair;
use tempfile::TempDir;

use super::super::failure::Failure;
use super::super::fleet::Fleet;
use super::super::identity;
use super::super::output::{self, Surroundings};
use super::super::ready::Ready;
use super::super::signals::Stop;
use super::calibration::Calibration;
use bare::Bare;
use child::Server;
use contest::{Absent, Contest};
use dialect::DialectPeer;
use echo::EchoServer;
use measure::Measure;
use own::OwnPeer;
use paths::Paths;
use peer::{Name, Peer, Trouble};
use plan::{Plan, Tasks};
use report::Report;
use ssh::ssh;

const LOOPBACK_ANY_PORT: &str = "127.0.0.1:0";
/// What is run to see how fast the machine is.
const CALIBRATION_PROGRAM: &str = "true";
const ROUNDS: u32 = 5;
const QUICK_ROUNDS: u32 = 2;
const LATENCIES_MS: [u32; 2] = [20, 100];
const QUICK_LATENCIES_MS: [u32; 1] = [20];

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// Measure this `codex` beside dwell: its `exec-server`, as it comes and with a client that acknowledges at once.
    #[arg(long, value_name = "PATH")]
    codex: Option<PathBuf>,
    /// Measure this `ssh` beside dwell, multiplexed, against a server of its own.
    #[arg(long, value_name = "PATH")]
    ssh: Option<PathBuf>,
    /// The server that `--ssh` is measured against.
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/sshd", requires = "ssh")]
    sshd: PathBuf,
    /// Few samples: whether everything works, and roughly how fast.
    #[arg(long)]
    quick: bool,
    /// Rounds that go through all peers [default: 5; quick: 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Latencies of a round trip that everything is measured at as well, in milliseconds [default: 20,100; quick: 20].
    #[arg(long, value_name = "MS,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=2_000))]
    latency: Option<Vec<u32>>,
    /// Only these measurements, by the names that --json has.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = measure_named)]
    only: Vec<Measure>,
}

fn measure_named(name: &str) -> Result<Measure, String> {
    let known = measure::ALL.iter().find(|measure| measure.key() == name);
    known.copied().ok_or_else(|| {
        let all: Vec<_> = measure::ALL.iter().map(|measure| measure.key()).collect();
        format!("there are {}", all.join(", "))
    })
}

/// What has to be ended.
#[derive(Default)]
struct Servers {
    fleet: Fleet,
    foreign: Vec<Server>,
}

pub(crate) async fn compare(ask: Compare, json: bool) -> Result<u8, Failure> {
    // Before anything is started: from here on Ctrl-C ends the benchmark in order.
    let mut stop = Stop::listen()?;
    let place = TempDir::with_prefix("dwell-bench-")
        .map_err(|error| Failure::because("bench", "no temporary directory can be made", &error))?;
    let mut servers = Servers::default();
    let reported = stop
        .or(Box::pin(measured(&ask, place.path(), &mut servers)))
        .await;
    for server in servers.foreign {
        server.end().await;
    }
    servers.fleet.end().await;
    if let Err(error) = place.close() {
        tracing::warn!(%error, "the benchmark's temporary directory is still there");
    }
    let report = reported?;
    if json {
        output::print_json(&report.json());
    } else {
        let color = Surroundings::of_stdout().options(None).color;
        output::print(&report.text(color));
    }
    Ok(0)
}

fn failure(trouble: &Trouble) -> Failure {
    Failure::of("bench", trouble)
}

async fn measured(ask: &Compare, place: &Path, servers: &mut Servers) -> Result<Report, Failure> {
    let plan = Plan {
        quick: ask.quick,
        rounds: ask
            .rounds
            .unwrap_or(if ask.quick { QUICK_ROUNDS } else { ROUNDS }) as usize,
        tasks: Tasks::find(ask.quick)
            .await
            .map_err(|trouble| failure(&trouble))?,
    };
    let calibration = Calibration::take(CALIBRATION_PROGRAM).await?;
    let paths = Rc::<Paths>::default();
    let (peers, absent) = peers(ask, place, servers, &paths).await?;
    let echo = EchoServer::start().map_err(|trouble| failure(&trouble))?;
    let usual: &[u32] = if ask.quick {
        &QUICK_LATENCIES_MS
    } else {
        &LATENCIES_MS
    };
    let mut latencies_ms = ask.latency.clone().unwrap_or_else(|| usual.to_vec());
    // What a latency adds is seen against none.
    latencies_ms.push(0);
    latencies_ms.sort_unstable();
    latencies_ms.dedup();
    let measures = if ask.only.is_empty() {
        &measure::ALL[..]
    } else {
        &ask.only[..]
    };
    let mut contest = Contest {
        plan: &plan,
        peers: &peers,
        measures,
        latencies_ms: &latencies_ms,
        paths: &paths,
        echo,
        results: results::Results::default(),
        absent,
    };
    contest.run().await;
    let Contest { results, absent, .. } = contest;
    let verdicts = budget::verdicts(&results, &latencies_ms);
    Ok(Report {
        calibration,
        quick: ask.quick,
        rounds: plan.rounds,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        peers: peers.iter().map(|peer| (peer.name(), peer.version())).collect(),
        latencies_ms,
        absent,
        results,
        verdicts,
    })
}

/// Everybody who can take part, in the order of the tables, and why the others cannot.
async fn peers(
    ask: &Compare,
    place: &Path,
    servers: &mut Servers,
    paths: &Rc<Paths>,
) -> Result<(Vec<Rc<dyn Peer>>, Vec<Absent>), Failure> {
    let mut peers: Vec<Rc<dyn Peer>> = vec![Rc::new(Bare)];
    peers.extend(own(place, &mut servers.fleet, paths).await?);
    let mut absent = Vec::new();
    let mut missing = |what: &str, why: String| {
        absent.push(Absent {
            what: what.to_owned(),
            why,
        });
    };
    match &ask.codex {
        None => missing("codex exec-server", "not given (--codex PATH)".to_owned()),
        Some(program) => match dialect::codex(program, place, paths).await {
            Ok((server, both)) => {
                servers.foreign.push(server);
                peers.extend(both.map(|peer| Rc::new(peer) as Rc<dyn Peer>));
            }
            Err(trouble) => missing("codex exec-server", trouble.to_string()),
        },
    }
    match &ask.ssh {
        None => missing("OpenSSH", "not given (--ssh PATH)".to_owned()),
        Some(program) => match ssh(program, &ask.sshd, place, paths).await {
            Ok((server, peer)) => {
                servers.foreign.push(server);
                peers.push(Rc::new(peer));
            }
            Err(trouble) => missing("OpenSSH", trouble.to_string()),
        },
    }
    Ok((peers, absent))
}

/// A relay, an executor that is reached by it and directly, and one that serves the JSON dialect: this program, as it
/// comes.
async fn own(place: &Path, fleet: &mut Fleet, paths: &Rc<Paths>) -> Result<Vec<Rc<dyn Peer>>, Failure> {
    let home = Home::at(&place.join("harness"));
    let identity = identity::load_or_make(&home, Role::Harness)?.pair;
    let client = identity.public().to_string();
    let relay = fleet
        .start(
            Role::Relay,
            &place.join("relay"),
            &["--listen", LOOPBACK_ANY_PORT],
        )
        .await?;
    let relay_process = fleet.newest();
    let relay_address = listens(&relay)?;
    let arguments = [
        "--relay",
        &relay_address.to_string(),
        "--listen",
        LOOPBACK_ANY_PORT,
        "--authorize",
        &client,
    ];
    let executor = fleet
        .start(Role::Executor, &place.join("executor"), &arguments)
        .await?;
    let executor_process = fleet.newest();
    let url = fleet.start_dialect(&place.join("dialect")).await?;
    let dialect_process = fleet.newest();
    let peer = |name, address, servers: Vec<u32>| OwnPeer {
        name,
        address,
        executor: executor.public_key,
        identity: StaticKeypair::from_private(zeroize::Zeroizing::new(*identity.expose_private())),
        servers,
        holders: vec![executor_process],
        paths: Rc::clone(paths),
    };
    let direct = peer(Name::Direct, listens(&executor)?, vec![executor_process]);
    let relayed = peer(Name::Relay, relay_address, vec![relay_process, executor_process]);
    let dialect = DialectPeer {
        name: Name::Json,
        version: None,
        address: dialect::address_of(&url).map_err(|trouble| failure(&trouble))?,
        quick_acks: false,
        servers: vec![dialect_process],
        paths: Rc::clone(paths),
    };
    Ok(vec![Rc::new(direct), Rc::new(relayed), Rc::new(dialect)])
}

fn listens(role: &Ready) -> Result<std::net::SocketAddr, Failure> {
    let listens = role.address.as_deref().and_then(|address| address.parse().ok());
    listens.ok_or_else(|| Failure::new("bench", "a role does not say where it listens"))
}
