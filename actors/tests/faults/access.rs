//! What a key may do: refused calls and clients leave a line in the audit file, and nothing else.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::access::{PAIRING_LIFE, PairingOffer};
use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, ConnectError, Harness, RunError, Target};
use dwell_actors::keys::{AuthorizedClients, Grant, PairingCode};
use dwell_actors::relay_server::Relay;
use dwell_messages::{ErrorCode, ExitStatus, PublicKey, StreamId};
use dwell_relay::handshake::Initiator;
use dwell_relay::{Dialer, OsRandomness, Preamble, StaticKeypair, fingerprint};
use dwell_testkit::{TempHome, wait_until};

use crate::support::{
    BOUND, answer_to, assert_works, bounded, connect_as, copy, frame_behind, keypair, shell, started, wait,
};

/// A revoked key's sessions are over within this, and their commands with them.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

/// An executor with a list and an audit file.
struct Guarded {
    executor: ExecutorHandle,
    client: StaticKeypair,
    home: TempHome,
}

impl Guarded {
    /// Lists its client with these options.
    async fn with(options: &str) -> Self {
        Self::start(|client| format!("{client} {options}\n"), None).await
    }

    async fn start(list: impl Fn(PublicKey) -> String, pairing: Option<PairingOffer>) -> Self {
        let (home, client) = (TempHome::new().unwrap(), keypair());
        std::fs::write(home.dwell().join("authorized_clients"), list(client.public())).unwrap();
        let mut builder = Executor::builder()
            .listen("127.0.0.1:0")
            .authorized_clients(home.dwell().join("authorized_clients"))
            .audit(home.dwell().join("audit.jsonl"));
        if let Some(offer) = pairing {
            builder = builder.pairing(offer);
        }
        Self {
            executor: builder.serve().await.unwrap(),
            client,
            home,
        }
    }

    fn list(&self) -> PathBuf {
        self.home.dwell().join("authorized_clients")
    }

    fn target(&self) -> Target {
        Target::direct(self.executor.local_addr().unwrap(), self.executor.public_key())
    }

    async fn connect(&self) -> Result<Harness, ConnectError> {
        connect_as(&self.client, self.target()).await
    }

    async fn harness(&self) -> Harness {
        self.connect().await.unwrap()
    }

    fn marker(&self) -> PathBuf {
        self.home.path().join("executed")
    }

    /// Waits for a line about this client with these values.
    async fn audited(&self, client: &PublicKey, values: &[(&str, &str)]) {
        let wanted = |line: &serde_json::Value| {
            line["client"] == fingerprint(client)
                && line["handshake"].as_str().is_some_and(|hash| hash.len() == 64)
                && values.iter().all(|(name, value)| line[*name] == *value)
        };
        let path = self.home.dwell().join("audit.jsonl");
        let found = wait_until(BOUND, || lines(&path).iter().any(wanted)).await;
        assert!(found.is_ok(), "no {values:?} in {:#?}", lines(&path));
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be on its way.
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn touch(path: &Path) -> Command {
    Command::new("/usr/bin/touch").arg(path)
}

/// It was refused for want of this scope.
fn lacks(outcome: Result<impl std::fmt::Debug, RunError>, scope: &str) {
    match outcome {
        Err(RunError::Refused(error)) => {
            assert_eq!(error.code, ErrorCode::PermissionDenied, "{error}");
            assert!(
                error.message.contains(&format!("lacks the scope {scope}")),
                "{error}"
            );
        }
        other => panic!("not refused for want of {scope}: {other:?}"),
    }
}

/// C-14: whoever is not listed is refused, executes nothing, and is written down.
#[tokio::test]
async fn an_unauthorized_key_executes_nothing_and_is_audited() {
    let guarded = Guarded::with("").await;
    let stranger = keypair();
    let error = connect_as(&stranger, guarded.target()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::HandshakeRefused { .. }),
        "{error:?}"
    );
    let refused = [
        ("what", "authorize"),
        ("result", "refused"),
        ("why", "the key is not listed"),
    ];
    guarded.audited(&stranger.public(), &refused).await;
    assert_eq!(guarded.executor.sessions(), 0);
    // Positive control: the same connection and call by the listed key.
    let harness = guarded.harness().await;
    wait(harness.exec(touch(&guarded.marker()))).await.unwrap();
    assert!(guarded.marker().exists());
    guarded
        .audited(
            &guarded.client.public(),
            &[("what", "session_begin"), ("result", "ok")],
        )
        .await;
    harness.shutdown().await;
    guarded
        .audited(&guarded.client.public(), &[("what", "session_end")])
        .await;
}

#[tokio::test]
async fn an_expired_key_executes_nothing_and_is_audited() {
    let guarded = Guarded::with("expires=2020-01-01").await;
    let error = guarded.connect().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::HandshakeRefused { .. }),
        "{error:?}"
    );
    let refused = [
        ("what", "authorize"),
        ("result", "refused"),
        ("why", "the key has expired"),
    ];
    guarded.audited(&guarded.client.public(), &refused).await;
    // Positive control: the same line with its time to come.
    let line = format!("{} expires=9999-01-01\n", guarded.client.public());
    relist(&guarded, line);
    assert_works(&guarded.harness().await).await;
}

