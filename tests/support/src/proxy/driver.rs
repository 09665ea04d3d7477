//! Carries out on sockets what the lanes decide.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::lane::{Direction, Lane, Plan, Step, next_random};

/// How much of each direction is kept, over all connections, in bytes. What comes after passes and is not kept.
pub const CAPTURE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// How long the ends of a properly closed connection are waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A proxy on a loopback port of its own, before one upstream address. It lives on the tokio runtime it was started on;
/// dropping it closes its port and every connection.
#[derive(Debug)]
pub struct TcpFaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// How connections are cut from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A proper close of both ways (FIN).
    Close,
    /// A reset of both ends (RST).
    Reset,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    control: watch::Sender<Control>,
}

#[derive(Debug)]
struct State {
    random: u64,
    usual: Plan,
    next: VecDeque<Plan>,
    to_upstream: Vec<u8>,
    to_client: Vec<u8>,
    accepted: u64,
}

/// What living connections watch.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    /// Grows with each [`TcpFaultProxy::cut`].
    cuts: u64,
    last_cut: Option<Cut>,
    /// Grows with each [`TcpFaultProxy::heal`].
    heals: u64,
    /// Towards upstream, towards the client.
    held: [bool; 2],
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The source had no more, and its receiver has been told so.
    Finished,
    Close,
    Reset,
}

impl TcpFaultProxy {
    /// Listens on a free loopback port; connections go on to `upstream`. Everything random follows from `seed`.
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
            random: seed,
            usual: Plan::pass(),
            next: VecDeque::new(),
            to_upstream: Vec::new(),
            to_client: Vec::new(),
            accepted: 0,
        };
        let (control, _) = watch::channel(Control::default());
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::new(state),
            control,
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to every connection accepted from now on, when [`plan_next`](Self::plan_next) says nothing else.
    pub fn plan(&self, plan: Plan) {
        self.shared.lock().usual = plan;
    }

    /// What happens to the next connection that has no plan yet; called again, to the one after it.
    pub fn plan_next(&self, plan: Plan) {
        self.shared.lock().next.push_back(plan);
    }

    /// Stops all connections, open and new ones, both ways, without closing any: a network that is gone. Ended by
    /// [`heal`](Self::heal).
    pub fn freeze(&self) {
        self.shared
            .control
            .send_modify(|control| control.held = [true; 2]);
    }

    /// As [`freeze`](Self::freeze), one way: what was sent the other way arrives.
    pub fn hold(&self, direction: Direction) {
        self.shared
            .control
            .send_modify(|control| control.held[way(direction)] = true);
    }

    /// Everything passes again: forgets all plans, wakes what is stalled or frozen. Faults of open connections that
    /// have not happened yet still do.
    pub fn heal(&self) {
        {
            let mut state = self.shared.lock();
            state.usual = Plan::pass();
            state.next.clear();
        }
        self.shared.control.send_modify(|control| {
            control.held = [false; 2];
            control.heals += 1;
        });
    }

    /// Cuts every open connection now.
    pub fn cut(&self, cut: Cut) {
        self.shared.control.send_modify(|control| {
            control.cuts += 1;
            control.last_cut = Some(cut);
        });
    }

    /// What the senders of one direction sent, before any fault, over all connections in the order of arrival, up to
    /// [`CAPTURE_MAX_BYTES`].
    #[must_use]
    pub fn captured(&self, direction: Direction) -> Vec<u8> {
        let state = self.shared.lock();
        match direction {
            Direction::ToUpstream => state.to_upstream.clone(),
            Direction::ToClient => state.to_client.clone(),
        }
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }
}

