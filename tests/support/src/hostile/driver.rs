//! Carries out on sockets what the lanes decide.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::lane::{Applied, FrameLane, FrameStep, Seen};
use super::rules::{FrameRule, Hostility, RuleKind};
use super::watch::{Canaries, Watch};
use crate::proxy::{Direction, next_random};

/// Applied rules that are kept, the newest; all of them are counted.
pub const LOG_MAX: usize = 4_096;
/// Sightings that are kept, the first.
const SIGHTINGS_MAX: usize = 64;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// How long an orphaned end is kept.
const ORPHAN_LIFE: Duration = Duration::from_secs(3);

/// What an orphaned end gets late, at most.
const ORPHAN_MAX_BYTES: usize = 4 * 1024 * 1024;

type Script = Vec<(u64, FrameRule)>;

/// A proxy on a loopback port of its own, before one upstream address. It lives on the tokio runtime it was started on;
/// dropping it closes its port and every connection. Dropped by a panic, it says its seed and what it did.
#[derive(Debug)]
pub struct HostileProxy {
    address: SocketAddr,
    seed: u64,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    control: watch::Sender<Control>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    random: u64,
    hostility: Hostility,
    scripts: VecDeque<[Script; 2]>,
    seen: Seen,
    canaries: Arc<Canaries>,
    sightings: Vec<(Direction, Vec<u8>)>,
    log: VecDeque<Applied>,
    counts: BTreeMap<RuleKind, u64>,
    accepted: u64,
    orphans: u64,
    bytes: [u64; 2],
}

/// What living connections watch.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    restarts: u64,
    heals: u64,
}

/// How a direction ends.
enum End {
    /// Its source has no more, or nothing of it is wanted.
    Finished,
    Reset,
    Orphan(Duration, Bytes),
}

impl HostileProxy {
    /// Listens on a free loopback port; connections go on to `upstream`, and everything passes until
    /// [`hostility`](Self::hostility) says otherwise. Everything random follows from `seed` and the order of events.
    ///
    /// # Errors
    /// When there is no port.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = State {
            upstream,
            random: seed,
            hostility: Hostility::none(),
            scripts: VecDeque::new(),
            seen: Seen::default(),
            canaries: Arc::default(),
            sightings: Vec::new(),
            log: VecDeque::new(),
            counts: BTreeMap::new(),
            accepted: 0,
            orphans: 0,
            bytes: [0; 2],
        };
        let (control, _) = watch::channel(Control::default());
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            control,
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            seed,
            shared,
            accepting,
        })
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to the frames of connections accepted from now on.
    pub fn hostility(&self, hostility: Hostility) {
        self.shared.lock().hostility = hostility;
    }

    /// What happens to frames of the next connection that has no script yet, by their number, towards upstream and
    /// towards the client; called again, to the one after it.
    pub fn script_next(&self, to_upstream: Script, to_client: Script) {
        self.shared.lock().scripts.push_back([to_upstream, to_client]);
    }

    /// Where connections go on to from now on.
    pub fn move_upstream(&self, upstream: SocketAddr) {
        self.shared.lock().upstream = upstream;
    }

    /// Looks for these in all that comes from now on.
    pub fn watch_for(&self, canaries: Canaries) {
        self.shared.lock().canaries = Arc::new(canaries);
    }

    /// What was seen of what is looked for.
    #[must_use]
    pub fn sightings(&self) -> Vec<(Direction, Vec<u8>)> {
        self.shared.lock().sightings.clone()
    }

    /// From now on everything passes, on open connections too: what is stalled goes on.
    pub fn heal(&self) {
        {
            let mut state = self.shared.lock();
            state.hostility = Hostility::none();
            state.scripts.clear();
        }
        self.shared.control.send_modify(|control| control.heals += 1);
    }

    /// Resets every open connection now.
    pub fn restart(&self) {
        self.shared.control.send_modify(|control| control.restarts += 1);
    }

    /// The rules that were applied, the newest [`LOG_MAX`].
    #[must_use]
    pub fn log(&self) -> Vec<Applied> {
        self.shared.lock().log.iter().copied().collect()
    }

    /// How often which kind of rule was applied.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<RuleKind, u64> {
        self.shared.lock().counts.clone()
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many orphaned ends have got what was late for them, and have closed, or were closed 3 s later.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.shared.lock().orphans
    }

    /// Bytes that came, towards upstream and towards clients.
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        self.shared.lock().bytes
    }
}