/// C-15: a key taken off the list loses its live session and what that runs within a second, and is refused at once.
#[tokio::test]
async fn a_revoked_key_loses_its_live_session_within_a_second() {
    let mut all = Vec::new();
    // A machine that others keep busy is looked at again.
    while all.last().is_none_or(|took| *took >= REVOKED_WITHIN) {
        assert!(all.len() < 3, "{all:?}");
        all.push(revoked_after().await);
    }
}

async fn revoked_after() -> Duration {
    let guarded = Guarded::with("").await;
    let harness = guarded.harness().await;
    let mut run = harness.exec(Command::new("sleep").arg("1000"));
    let pid = started(&mut run).await;
    // Positive control: a change that leaves the key in leaves the session alone.
    AuthorizedClients::add(&guarded.list(), &keypair().public(), "").unwrap();
    assert_works(&harness).await;

    relist(&guarded, "# nobody\n");
    let revoked = Instant::now();
    let refused = guarded.connect().await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::HandshakeRefused { .. }),
        "{refused:?}"
    );
    match wait(run).await {
        Err(RunError::Lost(why)) => assert!(why.contains("no longer authorized"), "{why}"),
        other => panic!("{other:?}"),
    }
    let took = revoked.elapsed();
    let there = PathBuf::from(format!("/proc/{pid}"));
    wait_until(BOUND, || !there.exists()).await.unwrap();
    wait_until(BOUND, || guarded.executor.sessions() == 0)
        .await
        .unwrap();
    let ended = [("what", "session_end"), ("why", "revoked")];
    guarded.audited(&guarded.client.public(), &ended).await;
    took
}

/// Puts another list in place, whole: who looks meanwhile does not see half of it.
fn relist(guarded: &Guarded, text: impl AsRef<[u8]>) {
    let beside = guarded.list().with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, guarded.list()).unwrap();
}

/// C-16: each call that lacks its scope is refused and does nothing, and the same call with the scope works.
#[tokio::test]
async fn a_start_needs_spawn_and_a_terminal_needs_pty() {
    let guarded = Guarded::with("scopes=stdin+signal+attach+pty+files+admin").await;
    let harness = guarded.harness().await;
    lacks(wait(harness.exec(touch(&guarded.marker()))).await, "spawn");
    let refused = [
        ("what", "call"),
        ("result", "refused"),
        ("method", "Process/Start"),
        ("program", "touch"),
        ("why", "this key lacks the scope spawn"),
    ];
    guarded.audited(&guarded.client.public(), &refused).await;
    let audit = std::fs::read_to_string(guarded.home.dwell().join("audit.jsonl")).unwrap();
    assert!(
        !audit.contains("/usr/bin") && !audit.contains("executed"),
        "no path and no argument: {audit}"
    );
    assert!(!guarded.marker().exists());

    let guarded = Guarded::with("scopes=spawn").await;
    let harness = guarded.harness().await;
    let terminal = touch(&guarded.marker()).pty(24, 80);
    lacks(wait(harness.exec(terminal.clone())).await, "pty");
    assert!(!guarded.marker().exists());
    // Positive control, on the same session: what changes is the list.
    let line = format!("{} scopes=spawn+pty\n", guarded.client.public());
    relist(&guarded, line);
    let started = async {
        // Each look is a round trip.
        while wait(harness.exec(terminal.clone())).await.is_err() {}
    };
    bounded("the list's effect", started).await;
    assert!(guarded.marker().exists());
}

