//! How fast this machine is at what a remote command cannot do without.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Instant;

use tokio::process::Command;

use super::super::failure::Failure;
use super::progress::Progress;
use super::statistics::Sorted;

/// Bytes of one echo.
const ECHO_BYTES: usize = 64;
/// Samples of each kind.
const SAMPLES: usize = 200;
/// Syncs are slow where disks are.
const SYNCS: usize = 20;

/// Microseconds at the median.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Calibration {
    /// `true` started, and waited for, with nothing between.
    pub(crate) spawn_us: u64,
    /// 64 bytes to another thread and back, by TCP.
    pub(crate) echo_us: u64,
    /// 64 bytes at the end of a file in the temporary directory, and the file synced.
    pub(crate) sync_us: u64,
}

impl Calibration {
    /// Takes about a quarter of a second.
    ///
    /// # Errors
    /// When `true` cannot be started, or loopback is not to be had.
    pub(crate) async fn take(program: &str) -> Result<Self, Failure> {
        let mut progress = Progress::begin("calibration", 2 * SAMPLES);
        let mut spawns = Vec::with_capacity(SAMPLES);
        for done in 0..SAMPLES {
            let begun = Instant::now();
            let mut command = Command::new(program);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let outcome = command.output().await;
            outcome.map_err(|error| {
                Failure::because("bench", &format!("{program} cannot be started here"), &error)
            })?;
            spawns.push(micros(begun));
            progress.at(done);
        }
        let echoes =
            echoes().map_err(|error| Failure::because("bench", "an echo over loopback failed", &error))?;
        let syncs = syncs()
            .map_err(|error| Failure::because("bench", "a temporary file could not be synced", &error))?;
        Ok(Self {
            spawn_us: spawns.into_iter().collect::<Sorted>().median(),
            echo_us: echoes.median(),
            sync_us: syncs.median(),
        })
    }
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn echoes() -> std::io::Result<Sorted> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::Builder::new()
        .name("bench-echo".into())
        .spawn(move || {
            let mut bytes = [0; ECHO_BYTES];
            while far.read_exact(&mut bytes).is_ok() && far.write_all(&bytes).is_ok() {}
        })?;
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        let mut bytes = [7; ECHO_BYTES];
        near.write_all(&bytes)?;
        near.read_exact(&mut bytes)?;
        samples.push(micros(begun));
    }
    drop(near);
    // It ends with the connection.
    drop(echo.join());
    Ok(samples.into_iter().collect())
}

fn syncs() -> std::io::Result<Sorted> {
    let mut file = tempfile::tempfile()?;
    let mut samples = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[7; ECHO_BYTES])?;
        file.sync_data()?;
        samples.push(micros(begun));
    }
    Ok(samples.into_iter().collect())
}