impl Drop for TcpFaultProxy {
    fn drop(&mut self) {
        // The set of connections lives in the task, and its drop aborts them.
        self.accepting.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn capture(&self, direction: Direction, bytes: &[u8]) {
        let mut state = self.lock();
        let kept = match direction {
            Direction::ToUpstream => &mut state.to_upstream,
            Direction::ToClient => &mut state.to_client,
        };
        let room = CAPTURE_MAX_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The lanes of the next connection.
    fn admit(&self) -> (Lane, Lane) {
        let mut state = self.lock();
        state.accepted += 1;
        let plan = state.next.pop_front().unwrap_or_else(|| state.usual.clone());
        let up = Lane::new(plan.to_upstream, next_random(&mut state.random));
        let down = Lane::new(plan.to_client, next_random(&mut state.random));
        (up, down)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let (up, down) = shared.admit();
                    connections.spawn(connect(client, Arc::clone(&shared), up, down));
                }
                // Out of descriptors, or a client gone before it was taken: the next may do better.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(mut client: TcpStream, shared: Arc<Shared>, mut up: Lane, mut down: Lane) {
    let mut control = shared.control.subscribe();
    control.mark_unchanged();
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else {
        reset(&client);
        return;
    };
    // Without this one-byte writes would leave as one segment.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        let cuts = control.borrow().cuts;
        tokio::select! {
            end = both(
                pump(&shared, Direction::ToUpstream, &mut up, client_in, server_out),
                pump(&shared, Direction::ToClient, &mut down, server_in, client_out),
            ) => end,
            end = cut(control, cuts) => end,
        }
    };
    match end {
        End::Finished => {}
        End::Close => close(client, server).await,
        End::Reset => {
            reset(&client);
            reset(&server);
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
        (End::Close | End::Reset, _) => first,
    }
}

async fn cut(mut control: watch::Receiver<Control>, seen: u64) -> End {
    match control.wait_for(|control| control.cuts > seen).await {
        Ok(control) => match control.last_cut {
            Some(Cut::Reset) => End::Reset,
            Some(Cut::Close) | None => End::Close,
        },
        // The proxy is being dropped.
        Err(_) => End::Reset,
    }
}

async fn pump(
    shared: &Shared,
    direction: Direction,
    lane: &mut Lane,
    mut source: ReadHalf<'_>,
    mut sink: WriteHalf<'_>,
) -> End {
    let mut control = shared.control.subscribe();
    let mut buffer = vec![0; READ_BYTES];
    if let Some(end) = carry_out(lane.open(), direction, &mut control, &mut sink).await {
        return end;
    }
    loop {
        thawed(direction, &mut control).await;
        let read = match source.read(&mut buffer).await {
            Ok(0) => {
                // The other side may be gone, which its own direction finds out.
                let _ = sink.shutdown().await;
                return End::Finished;
            }
            Ok(read) => read,
            // A reset goes through as a reset.
            Err(_) => return End::Reset,
        };
        let bytes = &buffer[..read];
        shared.capture(direction, bytes);
        if let Some(end) = carry_out(lane.push(bytes), direction, &mut control, &mut sink).await {
            return end;
        }
    }
}

async fn carry_out(
    steps: Vec<Step>,
    direction: Direction,
    control: &mut watch::Receiver<Control>,
    sink: &mut WriteHalf<'_>,
) -> Option<End> {
    for step in steps {
        match step {
            Step::Pause(pause) => tokio::time::sleep(pause).await,
            Step::Write(bytes) => {
                thawed(direction, control).await;
                if sink.write_all(&bytes).await.is_err() {
                    return Some(End::Reset);
                }
            }
            Step::Stall => healed(control).await,
            Step::Close => return Some(End::Close),
            Step::Reset => return Some(End::Reset),
        }
    }
    None
}

fn way(direction: Direction) -> usize {
    match direction {
        Direction::ToUpstream => 0,
        Direction::ToClient => 1,
    }
}

async fn thawed(direction: Direction, control: &mut watch::Receiver<Control>) {
    // An error means that the proxy is being dropped, which ends the connection elsewhere.
    let _ = control.wait_for(|control| !control.held[way(direction)]).await;
}

async fn healed(control: &mut watch::Receiver<Control>) {
    let before = control.borrow().heals;
    let _ = control.wait_for(|control| control.heals > before).await;
}

/// A close that loses nothing of what was written. Closing a socket with unread bytes in it resets the connection,
/// which would take from the peer what it has not read yet: so what still comes is read and thrown away.
async fn close(mut client: TcpStream, mut server: TcpStream) {
    let _ = (client.shutdown().await, server.shutdown().await);
    let (mut rest_of_client, mut rest_of_server) = (tokio::io::sink(), tokio::io::sink());
    let draining = async {
        tokio::join!(
            tokio::io::copy(&mut client, &mut rest_of_client),
            tokio::io::copy(&mut server, &mut rest_of_server)
        )
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, draining).await;
}

/// Makes the coming close of this socket a reset.
fn reset(stream: &TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