/// C-16.
#[tokio::test]
async fn input_signals_resizes_and_reads_need_their_scopes() {
    let restricted = Guarded::with("scopes=spawn").await;
    let harness = restricted.harness().await;
    let mut run = harness.exec(shell("cat > /dev/null; exit 3").stdin_piped());
    let pid = started(&mut run).await;
    lacks(run.write_stdin(Bytes::from_static(b"x")).await, "stdin");
    lacks(run.signal(15).await, "signal");
    lacks(run.stop(Duration::ZERO).await, "signal");
    lacks(run.resize(10, 10).await, "pty");
    lacks(run.read(0, 1_000, Duration::ZERO).await, "attach");
    assert!(PathBuf::from(format!("/proc/{pid}")).exists());
    // To end the input is part of having started it.
    run.close_stdin().await.unwrap();
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Code(3));
    let methods = ["Write", "Signal", "Terminate", "Resize", "Read"];
    for method in methods.map(|method| format!("Process/{method}")) {
        restricted
            .audited(
                &restricted.client.public(),
                &[("what", "call"), ("method", &method)],
            )
            .await;
    }

    let free = Guarded::with("").await;
    let harness = free.harness().await;
    let mut run = harness.exec(shell("stty -echo; read x; exit 3").pty(24, 80));
    started(&mut run).await;
    run.resize(10, 10).await.unwrap();
    run.read(0, 1_000, Duration::ZERO).await.unwrap();
    run.signal(0).await.ok();
    run.write_stdin(Bytes::from_static(b"x\n")).await.unwrap();
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Code(3));
    let mut run = harness.exec(Command::new("sleep").arg("1000"));
    started(&mut run).await;
    run.signal(15).await.unwrap();
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(15));
}

#[tokio::test]
async fn a_key_without_scopes_may_look_and_nothing_else() {
    let guarded = Guarded::with("scopes=none").await;
    let harness = guarded.harness().await;
    harness.environment_info().await.unwrap();
    lacks(wait(harness.exec(touch(&guarded.marker()))).await, "spawn");
    assert!(!guarded.marker().exists());
}

