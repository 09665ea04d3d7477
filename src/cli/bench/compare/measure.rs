//! What is measured, and one round of it with one peer. Every sample is of something that was done as it must be.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::cost;
use super::peer::{Client, Live, Peer, Stands, Trouble, within};
use super::plan::Plan;
use super::task::Task;

/// The longest a call, a command that does nothing, or an echo may take.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// The longest a command that writes all that it is asked for may take.
const FLOOD_LIMIT: Duration = Duration::from_secs(120);
/// The longest a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How long output is waited for that does not come, beyond the path's own time.
const POLL_WAIT: Duration = Duration::from_millis(250);
/// Sessions are let settle before they are weighed.
const SETTLE: Duration = Duration::from_millis(300);
/// What a terminal's shell says when what is typed is read byte by byte.
const READY: &[u8] = b"ready";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Measure {
    RoundTrip,
    OneShot,
    InFlight1,
    InFlight8,
    InFlight32,
    Throughput,
    EchoPipe,
    EchoPipeFlooded,
    EchoTerminal,
    EchoTerminalFlooded,
    BehindPoll,
    Cold,
    IdleMemory,
    Processor,
}

/// In the order in which they are taken: sessions are weighed while little has been done.
pub(crate) const ALL: [Measure; 14] = [
    Measure::IdleMemory,
    Measure::RoundTrip,
    Measure::OneShot,
    Measure::InFlight1,
    Measure::InFlight8,
    Measure::InFlight32,
    Measure::Throughput,
    Measure::EchoPipe,
    Measure::EchoPipeFlooded,
    Measure::EchoTerminal,
    Measure::EchoTerminalFlooded,
    Measure::BehindPoll,
    Measure::Cold,
    Measure::Processor,
];

/// What a figure is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Micros,
    PerSecond,
    MegabytesPerSecond,
    Kibibytes,
}

impl Measure {
    /// For people; as wide as a column of names at most.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::RoundTrip => "RPC round trip",
            Self::OneShot => "one-shot `true`",
            Self::InFlight1 => "commands/s, 1 in flight",
            Self::InFlight8 => "commands/s, 8 in flight",
            Self::InFlight32 => "commands/s, 32 in flight",
            Self::Throughput => "flood of output",
            Self::EchoPipe => "echo, pipe",
            Self::EchoPipeFlooded => "echo, pipe, flooded",
            Self::EchoTerminal => "echo, terminal",
            Self::EchoTerminalFlooded => "echo, terminal, flooded",
            Self::BehindPoll => "behind a long poll",
            Self::Cold => "cold to first output",
            Self::IdleMemory => "idle session's memory",
            Self::Processor => "processor time",
        }
    }

    /// For programs, and for `--only`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::RoundTrip => "round_trip",
            Self::OneShot => "one_shot",
            Self::InFlight1 => "in_flight_1",
            Self::InFlight8 => "in_flight_8",
            Self::InFlight32 => "in_flight_32",
            Self::Throughput => "throughput",
            Self::EchoPipe => "echo_pipe",
            Self::EchoPipeFlooded => "echo_pipe_flooded",
            Self::EchoTerminal => "echo_terminal",
            Self::EchoTerminalFlooded => "echo_terminal_flooded",
            Self::BehindPoll => "behind_poll",
            Self::Cold => "cold",
            Self::IdleMemory => "idle_memory",
            Self::Processor => "processor",
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::InFlight1 | Self::InFlight8 | Self::InFlight32 => Unit::PerSecond,
            Self::Throughput => Unit::MegabytesPerSecond,
            Self::IdleMemory => Unit::Kibibytes,
            Self::RoundTrip
            | Self::OneShot
            | Self::EchoPipe
            | Self::EchoPipeFlooded
            | Self::EchoTerminal
            | Self::EchoTerminalFlooded
            | Self::BehindPoll
            | Self::Cold
            | Self::Processor => Unit::Micros,
        }
    }

    /// Whether a path's latency has anything to do with it.
    pub(crate) fn travels(self) -> bool {
        !matches!(self, Self::IdleMemory | Self::Processor)
    }

    /// Whether one round says all.
    pub(crate) fn is_taken_once(self) -> bool {
        self == Self::IdleMemory
    }
}

