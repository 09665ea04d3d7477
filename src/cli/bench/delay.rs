//! A proxy on loopback that keeps every byte for a fixed time, both ways, and nothing back for longer.
//!
//! Threads and blocking sockets: a runtime's timers are a millisecond coarse, which would be what is measured.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Pieces of one direction that may be on their way; then its sender waits.
const PIECES_MAX: usize = 1_024;
/// Bytes of one piece at most.
const PIECE_BYTES: usize = 64 * 1024;
/// Connections that are carried, one after the other or at a time: links that die are dialled again, and some clients
/// come anew for each command.
const CONNECTIONS_MAX: usize = 4_096;

/// Bytes, and when they are due at the other end.
type Piece = (Instant, Vec<u8>);

/// Carries connections to `upstream` from the address it returns. Its threads end with the connections, and with the
/// process.
///
/// # Errors
/// When there is no port or no thread.
pub(crate) fn start(upstream: SocketAddr, by: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new()
        .name("bench-proxy".into())
        .spawn(move || {
            for client in listener.incoming().take(CONNECTIONS_MAX).flatten() {
                if let Err(error) = carry(client, upstream, by) {
                    tracing::debug!(%error, "a connection is not carried");
                }
            }
        })?;
    Ok(address)
}

fn carry(client: TcpStream, upstream: SocketAddr, by: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    direction(client.try_clone()?, server.try_clone()?, by)?;
    direction(server, client, by)
}

fn direction(from: TcpStream, to: TcpStream, by: Duration) -> std::io::Result<()> {
    let (pieces, due) = sync_channel(PIECES_MAX);
    let thread = || std::thread::Builder::new().name("bench-proxy".into());
    thread().spawn(move || take(from, &pieces, by))?;
    thread().spawn(move || give(to, &due))?;
    Ok(())
}

fn take(mut from: TcpStream, pieces: &SyncSender<Piece>, by: Duration) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if pieces
            .send((Instant::now() + by, buffer[..read].to_vec()))
            .is_err()
        {
            break;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "to wait is what this thread is for")]
fn give(mut to: TcpStream, due: &Receiver<Piece>) {
    for (at, bytes) in due {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The other side is told, as it would be without a proxy; one that is gone already knows.
    drop(to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_late_in_order_and_no_later_for_coming_close_together() {
        let by = Duration::from_millis(300);
        let upstream = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = start(upstream.local_addr().unwrap(), by).unwrap();
        let mut near = TcpStream::connect(address).unwrap();
        let (mut far, _) = upstream.accept().unwrap();
        let begun = Instant::now();
        for byte in 0..5_u8 {
            near.write_all(&[byte]).unwrap();
        }
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        let took = begun.elapsed();
        assert_eq!(bytes, [0, 1, 2, 3, 4]);
        assert!(took >= by, "{took:?}");
        // One after the other they would take five times as long; a busy machine may take as long as it likes but that.
        assert!(took < by * 5, "{took:?}");
        drop(near);
        assert_eq!(far.read(&mut bytes).unwrap(), 0, "the end comes too");
    }
}
