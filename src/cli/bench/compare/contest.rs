//! The run: every measurement, round by round, all peers in turn.

use std::rc::Rc;
use std::time::Duration;

use super::super::progress::Progress;
use super::echo::{EchoServer, PathEcho};
use super::measure::{self, Entrant, Measure};
use super::paths::Paths;
use super::peer::{Name, Peer, Trouble, within};
use super::plan::Plan;
use super::results::Results;

/// The longest that one peer may take for one round, whatever it is.
const ROUND_LIMIT: Duration = Duration::from_secs(180);
/// After so many troubles a peer is not asked for the same again.
const TROUBLES_MAX: u32 = 2;
/// Echoes by TCP before each round, of which a path's round trip is learnt.
const ECHOES: usize = 2;
/// Longer goodbyes are not waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What there is to say beside figures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Absent {
    pub(crate) what: String,
    pub(crate) why: String,
}

pub(crate) struct Contest<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) peers: &'a [Rc<dyn Peer>],
    pub(crate) measures: &'a [Measure],
    /// Of a round trip; the first is none.
    pub(crate) latencies_ms: &'a [u32],
    pub(crate) paths: &'a Paths,
    pub(crate) echo: EchoServer,
    pub(crate) results: Results,
    pub(crate) absent: Vec<Absent>,
}

impl Contest<'_> {
    /// Takes everything. What a peer does not manage is noted with it, and ends nothing else.
    pub(crate) async fn run(&mut self) {
        let mut progress = Progress::begin("measuring", self.steps());
        let mut done = 0;
        for &latency_ms in self.latencies_ms {
            let mut entrants = self.enter(latency_ms).await;
            let mut echo = self.path_of(latency_ms).await;
            for &measure in self.measures {
                if latency_ms > 0 && !measure.travels() {
                    continue;
                }
                let what = match latency_ms {
                    0 => measure.label().to_owned(),
                    ms => format!("{}, {ms} ms", measure.label()),
                };
                progress.say(&what);
                for round in 0..self
                    .plan
                    .rounds(measure, Duration::from_millis(latency_ms.into()))
                {
                    self.echo(latency_ms, &mut echo).await;
                    for index in 0..entrants.len() {
                        // Nobody is always the first.
                        let turn = (index + round) % entrants.len();
                        self.take(measure, latency_ms, &mut entrants[turn]).await;
                        done += 1;
                        progress.at(done);
                    }
                }
                for entrant in &mut entrants {
                    for client in entrant.idle.drain(..) {
                        drop(within("a goodbye", CLOSE_LIMIT, client.close()).await);
                    }
                }
            }
            for entrant in entrants {
                drop(within("a goodbye", CLOSE_LIMIT, entrant.client.close()).await);
            }
        }
    }

    /// Without it a round trip is what was asked for, and that is said.
    async fn path_of(&mut self, latency_ms: u32) -> Option<PathEcho> {
        let round_trip = Duration::from_millis(latency_ms.into());
        match PathEcho::begin(self.echo, self.paths, round_trip).await {
            Ok(echo) => Some(echo),
            Err(trouble) => {
                self.no_echo(latency_ms, &trouble);
                None
            }
        }
    }

    async fn echo(&mut self, latency_ms: u32, path: &mut Option<PathEcho>) {
        let Some(echo) = path else { return };
        match echo.take(ECHOES).await {
            Ok(samples) => self.results.path_mut(latency_ms).push_round(samples),
            Err(trouble) => {
                self.no_echo(latency_ms, &trouble);
                *path = None;
            }
        }
    }

    fn no_echo(&mut self, latency_ms: u32, trouble: &Trouble) {
        self.absent.push(Absent {
            what: format!("a bare echo at {latency_ms} ms"),
            why: trouble.to_string(),
        });
    }

    fn steps(&self) -> usize {
        let rounds = |&latency_ms: &u32| -> usize {
            let travelling = self
                .measures
                .iter()
                .filter(|measure| latency_ms == 0 || measure.travels());
            let round_trip = Duration::from_millis(latency_ms.into());
            travelling
                .map(|measure| self.plan.rounds(*measure, round_trip))
                .sum()
        };
        self.peers.len() * self.latencies_ms.iter().map(rounds).sum::<usize>()
    }

    async fn enter(&mut self, latency_ms: u32) -> Vec<Entrant> {
        let mut entrants = Vec::new();
        let round_trip = Duration::from_millis(latency_ms.into());
        for peer in self.peers {
            // Here there is no path to be slow.
            if latency_ms > 0 && peer.name() == Name::Bare {
                continue;
            }
            match measure::enter(peer, round_trip, self.plan).await {
                Ok(entrant) => entrants.push(entrant),
                Err(trouble) => self.absent.push(Absent {
                    what: format!("{} at {latency_ms} ms", peer.name().label()),
                    why: trouble.to_string(),
                }),
            }
        }
        entrants
    }

    async fn take(&mut self, measure: Measure, latency_ms: u32, entrant: &mut Entrant) {
        let name = entrant.peer.name();
        let spent = self.results.cell(measure, latency_ms, name);
        if spent.is_some_and(|cell| cell.troubles() >= TROUBLES_MAX) {
            self.results
                .cell_mut(measure, latency_ms, name)
                .series
                .push_round(Vec::new());
            return;
        }
        let sampled = within(
            "a round",
            ROUND_LIMIT,
            measure::sample(measure, entrant, self.plan),
        )
        .await;
        match sampled {
            Ok(None) => {}
            Ok(Some(samples)) => self
                .results
                .cell_mut(measure, latency_ms, name)
                .series
                .push_round(samples),
            Err(trouble) => {
                tracing::warn!(peer = name.key(), measure = measure.key(), error = %trouble, "not measured");
                let cell = self.results.cell_mut(measure, latency_ms, name);
                cell.series.push_round(Vec::new());
                cell.note(&trouble);
                self.renew(entrant).await;
            }
        }
    }

    /// What went wrong may have left its connection in any state.
    async fn renew(&self, entrant: &mut Entrant) {
        let renewed: Result<Entrant, Trouble> =
            measure::enter(&entrant.peer, entrant.round_trip, self.plan).await;
        match renewed {
            Ok(fresh) => {
                let old = std::mem::replace(&mut entrant.client, fresh.client);
                drop(within("a goodbye", CLOSE_LIMIT, old.close()).await);
            }
            Err(error) => tracing::warn!(%error, "not connected again"),
        }
    }
}