/// One peer, and a client of it.
pub(crate) struct Entrant {
    pub(crate) peer: Rc<dyn Peer>,
    pub(crate) client: Rc<dyn Client>,
    /// Of the path.
    pub(crate) round_trip: Duration,
    /// Sessions that are there to be weighed.
    pub(crate) idle: Vec<Rc<dyn Client>>,
}

/// Samples, or `None` where there is nothing of the kind.
pub(crate) type Sampled = Result<Option<Vec<f64>>, Trouble>;

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

/// Connects, and sees that commands run.
pub(crate) async fn enter(
    peer: &Rc<dyn Peer>,
    round_trip: Duration,
    plan: &Plan,
) -> Result<Entrant, Trouble> {
    let client = within("a connection", CONNECT_LIMIT, peer.connect(round_trip)).await?;
    for _ in 0..plan.warm_up() {
        within("a command", CALL_LIMIT, client.run(&plan.tasks.nothing)).await?;
        if let Some(call) = client.round_trip() {
            within("a call", CALL_LIMIT, call).await?;
        }
    }
    Ok(Entrant {
        peer: Rc::clone(peer),
        client,
        round_trip,
        idle: Vec::new(),
    })
}

/// One round of one measurement.
pub(crate) async fn sample(measure: Measure, entrant: &mut Entrant, plan: &Plan) -> Sampled {
    let wanted = plan.samples(measure, entrant.round_trip);
    let pacer = Pacer::new(wanted, plan.slice());
    let client = Rc::clone(&entrant.client);
    match measure {
        Measure::RoundTrip => round_trips(&client, pacer).await,
        Measure::OneShot => one_shots(&client, &plan.tasks.nothing, pacer).await,
        Measure::InFlight1 => burst(&client, &plan.tasks.nothing, 1, wanted).await,
        Measure::InFlight8 => burst(&client, &plan.tasks.nothing, 8, wanted).await,
        Measure::InFlight32 => burst(&client, &plan.tasks.nothing, 32, wanted).await,
        Measure::Throughput => throughput(&client, plan, entrant.round_trip).await,
        Measure::EchoPipe => echoes(&client, plan, Stands::Pipes, pacer).await,
        Measure::EchoTerminal => echoes(&client, plan, Stands::Terminal, pacer).await,
        Measure::EchoPipeFlooded => flooded_echoes(&client, plan, Stands::Pipes, pacer).await,
        Measure::EchoTerminalFlooded => flooded_echoes(&client, plan, Stands::Terminal, pacer).await,
        Measure::BehindPoll => behind_polls(&client, plan, entrant.round_trip, pacer).await,
        Measure::Cold => colds(entrant, plan, pacer).await,
        Measure::IdleMemory => idle_memory(entrant, plan).await,
        Measure::Processor => processor(entrant, plan, wanted).await,
    }
}

/// So many samples, or fewer where they take too long; one in any case.
struct Pacer {
    left: usize,
    until: Instant,
    is_first: bool,
}

impl Pacer {
    fn new(samples: usize, slice: Duration) -> Self {
        Self {
            left: samples,
            until: Instant::now() + slice,
            is_first: true,
        }
    }