impl Drop for HostileProxy {
    #[expect(clippy::print_stderr, reason = "what a test that failed needs to be repeated")]
    fn drop(&mut self) {
        // The set of connections lives in the task, and its drop aborts them.
        self.accepting.abort();
        if std::thread::panicking() {
            let state = self.shared.lock();
            eprintln!("hostile proxy of seed {}: {:?}", self.seed, state.counts);
            for applied in state.log.iter().rev().take(64).rev() {
                eprintln!("{applied:?}");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lanes of the next connection.
    fn admit(&self) -> [FrameLane; 2] {
        let mut state = self.lock();
        let connection = state.accepted;
        state.accepted += 1;
        let [up, down] = state.scripts.pop_front().unwrap_or_default();
        let mut lane = |direction, script: Script| {
            let seed = next_random(&mut state.random);
            // A script says everything about its connection.
            let hostility = if script.is_empty() {
                state.hostility.clone()
            } else {
                Hostility::none()
            };
            FrameLane::new(direction, connection, hostility, seed).scripted(script)
        };
        [lane(Direction::ToUpstream, up), lane(Direction::ToClient, down)]
    }

    /// What to do with a piece that came.
    fn take(&self, lane: &mut FrameLane, watch: &mut Watch, way: Direction, piece: &[u8]) -> Vec<FrameStep> {
        let canaries = Arc::clone(&self.lock().canaries);
        let sighted = watch.search(&canaries, piece);
        let mut state = self.lock();
        state.bytes[usize::from(way == Direction::ToClient)] += piece.len() as u64;
        for needle in sighted {
            if state.sightings.len() < SIGHTINGS_MAX {
                state.sightings.push((way, needle));
            }
        }
        let steps = lane.push(piece, &mut state.seen);
        for applied in lane.take_applied() {
            *state.counts.entry(applied.rule.kind()).or_insert(0) += 1;
            if state.log.len() >= LOG_MAX {
                state.log.pop_front();
            }
            state.log.push_back(applied);
        }
        steps
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let lanes = shared.admit();
                    connections.spawn(connect(client, Arc::clone(&shared), lanes));
                }
                // Out of descriptors, or a client gone before it was taken: the next may do better.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(client: TcpStream, shared: Arc<Shared>, [mut up, mut down]: [FrameLane; 2]) {
    let mut control = shared.control.subscribe();
    let restarts = control.borrow().restarts;
    let upstream = shared.lock().upstream;
    let Ok(server) = TcpStream::connect(upstream).await else {
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let mut to_upstream = Pump::new(&shared, Direction::ToUpstream, client_in, server_out);
    let mut to_client = Pump::new(&shared, Direction::ToClient, server_in, client_out);
    let end = tokio::select! {
        end = both(to_upstream.run(&mut up), to_client.run(&mut down)) => end,
        // An error means that the proxy is being dropped.
        _ = control.wait_for(|control| control.restarts > restarts) => End::Reset,
    };
    let (client_out, mut server_out) = (to_client.sink, to_upstream.sink);
    match end {
        End::Finished => {}
        End::Reset => {
            reset(client_out);
            reset(server_out);
        }
        End::Orphan(pause, bytes) => {
            reset(client_out);
            drop(to_upstream.source);
            tokio::time::sleep(pause).await;
            // The other end may have gone meanwhile.
            let _ = server_out.write_all(&bytes).await;
            let mut nowhere = tokio::io::sink();
            let reading = tokio::io::copy(&mut to_client.source, &mut nowhere);
            let _ = tokio::time::timeout(ORPHAN_LIFE, reading).await;
            shared.lock().orphans += 1;
        }
    }
}

/// Until both have finished, or one ends the connection.
async fn both(up: impl Future<Output = End>, down: impl Future<Output = End>) -> End {
    tokio::pin!(up, down);
    let (first, up_is_first) = tokio::select! {
        end = &mut up => (end, true),
        end = &mut down => (end, false),
    };
    match (first, up_is_first) {
        (End::Finished, true) => down.await,
        (End::Finished, false) => up.await,
        (end @ (End::Reset | End::Orphan(..)), _) => end,
    }
}

struct Pump {
    shared: Arc<Shared>,
    direction: Direction,
    source: OwnedReadHalf,
    sink: OwnedWriteHalf,
    watch: Watch,
}

impl Pump {
    fn new(shared: &Arc<Shared>, direction: Direction, source: OwnedReadHalf, sink: OwnedWriteHalf) -> Self {
        Self {
            shared: Arc::clone(shared),
            direction,
            source,
            sink,
            watch: Watch::default(),
        }
    }

    async fn run(&mut self, lane: &mut FrameLane) -> End {
        let mut control = self.shared.control.subscribe();
        let heals = control.borrow().heals;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match self.source.read(&mut buffer).await {
                Ok(0) => {
                    // The other side may be gone, which its own direction finds out.
                    let _ = self.sink.shutdown().await;
                    return End::Finished;
                }
                Ok(read) => read,
                Err(_) => return End::Reset,
            };
            if control.borrow().heals > heals {
                lane.heal();
            }
            let shared = Arc::clone(&self.shared);
            let steps = shared.take(lane, &mut self.watch, self.direction, &buffer[..read]);
            for step in steps {
                match step {
                    FrameStep::Write(bytes) => {
                        if self.sink.write_all(&bytes).await.is_err() {
                            return End::Reset;
                        }
                    }
                    FrameStep::Pause(pause) => tokio::time::sleep(pause).await,
                    FrameStep::Stall => {
                        let _ = control.wait_for(|control| control.heals > heals).await;
                    }
                    FrameStep::HalfClose => {
                        let _ = self.sink.shutdown().await;
                        // The sender does not learn that nobody listens.
                        while matches!(self.source.read(&mut buffer).await, Ok(read) if read > 0) {}
                        return End::Finished;
                    }
                    FrameStep::Reset => return End::Reset,
                    FrameStep::Restart => {
                        shared.control.send_modify(|control| control.restarts += 1);
                        return End::Reset;
                    }
                    FrameStep::Orphan(pause, bytes) => {
                        let late = self.collect(pause, bytes, &mut buffer).await;
                        return End::Orphan(pause, late);
                    }
                }
            }
        }
    }
}

impl Pump {
    /// What its sender says meanwhile, behind what it said.
    async fn collect(&mut self, time: Duration, said: Bytes, buffer: &mut [u8]) -> Bytes {
        let mut late = said.to_vec();
        let reading = async {
            while let Ok(read) = self.source.read(buffer).await
                && read > 0
                && late.len() < ORPHAN_MAX_BYTES
            {
                late.extend_from_slice(&buffer[..read]);
            }
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(time, reading).await;
        late.into()
    }
}

/// Makes the coming close of this socket a reset.
fn reset(half: OwnedWriteHalf) {
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
    // Its drop would say a proper end first.
    half.forget();
}
