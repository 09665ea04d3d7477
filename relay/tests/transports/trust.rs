//! TLS: who is believed, and what is said to who is not.

use std::io;

use dwell_relay::driver::net::{self, Listener};
use dwell_relay::driver::tls::{Certificate, TlsError, Trust};
use dwell_relay::driver::{Connection, Listen as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Authority, soon};

async fn dialled(
    address: &str,
    trust: &Trust,
    listener: &mut Listener,
) -> (io::Result<Connection>, Option<String>) {
    let mut refused = None;
    let dial = net::dial(address, trust);
    let mut dial = std::pin::pin!(dial);
    let outcome = soon(async {
        loop {
            tokio::select! {
                outcome = &mut dial => return outcome,
                accepted = listener.accept() => refused = accepted.err().map(|error| error.to_string()),
            }
        }
    })
    .await;
    (outcome, refused)
}

fn cause(error: &io::Error) -> &TlsError {
    error
        .get_ref()
        .and_then(|cause| cause.downcast_ref())
        .expect("a TLS error")
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_was_not_named_is_refused_with_advice() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut listener = Listener::bind("127.0.0.1:0", Some(ours.certificate()))
        .await
        .unwrap();
    for scheme in ["tls", "wss"] {
        let address = format!("{scheme}://{}", listener.address());
        for trust in [theirs.trust(), Trust::default()] {
            let (outcome, _) = dialled(&address, &trust, &mut listener).await;
            let error = outcome.unwrap_err();
            assert!(matches!(cause(&error), TlsError::Untrusted { .. }), "{error}");
            assert!(error.to_string().contains("--tls-ca"), "{error}");
        }
        // Positive control: the same with the authority that issued it.
        assert!(dialled(&address, &ours.trust(), &mut listener).await.0.is_ok());
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let mut listener = Listener::bind("127.0.0.2:0", Some(authority.certificate()))
        .await
        .unwrap();
    let address = format!("wss://{}/", listener.address());
    let (outcome, _) = dialled(&address, &authority.trust(), &mut listener).await;
    let error = outcome.unwrap_err();
    assert!(matches!(cause(&error), TlsError::Untrusted { .. }), "{error}");
}

#[tokio::test]
async fn tls_with_a_listener_that_has_none_says_so_on_both_sides() {
    let authority = Authority::new();
    let mut listener = Listener::bind("127.0.0.1:0", None).await.unwrap();
    let address = format!("wss://{}/", listener.address());
    let mut dial = tokio::spawn(async move { net::dial(&address, &authority.trust()).await });
    let refused = soon(listener.accept()).await.unwrap_err();
    assert!(refused.to_string().contains("no certificate"), "{refused}");
    let error = soon(&mut dial).await.unwrap().unwrap_err();
    assert!(matches!(cause(&error), TlsError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn a_websocket_where_there_is_none_says_what_to_check() {
    let answer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/", answer.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = answer.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
        stream
    };
    let trust = Trust::default();
    let (outcome, stream) = soon(async { tokio::join!(net::dial(&address, &trust), serve) }).await;
    drop(stream);
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("check the scheme"), "{error}");
}

#[tokio::test]
async fn one_port_with_a_certificate_serves_all_four() {
    let authority = Authority::new();
    let mut listener = Listener::bind("127.0.0.1:0", Some(authority.certificate()))
        .await
        .unwrap();
    let trust = authority.trust();
    for scheme in crate::support::SCHEMES {
        let address = format!("{scheme}://{}", listener.address());
        let talk = async {
            let mut near = net::dial(&address, &trust).await.unwrap();
            near.writer.write_all(b"dwell").await.unwrap();
            near.reader.read_u8().await.unwrap()
        };
        let serve = async {
            let mut far = listener.accept().await.unwrap();
            let mut got = [0; 5];
            far.reader.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"dwell");
            far.writer.write_all(b"!").await.unwrap();
            far
        };
        let (answer, far) = soon(async { tokio::join!(talk, serve) }).await;
        assert_eq!(answer, b'!', "{scheme}");
        assert_eq!(
            far.peer.contains("TLS"),
            matches!(scheme, "tls" | "wss"),
            "{}",
            far.peer
        );
        assert_eq!(
            far.peer.contains("WebSocket"),
            matches!(scheme, "ws" | "wss"),
            "{}",
            far.peer
        );
    }
}

/// T-16 (rustls 2024-0336): a close_notify in the middle of the handshake ends it; nothing spins.
#[tokio::test]
async fn a_close_notify_during_the_handshake_ends_it() {
    // The client's hello of a real one, caught by a listener that only listens.
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tls://localhost:{}", trap.local_addr().unwrap().port());
    let dial = tokio::spawn(async move { net::dial(&address, &Trust::default()).await });
    let (mut caught, _) = soon(trap.accept()).await.unwrap();
    let mut head = [0; 5];
    caught.read_exact(&mut head).await.unwrap();
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    caught.read_exact(&mut hello).await.unwrap();
    drop(caught);
    assert!(soon(dial).await.unwrap().is_err());

    let authority = Authority::new();
    let mut listener = Listener::bind("127.0.0.1:0", Some(authority.certificate()))
        .await
        .unwrap();
    let mut client = TcpStream::connect(listener.local_addr()).await.unwrap();
    client.write_all(&head).await.unwrap();
    client.write_all(&hello).await.unwrap();
    // An alert: warning, close_notify. The connection itself stays open.
    client.write_all(&[21, 3, 3, 0, 2, 1, 0]).await.unwrap();
    let begun = std::time::Instant::now();
    let ended = soon(listener.accept()).await.unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted, "{ended}");
    assert!(
        begun.elapsed() < net::OPENING_TIMEOUT / 2,
        "at once, not at the deadline"
    );
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new();
    let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
    let missing = authority.file("missing.pem");
    let told = |error: TlsError| error.to_string();
    assert!(told(Certificate::load(&missing, &key).unwrap_err()).contains("missing.pem"));
    assert!(told(Certificate::load(&cert, &missing).unwrap_err()).contains("missing.pem"));
    assert!(told(Certificate::load(&key, &key).unwrap_err()).contains("no certificate"));
    assert!(told(Certificate::load(&cert, &cert).unwrap_err()).contains("cert.pem"));
    let other = Authority::new();
    let mixed = Certificate::load(&cert, &other.file("key.pem")).unwrap_err();
    assert!(matches!(mixed, TlsError::Unusable(_)), "{mixed}");
    assert!(told(Trust::load(&missing).unwrap_err()).contains("missing.pem"));
}