    /// Whether to take one more.
    fn goes_on(&mut self) -> bool {
        let first = std::mem::take(&mut self.is_first);
        if !first && (self.left == 0 || Instant::now() >= self.until) {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        true
    }
}

async fn round_trips(client: &Rc<dyn Client>, mut pacer: Pacer) -> Sampled {
    let mut samples = Vec::new();
    while pacer.goes_on() {
        let begun = Instant::now();
        let Some(call) = client.round_trip() else {
            return Ok(None);
        };
        within("a call", CALL_LIMIT, call).await?;
        samples.push(micros(begun));
    }
    Ok(Some(samples))
}

async fn one_shots(client: &Rc<dyn Client>, task: &Task, mut pacer: Pacer) -> Sampled {
    let mut samples = Vec::new();
    while pacer.goes_on() {
        let begun = Instant::now();
        within("a command", CALL_LIMIT, client.run(task)).await?;
        samples.push(micros(begun));
    }
    Ok(Some(samples))
}

/// So many commands, so many of them under way: commands a second.
async fn burst(client: &Rc<dyn Client>, task: &Rc<Task>, in_flight: usize, commands: usize) -> Sampled {
    let left = Rc::new(Cell::new(commands));
    let mut lanes = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..in_flight {
        let (client, task, left) = (Rc::clone(client), Rc::clone(task), Rc::clone(&left));
        lanes.spawn_local(async move {
            while let Some(rest) = left.get().checked_sub(1) {
                left.set(rest);
                within("a command among others", CALL_LIMIT, client.run(&task)).await?;
            }
            Ok::<_, Trouble>(())
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended.map_err(|error| Trouble::failed("a burst of commands", error))??;
    }
    Ok(Some(vec![commands as f64 / begun.elapsed().as_secs_f64()]))
}

async fn throughput(client: &Rc<dyn Client>, plan: &Plan, round_trip: Duration) -> Sampled {
    if round_trip.is_zero() {
        // Not a byte is lost, and none in another's place.
        within("numbered output", FLOOD_LIMIT, client.run(&plan.tasks.numbers)).await?;
    }
    let (task, bytes) = plan.flood(round_trip);
    let begun = Instant::now();
    within("a flood", FLOOD_LIMIT, client.run(task)).await?;
    Ok(Some(vec![bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()]))
}

async fn open(
    client: &Rc<dyn Client>,
    stands: Stands,
    argv: &[String],
) -> Result<Option<Box<dyn Live>>, Trouble> {
    match client.open(stands, argv.to_vec()) {
        Some(opening) => within("a command that stays", CALL_LIMIT, opening)
            .await
            .map(Some),
        None => Ok(None),
    }
}

/// A byte there and back. What comes must be what went, and nothing else.
async fn echo(live: &mut Box<dyn Live>, byte: u8) -> Result<(), Trouble> {
    live.write(&[byte]).await?;
    let data: Bytes = live.read().await?;
    if *data == [byte] {
        return Ok(());
    }
    Err(Trouble::wrong(
        "an echo",
        format!("{} bytes came back of one", data.len()),
    ))
}

async fn echoes(client: &Rc<dyn Client>, plan: &Plan, stands: Stands, mut pacer: Pacer) -> Sampled {
    let argv = match stands {
        Stands::Pipes => &plan.tasks.echo,
        Stands::Terminal => &plan.tasks.terminal_echo,
    };
    let Some(mut live) = open(client, stands, argv).await? else {
        return Ok(None);
    };
    if stands == Stands::Terminal {
        within("a terminal that is ready", CALL_LIMIT, ready(&mut live)).await?;
    }
    within("a first echo", CALL_LIMIT, echo(&mut live, b'.')).await?;
    let mut samples = Vec::new();
    while pacer.goes_on() {
        let byte = b'a' + (samples.len() % 26) as u8;
        let begun = Instant::now();
        within("an echo", CALL_LIMIT, echo(&mut live, byte)).await?;
        samples.push(micros(begun));
    }
    within("a command's end", CALL_LIMIT, live.end()).await?;
    Ok(Some(samples))
}

async fn ready(live: &mut Box<dyn Live>) -> Result<(), Trouble> {
    let mut heard = Vec::new();
    while !heard.windows(READY.len()).any(|window| window == READY) || !heard.ends_with(b"\n") {
        heard.extend_from_slice(&live.read().await?);
    }
    Ok(())
}

/// A command that writes for ever, on the same connection, and a task that takes it all.
struct Flood {
    stop: oneshot::Sender<()>,
    drained: JoinHandle<Result<(), Trouble>>,
}

impl Flood {
    /// Has begun when this returns.
    async fn begin(client: &Rc<dyn Client>, argv: &[String]) -> Result<Option<Self>, Trouble> {
        let Some(mut live) = open(client, Stands::Pipes, argv).await? else {
            return Ok(None);
        };
        within("a flood", CALL_LIMIT, live.read()).await?;
        let (stop, mut stopped) = oneshot::channel();
        let drained = tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    // Also when whoever measured has given up.
                    _ = &mut stopped => break,
                    read = live.read() => drop(read?),
                }
            }
            live.end().await
        });
        Ok(Some(Self { stop, drained }))
    }

    async fn end(self) -> Result<(), Trouble> {
        // One that ended by itself hears nothing, and tells why below.
        self.stop.send(()).ok();
        within("a flood's end", CALL_LIMIT, async {
            let drained = self.drained.await;
            drained.map_err(|error| Trouble::failed("a flood", error))?
        })
        .await
    }
}

async fn flooded_echoes(client: &Rc<dyn Client>, plan: &Plan, stands: Stands, pacer: Pacer) -> Sampled {
    let Some(flood) = Flood::begin(client, &plan.tasks.flood_for_ever).await? else {
        return Ok(None);
    };
    let sampled = echoes(client, plan, stands, pacer).await;
    flood.end().await?;
    sampled
}

