//! What is asked, and what is answered.

use std::sync::Arc;

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Harness, Target};
use dwell_actors::http_client::HttpAsk;
use dwell_messages::ErrorCode;
use dwell_messages::http::Redirects;
use dwell_relay::driver::tls::Trust;
use dwell_testkit::{Authority, Cut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::site::{Site, header, whole};
use crate::support::{bounded, copy, keypair};

#[tokio::test]
async fn a_request_goes_out_as_it_was_asked_for_and_its_answer_comes_as_it_was() {
    let site = Site::start().await;
    let ask = HttpAsk {
        method: "PURGE".into(),
        headers: vec![
            header("X-A", "1", None),
            header("x-a", "2", None),
            header("X-Path", "is ", Some("PATH")),
        ],
        body: "hello".into(),
        ..site.get("/echo?q=1")
    };
    let exchange = site.http().request(ask).await.unwrap();
    assert_eq!(exchange.status(), 200);
    let told = String::from_utf8(whole(exchange).await).unwrap();
    assert!(told.starts_with("PURGE /echo?q=1 HTTP/1.1\r\n"), "{told}");
    let path = std::env::var("PATH").unwrap();
    for line in [
        "x-a: 1",
        "x-a: 2",
        &format!("x-path: is {path}"),
        "content-length: 5",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    assert!(told.ends_with("\r\n\r\nhello"));

    let odd = site.http().request(site.get("/headers")).await.unwrap();
    let headers = odd.headers().iter();
    let headers: Vec<_> = headers
        .map(|header| (header.name.as_str(), header.value.as_slice()))
        .collect();
    assert_eq!(
        headers[..3],
        [("x-two", &b"a"[..]), ("x-two", b"b"), ("x-latin", b"caf\xe9")]
    );
    assert_eq!(whole(odd).await, b"\x1f\x8bnone", "nothing is decoded");
    let empty = site.http().request(site.get("/empty")).await.unwrap();
    assert_eq!((empty.status(), whole(empty).await.len()), (204, 0));
    site.end().await;
}

/// Sixteen MiB go in 64 parts, and come back in as many as the server likes.
#[tokio::test]
async fn a_large_body_goes_and_comes_whole_and_a_larger_one_is_refused() {
    let site = Site::start().await;
    let body: Vec<u8> = (0..16 << 20).map(|at: u32| (at % 251) as u8).collect();
    let ask = HttpAsk {
        method: "POST".into(),
        body: body.clone().into(),
        ..site.get("/echo")
    };
    let echo = site.http().request(ask.clone()).await.unwrap();
    assert!(whole(echo).await.ends_with(&body));
    let larger = HttpAsk {
        body: vec![0; (16 << 20) + 1].into(),
        ..ask
    };
    let refused = site.http().request(larger).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    site.end().await;
}

#[tokio::test]
async fn redirects_are_followed_or_are_the_answer_and_ten_are_the_most() {
    let site = Site::start().await;
    let end = site.http().request(site.get("/redirect/10")).await.unwrap();
    assert_eq!(whole(end).await, b"end");
    for path in ["/redirect/11", "/loop"] {
        let error = site.http().request(site.get(path)).await.unwrap_err();
        assert_eq!(
            (error.code, &*error.message),
            (ErrorCode::HttpFailed, "too many redirects")
        );
    }
    let stop = HttpAsk {
        redirects: Redirects::Stop,
        ..site.get("/loop")
    };
    let answer = site.http().request(stop).await.unwrap();
    assert_eq!((answer.status(), whole(answer).await), (302, b"round".to_vec()));
    site.end().await;
}

#[tokio::test]
async fn what_fails_is_told_by_its_kind() {
    let site = Site::start().await;
    for (ask, code) in [
        (HttpAsk::get("ftp://127.0.0.1/"), ErrorCode::BadRequest),
        (HttpAsk::get("nonsense"), ErrorCode::BadRequest),
        (HttpAsk::get("http://127.0.0.1:1/"), ErrorCode::HttpFailed),
        // It speaks no TLS.
        (
            HttpAsk::get(format!("https://{}/", site.world.executor.local_addr().unwrap())),
            ErrorCode::HttpFailed,
        ),
    ] {
        let error = bounded("an error", site.http().request(ask)).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
    }
    let mut cut = site.http().request(site.get("/cut")).await.unwrap();
    assert_eq!(cut.next().await.unwrap().unwrap(), "abc");
    assert_eq!(cut.next().await.unwrap_err().code, ErrorCode::HttpFailed);
    assert_eq!(cut.next().await, Ok(None), "nothing comes after an error");
    site.end().await;
}

#[tokio::test]
async fn a_body_survives_links_that_break_under_it() {
    let site = Site::start().await;
    let exchange = site.http().request(site.get("/large/20000000")).await.unwrap();
    let before = site.world.proxy.accepted();
    let mut exchange = exchange;
    let (mut length, mut parts) = (0, 0);
    while let Some(part) = bounded("a part of a body", exchange.next()).await.unwrap() {
        length += part.len();
        parts += 1;
        if parts % 40 == 0 {
            site.world.proxy.cut(Cut::Reset);
        }
    }
    assert_eq!(length, 20_000_000);
    assert!(
        site.world.proxy.accepted() > before,
        "the control: links were lost"
    );
    site.end().await;
}

/// The URL of a server that proves itself by what the authority issued, and answers everything with `hi`.
async fn proven(authority: &Authority) -> String {
    let chain = CertificateDer::pem_file_iter(authority.file("cert.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.file("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever does not trust it goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    format!("https://{address}/")
}

#[tokio::test]
async fn a_server_proves_its_name_by_authorities_that_are_trusted() {
    let authority = Authority::new().unwrap();
    let (url, client) = (proven(&authority).await, keypair());
    for trusts in [false, true] {
        let builder = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.public());
        let builder = if trusts {
            builder.http_trust(Trust::load(&authority.file("ca.pem")).unwrap())
        } else {
            builder
        };
        let executor = builder.serve().await.unwrap();
        let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
        let harness = Harness::builder()
            .identity(copy(&client))
            .connect(target)
            .await
            .unwrap();
        let answer = bounded("an answer", harness.http().request(HttpAsk::get(&url))).await;
        if trusts {
            assert_eq!(whole(answer.unwrap()).await, b"hi");
        } else {
            let error = answer.unwrap_err();
            assert!(
                error.code == ErrorCode::HttpFailed && error.message.contains("not trusted"),
                "{error}"
            );
        }
        harness.shutdown().await;
        executor.shutdown().await;
    }
}
