//! What a path's round trip takes by itself: bytes there and back, and nothing behind it.
//!
//! A proxy that keeps bytes for 10 ms each way makes a round trip of somewhat more than 20: its threads wake up four
//! times. That is the path's and nobody's who is measured over it, so a round trip is what an echo takes, and not what
//! was asked for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::paths::Paths;
use super::peer::{Trouble, within};

/// Bytes of one echo.
const ECHO_BYTES: usize = 64;
/// Connections that are answered: one a latency.
const CONNECTIONS_MAX: usize = 64;
/// The longest that one echo is waited for.
const ECHO_LIMIT: Duration = Duration::from_secs(20);

/// Somebody who says again what is said to him, and ends with the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EchoServer(SocketAddr);

impl EchoServer {
    pub(crate) fn start() -> Result<Self, Trouble> {
        let server = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| {
            let address = listener.local_addr()?;
            let thread = || std::thread::Builder::new().name("bench-echo".into());
            thread().spawn(move || {
                for far in listener.incoming().take(CONNECTIONS_MAX).flatten() {
                    let answers = thread().spawn(move || answer(far));
                    if let Err(error) = answers {
                        tracing::debug!(%error, "an echo is not answered");
                    }
                }
            })?;
            Ok(Self(address))
        });
        server.map_err(|error| Trouble::failed("an echo by TCP", error))
    }
}

fn answer(mut far: std::net::TcpStream) {
    let mut bytes = [0; ECHO_BYTES];
    if far.set_nodelay(true).is_ok() {
        while far.read_exact(&mut bytes).is_ok() && far.write_all(&bytes).is_ok() {}
    }
}

/// A connection to that one over a path.
#[derive(Debug)]
pub(crate) struct PathEcho(TcpStream);

impl PathEcho {
    pub(crate) async fn begin(
        server: EchoServer,
        paths: &Paths,
        round_trip: Duration,
    ) -> Result<Self, Trouble> {
        let near = TcpStream::connect(paths.to(server.0, round_trip)?);
        let near = near.await.and_then(|near| near.set_nodelay(true).map(|()| near));
        near.map(Self)
            .map_err(|error| Trouble::failed("an echo by TCP", error))
    }

    /// What so many echoes take, one after the other, in microseconds.
    pub(crate) async fn take(&mut self, samples: usize) -> Result<Vec<f64>, Trouble> {
        let mut taken = Vec::with_capacity(samples);
        for _ in 0..samples {
            let begun = Instant::now();
            let there_and_back = async {
                let mut bytes = [7; ECHO_BYTES];
                self.0.write_all(&bytes).await?;
                self.0.read_exact(&mut bytes).await
            };
            let echoed = async {
                let echoed = there_and_back.await;
                echoed.map_err(|error| Trouble::failed("an echo by TCP", error))
            };
            within("an echo by TCP", ECHO_LIMIT, echoed).await?;
            taken.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_echo_over_a_slow_path_takes_what_the_path_takes() {
        let server = EchoServer::start().unwrap();
        let paths = Paths::default();
        let mut medians = [0, 40].map(|_| 0.0);
        for (median, ms) in medians.iter_mut().zip([0, 40]) {
            let mut echo = PathEcho::begin(server, &paths, Duration::from_millis(ms))
                .await
                .unwrap();
            let mut taken = echo.take(3).await.unwrap();
            taken.sort_by(f64::total_cmp);
            *median = taken[1];
        }
        assert!(medians[0] < medians[1] && medians[1] >= 40_000.0, "{medians:?}");
    }
}