async fn behind_polls(
    client: &Rc<dyn Client>,
    plan: &Plan,
    round_trip: Duration,
    mut pacer: Pacer,
) -> Sampled {
    let Some(live) = open(client, Stands::Pipes, &plan.tasks.echo).await? else {
        return Ok(None);
    };
    let mut samples = Vec::new();
    while pacer.goes_on() {
        let (Some(poll), Some(call)) = (live.poll(POLL_WAIT + 2 * round_trip), client.round_trip()) else {
            within("a command's end", CALL_LIMIT, live.end()).await?;
            return Ok(None);
        };
        let call = async {
            // The poll is on its way first.
            tokio::task::yield_now().await;
            let begun = Instant::now();
            within("a call behind a long poll", CALL_LIMIT, call).await?;
            Ok(micros(begun))
        };
        let poll = within("a long poll", CALL_LIMIT, poll);
        let (polled, called): (_, Result<f64, Trouble>) = tokio::join!(poll, call);
        polled?;
        samples.push(called?);
    }
    within("a command's end", CALL_LIMIT, live.end()).await?;
    Ok(Some(samples))
}

async fn colds(entrant: &Entrant, plan: &Plan, mut pacer: Pacer) -> Sampled {
    let mut samples = Vec::new();
    while pacer.goes_on() {
        let begun = Instant::now();
        let connecting = entrant.peer.connect_cold(entrant.round_trip);
        let client = within("a connection", CONNECT_LIMIT, connecting).await?;
        let ran = within("a first command", CALL_LIMIT, client.run(&plan.tasks.word)).await?;
        let first = ran
            .first
            .ok_or_else(|| Trouble::wrong("the output", "none came"))?;
        samples.push(first.saturating_duration_since(begun).as_secs_f64() * 1e6);
        within("a goodbye", CALL_LIMIT, client.close()).await?;
    }
    Ok(Some(samples))
}

/// What each of several sessions adds to its server, behind the first ones, for which it makes room that it has once. They
/// stay until all peers were weighed: room that one gave back would make the next one look smaller.
async fn idle_memory(entrant: &mut Entrant, plan: &Plan) -> Sampled {
    let holders = entrant.peer.holders();
    if holders.is_empty() {
        return Ok(None);
    }
    let (before_any, sessions) = plan.idle_sessions(entrant.peer.name());
    let mut before = 0;
    for session in 0..before_any + sessions {
        if session == before_any {
            tokio::time::sleep(SETTLE).await;
            before = cost::memory_kib(&holders);
        }
        let client = within(
            "a connection",
            CONNECT_LIMIT,
            entrant.peer.connect(entrant.round_trip),
        )
        .await?;
        if let Some(call) = client.round_trip() {
            within("a call", CALL_LIMIT, call).await?;
        }
        entrant.idle.push(client);
    }
    tokio::time::sleep(SETTLE).await;
    let more = cost::memory_kib(&holders).saturating_sub(before);
    Ok(Some(vec![more as f64 / sessions as f64]))
}

async fn processor(entrant: &Entrant, plan: &Plan, commands: usize) -> Sampled {
    let servers = entrant.peer.servers();
    if servers.is_empty() {
        return Ok(None);
    }
    let before = cost::processor_us(&servers);
    burst(&entrant.client, &plan.tasks.nothing, 8, commands).await?;
    let used = cost::processor_us(&servers).saturating_sub(before);
    Ok(Some(vec![used as f64 / commands as f64]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_with_its_samples_or_with_its_time_but_has_one() {
        let count = |samples, slice| {
            let mut pacer = Pacer::new(samples, slice);
            let mut taken = 0;
            while pacer.goes_on() {
                taken += 1;
            }
            taken
        };
        assert_eq!(count(5, Duration::from_secs(60)), 5);
        assert_eq!(count(5, Duration::ZERO), 1);
    }

    #[test]
    fn every_measurement_is_taken_and_has_a_name_of_its_own() {
        let keys: std::collections::BTreeSet<_> = ALL.iter().map(|measure| measure.key()).collect();
        let labels: std::collections::BTreeSet<_> = ALL.iter().map(|measure| measure.label()).collect();
        assert_eq!((keys.len(), labels.len()), (ALL.len(), ALL.len()));
    }
}
