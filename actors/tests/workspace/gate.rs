//! A way to an executor on which the client gets so many words in and no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

/// Longer than anything a client says in one write here.
const PIECE_BYTES: usize = 256 * 1024;

/// Passes everything towards the client, and from it only as many pieces as were allowed: what it said in one write. What it
/// does with `n` pieces it does with `n` round trips, whatever a clock says.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    allowed: Arc<Semaphore>,
    passed: Arc<AtomicUsize>,
    sizes: Arc<Mutex<Vec<usize>>>,
    task: JoinHandle<()>,
}

impl Gate {
    pub(crate) async fn before(upstream: SocketAddr, pieces: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let allowed = Arc::new(Semaphore::new(pieces));
        let (passed, sizes) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<usize>>>::default());
        let shared = (Arc::clone(&allowed), Arc::clone(&passed), Arc::clone(&sizes));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(upstream).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(down(server_in, client_out));
                tokio::spawn(up(client_in, server_out, shared.clone()));
            }
        });
        Self {
            address,
            allowed,
            passed,
            sizes,
            task,
        }
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.allowed.add_permits(1 << 20);
    }

    /// Pieces of the client's that have passed.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// Bytes of each piece that the client has said.
    pub(crate) async fn sizes(&self) -> Vec<usize> {
        self.sizes.lock().await.clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = (Arc<Semaphore>, Arc<AtomicUsize>, Arc<Mutex<Vec<usize>>>);

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, (allowed, passed, sizes): Shared) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        sizes.lock().await.push(read);
        let Ok(permit) = allowed.acquire().await else {
            return;
        };
        permit.forget();
        passed.fetch_add(1, Ordering::SeqCst);
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    tokio::io::copy(&mut from, &mut to).await.ok();
}
