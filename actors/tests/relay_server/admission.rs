//! Whom a relay admits, and where it refuses to start.

use dwell_actors::relay_server::{
    ALLOW_ENTRIES_MAX, AllowError, LineProblem, Relay, RelayError, load_allow_file, parse_allow_list,
};
use dwell_messages::PublicKey;
use dwell_relay::registration::RegistrationError;
use dwell_relay::rendezvous::TokenHash;
use dwell_relay::{Admission, ResetCode, StaticKeypair};
use proptest::prelude::*;

use crate::support::{Executor, Harness, dial, keypair, serve};

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn listed(admission: Admission) -> (Vec<PublicKey>, Vec<TokenHash>) {
    match admission {
        Admission::Listed {
            executors,
            harness_tokens,
        } => (executors, harness_tokens),
        Admission::Open => panic!("an allow file never opens a relay"),
    }
}

fn problem(text: &str) -> (usize, LineProblem) {
    match parse_allow_list(text.as_bytes()) {
        Err(AllowError::Line { line, problem }) => (line, problem),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_relay_beyond_loopback_is_refused_and_a_listed_one_is_not() {
    let refused = Relay::builder().listen("0.0.0.0:0").serve().await.unwrap_err();
    assert!(
        matches!(&refused, RelayError::OpenBeyondLoopback { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("allow file"), "{refused}");
    let nobody = parse_allow_list(b"").unwrap();
    let relay = Relay::builder()
        .listen("0.0.0.0:0")
        .admission(nobody)
        .serve()
        .await
        .unwrap();
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_an_error_that_names_it() {
    let relay = serve(Relay::builder()).await;
    let error = Relay::builder()
        .listen(relay.local_addr())
        .serve()
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&relay.local_addr()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_registers_and_learns_the_relays_key() {
    let identity = keypair();
    let public = identity.public();
    let relay = serve(Relay::builder().identity(identity)).await;
    assert_eq!(relay.public_key(), public);
    let registered = dial(&relay).await.register(&keypair()).await.unwrap();
    assert_eq!(registered.relay, public);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_executor_is_answered_with_a_reset_and_the_end() {
    let relay = serve(Relay::builder()).await;
    let reset = Harness::connect(dial(&relay).await, keypair().public(), b"")
        .await
        .err()
        .unwrap();
    assert_eq!(reset.code, ResetCode::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_admits_its_executors_and_the_holders_of_its_tokens_only() {
    let (known, stranger) = (keypair(), keypair());
    let list = format!(
        "# who may\nexecutor {} the build machine\nharness {}\n",
        hex(&known.public().0),
        hex(&TokenHash::of(b"a token").0)
    );
    let relay = serve(Relay::builder().admission(parse_allow_list(list.as_bytes()).unwrap())).await;
    let refused = dial(&relay).await.register(&stranger).await.unwrap_err();
    assert!(matches!(refused, RegistrationError::Refused(_)), "{refused:?}");

    let executor = Executor::start(dial(&relay).await, known).await;
    let reset = Harness::connect(dial(&relay).await, executor.key, b"another")
        .await
        .err()
        .unwrap();
    assert_eq!(reset.code, ResetCode::Unavailable);
    let mut harness = Harness::connect(dial(&relay).await, executor.key, b"a token")
        .await
        .unwrap();
    harness.echo("admitted").await;
}

#[test]
fn an_allow_list_holds_what_its_lines_say() {
    let key = keypair().public();
    let text = format!(
        "# comment\r\n\n  executor {} with # anything behind\r\nharness {}\nharness {}",
        hex(&key.0).to_uppercase(),
        "0a".repeat(32),
        "ff".repeat(32)
    );
    let (executors, tokens) = listed(parse_allow_list(text.as_bytes()).unwrap());
    assert_eq!(executors, [key]);
    assert_eq!(tokens, [TokenHash([0x0a; 32]), TokenHash([0xff; 32])]);
}

#[test]
fn a_line_that_is_no_entry_is_named_with_its_problem() {
    let digits = "ab".repeat(32);
    assert_eq!(problem(&format!("\nexecutors {digits}")), (2, LineProblem::Sort));
    assert_eq!(problem("# one\n#two\nexecutor"), (3, LineProblem::Digits));
    assert_eq!(problem(&format!("harness {digits}0")), (1, LineProblem::Digits));
    assert_eq!(
        problem(&format!("harness {}", "é".repeat(32))),
        (1, LineProblem::Digits)
    );
    assert_eq!(
        problem(&format!("executor {}", "00".repeat(32))),
        (1, LineProblem::LowOrder)
    );
    let not_text = parse_allow_list(b"#\n\xff\xfe").unwrap_err();
    assert_eq!(
        not_text.to_string(),
        "line 2 of the allow file: it is not text: write it as UTF-8"
    );
}

#[test]
fn entries_past_the_bound_are_refused_by_number() {
    let line = format!("harness {}\n", "ab".repeat(32));
    assert!(parse_allow_list(line.repeat(ALLOW_ENTRIES_MAX).as_bytes()).is_ok());
    match parse_allow_list(line.repeat(ALLOW_ENTRIES_MAX + 1).as_bytes()) {
        Err(AllowError::TooMany { line }) => assert_eq!(line, ALLOW_ENTRIES_MAX + 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_allow_file_is_read_unless_others_may_change_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("allow");
    assert!(matches!(load_allow_file(&path), Err(AllowError::Read { .. })));
    assert!(matches!(load_allow_file(dir.path()), Err(AllowError::NotAList)));
    std::fs::write(&path, format!("harness {}\n", "01".repeat(32))).unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    assert_eq!(listed(load_allow_file(&path).unwrap()).1.len(), 1);
    mode(0o660);
    assert!(matches!(load_allow_file(&path), Err(AllowError::Writable { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_or_open_the_relay(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(admission) = parse_allow_list(&bytes) {
            listed(admission);
        }
    }

    #[test]
    fn what_is_written_is_read_back(seeds in prop::collection::vec(any::<[u8; 32]>(), 0..16)) {
        let keys: Vec<PublicKey> = seeds
            .iter()
            .map(|seed| StaticKeypair::from_private((*seed).into()).public())
            .collect();
        let text: String = keys.iter().map(|key| format!("executor {}\n", hex(&key.0))).collect();
        prop_assert_eq!(listed(parse_allow_list(text.as_bytes()).unwrap()).0, keys);
    }
}

#[test]
fn a_token_in_the_clear_is_the_same_as_its_hash_and_is_checked() {
    use dwell_relay::rendezvous::TokenHash;
    let text = "token sixteen-bytes-ok # who\ntoken another-sixteen-bytes\n";
    let (_, tokens) = listed(parse_allow_list(text.as_bytes()).unwrap());
    assert_eq!(
        tokens,
        [
            TokenHash::of(b"sixteen-bytes-ok"),
            TokenHash::of(b"another-sixteen-bytes")
        ]
    );
    for (line, at) in [
        ("token short", 1),
        ("\ntoken", 2),
        ("token sixteen-bytes-ok and-more", 1),
    ] {
        match parse_allow_list(line.as_bytes()) {
            Err(AllowError::Line { line, problem }) => assert_eq!((line, problem), (at, LineProblem::Token)),
            other => panic!("{other:?}"),
        }
    }
}