#[tokio::test]
async fn caps_hold_for_all_sessions_of_a_key_and_come_free_again() {
    let guarded = Guarded::with("max-sessions=2 max-processes=1").await;
    let (first, second) = (guarded.harness().await, guarded.harness().await);
    let mut holder = first.exec(Command::new("sleep").arg("1000"));
    started(&mut holder).await;
    match wait(second.exec(touch(&guarded.marker()))).await {
        Err(RunError::Refused(error)) => {
            assert_eq!((error.code, error.limit), (ErrorCode::PermissionDenied, Some(1)));
        }
        other => panic!("{other:?}"),
    }
    assert!(!guarded.marker().exists());
    // The third session's link comes up, and is told why it ends.
    let third = guarded.harness().await;
    match wait(third.exec(touch(&guarded.marker()))).await {
        Err(RunError::Lost(why) | RunError::NotStarted(why)) => {
            assert!(why.contains("2 sessions") || why.contains("gone"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!guarded.marker().exists());
    holder.stop(Duration::from_millis(10)).await.unwrap();
    wait(holder).await.unwrap();
    for _ in 0..20 {
        wait(second.exec(touch(&guarded.marker()))).await.unwrap();
    }
    first.shutdown().await;
    wait_until(BOUND, || guarded.executor.sessions() == 1)
        .await
        .unwrap();
    assert_works(&guarded.harness().await).await;
}

fn offer(options: &str) -> (PairingOffer, PairingCode) {
    offer_at(Instant::now(), options)
}

fn offer_at(made: Instant, options: &str) -> (PairingOffer, PairingCode) {
    let code = PairingCode::generate(&mut OsRandomness::new()).unwrap();
    let offer = PairingOffer::new(made, &code, Grant::parse(options).unwrap());
    (offer, code)
}

#[tokio::test]
async fn a_code_of_ten_minutes_ago_lists_nobody() {
    // A machine that has not run that long has no such moment.
    let Some(made) = Instant::now().checked_sub(PAIRING_LIFE) else {
        return;
    };
    let (offer, code) = offer_at(made, "");
    let guarded = Guarded::start(|_| String::new(), Some(offer)).await;
    let refused = present(&guarded.client, &code, guarded.target())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ConnectError::HandshakeRefused { .. }),
        "{refused:?}"
    );
    let audited = [("what", "pair"), ("result", "refused"), ("why", "code expired")];
    guarded.audited(&guarded.client.public(), &audited).await;
    assert_eq!(std::fs::read_to_string(guarded.list()).unwrap(), "");
}

async fn present(
    client: &StaticKeypair,
    code: &PairingCode,
    target: Target,
) -> Result<Harness, ConnectError> {
    let builder = Harness::builder()
        .identity(copy(client))
        .authorization(code.authorization());
    bounded("pairing", builder.connect(target)).await
}

#[tokio::test]
async fn a_one_time_code_lists_its_first_client_and_nobody_else() {
    let (offer, code) = offer("scopes=spawn");
    let guarded = Guarded::start(|_| String::new(), Some(offer)).await;
    let refused = guarded.connect().await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::HandshakeRefused { .. }),
        "{refused:?}"
    );

    let wrong = PairingCode::generate(&mut OsRandomness::new()).unwrap();
    let refused = present(&guarded.client, &wrong, guarded.target())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ConnectError::HandshakeRefused { .. }),
        "{refused:?}"
    );
    let audited = [("what", "pair"), ("result", "refused"), ("why", "wrong code")];
    guarded.audited(&guarded.client.public(), &audited).await;

    let harness = present(&guarded.client, &code, guarded.target()).await.unwrap();
    wait(harness.exec(touch(&guarded.marker()))).await.unwrap();
    assert!(guarded.marker().exists());
    let line = std::fs::read_to_string(guarded.list()).unwrap();
    assert_eq!(
        line,
        format!("{} scopes=spawn # paired\n", guarded.client.public())
    );
    let audited = [("what", "pair"), ("result", "ok")];
    guarded.audited(&guarded.client.public(), &audited).await;
    // From now on the key alone will do.
    assert!(guarded.connect().await.is_ok());

    let second = keypair();
    let refused = present(&second, &code, guarded.target()).await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::HandshakeRefused { .. }),
        "{refused:?}"
    );
    let audited = [("what", "pair"), ("result", "refused"), ("why", "code used")];
    guarded.audited(&second.public(), &audited).await;
}

#[tokio::test]
async fn of_many_clients_with_one_code_at_once_one_is_listed_through_the_relay() {
    let (offer, code) = offer("");
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let executor = Executor::builder()
        .relay(relay.local_addr())
        .pairing(offer)
        .serve()
        .await
        .unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    let target = Target::relay(relay.local_addr(), executor.public_key());
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let (code, target) = (code.clone(), target.clone());
            tokio::spawn(async move {
                let client = keypair();
                present(&client, &code, target)
                    .await
                    .map(|harness| (client, harness))
            })
        })
        .collect();
    let mut paired = Vec::new();
    for attempt in attempts {
        paired.extend(attempt.await.unwrap().ok());
    }
    assert_eq!(paired.len(), 1);
    assert_works(&paired[0].1).await;
}

/// A first message with this authorization, as a hello of its own making: bodies that dwell would not write too.
fn opening_with(client: &StaticKeypair, executor: PublicKey, authorization: &[u8]) -> Vec<u8> {
    let preamble = Preamble::new(Dialer::Harness, executor, StreamId([7; 16]), &[]).unwrap();
    let mut hello = b"\x82\xactimestamp_ms\x01\xadauthorization\xc5".to_vec();
    hello.extend(u16::try_from(authorization.len()).unwrap().to_be_bytes());
    hello.extend(authorization);
    let mut rng = OsRandomness::new();
    let (_, message) = Initiator::start(client, executor, &preamble.encode(), &hello, &mut rng).unwrap();
    frame_behind(&preamble, &message)
}

/// C-18: authorization of every length and of any bytes gets the same answer as garbage, and is no try at the code.
#[tokio::test]
async fn wrong_used_and_odd_authorizations_get_the_same_bytes_as_garbage() {
    let (offer, code) = offer("");
    let guarded = Guarded::start(|_| String::new(), Some(offer)).await;
    let executor = guarded.executor.public_key();
    let address = guarded.executor.local_addr().unwrap().parse().unwrap();
    let preamble = Preamble::new(Dialer::Harness, executor, StreamId([7; 16]), &[]).unwrap();
    let garbage = answer_to(address, &frame_behind(&preamble, &[0x5a; 200])).await;
    assert!(!garbage.is_empty());
    let blobs: [&[u8]; 7] = [
        b"",
        &[0; 16],
        &[0; 4096],
        &[0; 4097],
        &[0xff; 300],
        b"pair1:",
        &[b"pair1:".as_slice(), &[9; 16]].concat(),
    ];
    for blob in blobs {
        let client = keypair();
        let answer = answer_to(address, &opening_with(&client, executor, blob)).await;
        assert_eq!(answer, garbage, "{} bytes", blob.len());
        guarded.audited(&client.public(), &[("result", "refused")]).await;
    }
    // Positive control: the code still lists.
    present(&guarded.client, &code, guarded.target()).await.unwrap();
    let used = answer_to(
        address,
        &opening_with(&keypair(), executor, &code.authorization()),
    )
    .await;
    assert_eq!(used, garbage);
}

/// C-23, C-24: an executor does not start with a list that it cannot read to the last byte.
#[tokio::test]
async fn a_corrupted_list_stops_the_start_and_is_kept_out_later() {
    let guarded = Guarded::with("").await;
    let harness = guarded.harness().await;
    relist(&guarded, format!("{}\nbroken\n", keypair().public()));
    let refused = Executor::builder()
        .listen("127.0.0.1:0")
        .authorized_clients(guarded.list())
        .serve()
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("line 2"), "{refused}");
    // The one that runs keeps the list it had, and says so.
    assert_works(&guarded.harness().await).await;
    assert_works(&harness).await;
    let path = guarded.home.dwell().join("audit.jsonl");
    let told = |line: &serde_json::Value| {
        line["what"] == "list"
            && line["result"] == "refused"
            && line["why"].as_str().unwrap().contains("line 2")
    };
    wait_until(BOUND, || lines(&path).iter().any(told)).await.unwrap();
}

/// C-14, C-15: a key whose time is over, and one that was taken off the list, are told no more than a stranger is.
#[tokio::test]
async fn expired_and_revoked_keys_get_the_same_bytes_as_garbage() {
    let guarded = Guarded::with("").await;
    let executor = guarded.executor.public_key();
    let address = guarded.executor.local_addr().unwrap().parse().unwrap();
    let preamble = Preamble::new(Dialer::Harness, executor, StreamId([7; 16]), &[]).unwrap();
    let garbage = answer_to(address, &frame_behind(&preamble, &[0x5a; 200])).await;
    assert!(!garbage.is_empty());
    let client = guarded.client.public();
    for (list, why) in [
        (format!("{client} expires=2020-01-01\n"), "the key has expired"),
        ("# nobody\n".to_owned(), "the key is not listed"),
    ] {
        relist(&guarded, list);
        let answer = answer_to(address, &opening_with(&guarded.client, executor, b"")).await;
        assert_eq!(answer, garbage, "{why}");
        let refused = [("what", "authorize"), ("result", "refused"), ("why", why)];
        guarded.audited(&client, &refused).await;
        assert_eq!(guarded.executor.sessions(), 0);
    }
}
