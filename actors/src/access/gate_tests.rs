//! The gate without an executor around it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dwell_messages::ErrorCode;
use tempfile::TempDir;

use super::*;
use crate::access::{PAIRING_LIFE, PAIRING_TRIES_MAX};
use crate::keys::{PairingCode, Scope, ScopeSet};

const H: [u8; 32] = [9; 32];
const NOW_UNIX_S: u64 = 1_800_000_000;

fn client(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn with(grant: Grant) -> Arc<Gate> {
    let clients = Clients::Keys(vec![(client(1), grant)]);
    Arc::new(Gate::new(clients, None, AuditLog::nowhere()))
}

fn in_file(content: &str) -> (TempDir, std::path::PathBuf, Arc<Gate>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authorized_clients");
    std::fs::write(&path, content).unwrap();
    let clients = Clients::File(Box::new(AuthorizedClients::load(&path).unwrap()));
    (dir, path, Arc::new(Gate::new(clients, None, AuditLog::nowhere())))
}

fn paired(offer: PairingOffer) -> (TempDir, std::path::PathBuf, Arc<Gate>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authorized_clients");
    let clients = Clients::File(Box::new(AuthorizedClients::load(&path).unwrap()));
    let gate = Gate::new(clients, Some(offer), AuditLog::nowhere());
    (dir, path, Arc::new(gate))
}

fn admit(gate: &Gate, n: u8, authorization: &[u8]) -> Verdict {
    gate.admit(Instant::now(), NOW_UNIX_S, &client(n), authorization, &H)
}

/// A session, and how often it was told to end.
fn begin(gate: &Arc<Gate>, n: u8) -> Result<(SessionPass, Arc<AtomicU32>), String> {
    let ends = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&ends);
    let end = Box::new(move |_: &str| {
        told.fetch_add(1, Ordering::Relaxed);
    });
    gate.begin(NOW_UNIX_S, &client(n), &H, end)
        .map(|session| (session, ends))
}

/// C-14.
#[test]
fn only_listed_keys_are_admitted_and_nobody_by_default() {
    let gate = with(Grant::default());
    assert_eq!(admit(&gate, 1, b""), Verdict::Serve);
    assert_eq!(admit(&gate, 2, b""), Verdict::Refuse);
    assert!(begin(&gate, 2).is_err());
    let nobody = Arc::new(Gate::new(Clients::Nobody, None, AuditLog::nowhere()));
    assert_eq!(admit(&nobody, 1, b""), Verdict::Refuse);
}

#[test]
fn a_key_is_refused_from_the_second_its_time_is_over() {
    let grant = Grant {
        expires_unix_s: Some(NOW_UNIX_S),
        ..Grant::default()
    };
    let gate = with(grant);
    let at = |now_unix_s| gate.admit(Instant::now(), now_unix_s, &client(1), b"", &H);
    assert_eq!(at(NOW_UNIX_S - 1), Verdict::Serve);
    assert_eq!(at(NOW_UNIX_S), Verdict::Refuse);
}

#[test]
fn a_session_whose_key_expires_is_told_once_to_end_and_others_are_not() {
    let soon = Grant {
        expires_unix_s: Some(NOW_UNIX_S + 5),
        ..Grant::default()
    };
    let clients = Clients::Keys(vec![(client(1), soon), (client(2), Grant::default())]);
    let gate = Arc::new(Gate::new(clients, None, AuditLog::nowhere()));
    let ((_expiring, told), (_other, untold)) = (begin(&gate, 1).unwrap(), begin(&gate, 2).unwrap());
    gate.review(NOW_UNIX_S + 4);
    assert_eq!(told.load(Ordering::Relaxed), 0);
    for _ in 0..3 {
        gate.review(NOW_UNIX_S + 5);
    }
    assert_eq!(
        (told.load(Ordering::Relaxed), untold.load(Ordering::Relaxed)),
        (1, 0)
    );
}

/// C-15, C-16.
#[test]
fn a_changed_list_changes_what_live_sessions_may_do() {
    let key = client(1);
    let (_dir, path, gate) = in_file(&format!("{key}\n"));
    let (session, told) = begin(&gate, 1).unwrap();
    let pass = session.pass();
    let start = ScopeSet::of(&[Scope::Spawn]);
    assert!(pass.check(start, "Process/Start", None).is_ok());
    std::fs::write(&path, format!("{key} scopes=attach\n")).unwrap();
    gate.review(NOW_UNIX_S);
    let error = pass.check(start, "Process/Start", Some(b"/bin/ls")).unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert!(error.message.contains("lacks the scope spawn"), "{error}");
    assert!(
        pass.check(ScopeSet::of(&[Scope::Attach]), "Process/Read", None)
            .is_ok()
    );
    assert_eq!(told.load(Ordering::Relaxed), 0);

    // What cannot be read again changes nothing.
    std::fs::write(&path, "broken\n").unwrap();
    gate.review(NOW_UNIX_S);
    assert_eq!(told.load(Ordering::Relaxed), 0);
    assert_eq!(admit(&gate, 1, b""), Verdict::Serve);

    std::fs::write(&path, "# nobody\n").unwrap();
    gate.review(NOW_UNIX_S);
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(
        pass.check(ScopeSet::of(&[Scope::Attach]), "Process/Read", None)
            .is_err()
    );
    assert_eq!(admit(&gate, 1, b""), Verdict::Refuse);
}

#[test]
fn sessions_and_processes_of_one_key_are_counted_over_all_its_sessions() {
    let grant = Grant {
        sessions_max: Some(2),
        processes_max: Some(3),
        ..Grant::default()
    };
    let gate = with(grant);
    let (first, second) = (begin(&gate, 1).unwrap().0, begin(&gate, 1).unwrap().0);
    let refused = begin(&gate, 1).err().unwrap();
    assert!(refused.contains("2 sessions"), "{refused}");
    let take = |session: &SessionPass| session.pass().take_process("Process/Start", Some(b"ls"));
    let slots = [
        take(&first).unwrap(),
        take(&second).unwrap(),
        take(&first).unwrap(),
    ];
    let error = take(&second).unwrap_err();
    assert_eq!(
        (error.code, error.limit, error.actual),
        (ErrorCode::PermissionDenied, Some(3), Some(4))
    );
    // A process that outlives its session still counts.
    drop(first);
    assert!(take(&second).is_err());
    let third = begin(&gate, 1).unwrap().0;
    assert!(take(&third).is_err());
    drop(slots);
    assert!(take(&third).is_ok());
}

fn offer(code: u8) -> (PairingOffer, Vec<u8>) {
    let code = PairingCode::from([code; 16]);
    let offer = PairingOffer::new(
        Instant::now(),
        &code,
        Grant::scopes(ScopeSet::of(&[Scope::Spawn])),
    );
    (offer, code.authorization())
}

#[test]
fn a_client_with_the_code_is_listed_by_its_first_record_and_not_before() {
    let (offer, says) = offer(7);
    let (_dir, path, gate) = paired(offer);
    assert_eq!(admit(&gate, 1, &says), Verdict::Serve);
    assert!(!path.exists(), "message 1 may be a replay");
    let (session, _) = begin(&gate, 1).unwrap();
    assert!(
        session
            .pass()
            .check(ScopeSet::of(&[Scope::Signal]), "x", None)
            .is_err()
    );
    let line = std::fs::read_to_string(&path).unwrap();
    assert_eq!(line, format!("{} scopes=spawn # paired\n", client(1)));
    assert_eq!(admit(&gate, 2, &says), Verdict::Refuse);
    // The client itself is listed now, whatever it still presents.
    assert_eq!(admit(&gate, 1, &says), Verdict::Serve);
    gate.review(NOW_UNIX_S);
    assert_eq!(admit(&gate, 1, b""), Verdict::Serve);
}

#[test]
fn of_two_clients_with_the_code_at_once_one_is_listed() {
    let (offer, says) = offer(7);
    let (_dir, path, gate) = paired(offer);
    let served = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=16_u8)
            .map(|n| {
                let (gate, says) = (&gate, &says);
                scope.spawn(move || {
                    let verdict = admit(gate, n, says);
                    let begun = begin(gate, n).is_ok();
                    assert_eq!(verdict == Verdict::Serve, begun);
                    begun
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .filter(|begun| *begun)
            .count()
    });
    assert_eq!(served, 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn wrong_late_and_worn_out_codes_list_nobody() {
    let (offer, says) = offer(7);
    let (_dir, path, gate) = paired(offer);
    let wrong = PairingCode::from([8; 16]).authorization();
    let late = Instant::now() + PAIRING_LIFE + Duration::from_secs(1);
    assert_eq!(
        gate.admit(late, NOW_UNIX_S, &client(1), &says, &H),
        Verdict::Refuse
    );
    for _ in 0..PAIRING_TRIES_MAX {
        assert_eq!(admit(&gate, 1, &wrong), Verdict::Refuse);
    }
    assert_eq!(admit(&gate, 1, &says), Verdict::Refuse);
    assert!(begin(&gate, 1).is_err());
    assert!(!path.exists());
}

/// An expired key is not paired again behind the operator's back.
#[test]
fn the_code_does_not_serve_a_key_whose_time_is_over() {
    let (offer, says) = offer(7);
    let expired = Grant {
        expires_unix_s: Some(NOW_UNIX_S - 1),
        ..Grant::default()
    };
    let clients = Clients::Keys(vec![(client(1), expired)]);
    let gate = Arc::new(Gate::new(clients, Some(offer), AuditLog::nowhere()));
    assert_eq!(admit(&gate, 1, &says), Verdict::Refuse);
    assert_eq!(admit(&gate, 2, &says), Verdict::Serve);
}

#[test]
fn a_client_that_cannot_be_listed_is_told_and_may_come_again() {
    let (offer, says) = offer(7);
    let (dir, path, gate) = paired(offer);
    let held = std::fs::File::open(dir.path()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(admit(&gate, 1, &says), Verdict::Serve);
    assert!(begin(&gate, 1).err().unwrap().contains("cannot write"));
    assert!(!path.exists());
    // Not by closing it: a child of another test may have it too.
    rustix::fs::flock(&held, rustix::fs::FlockOperation::Unlock).unwrap();
    assert_eq!(admit(&gate, 1, &says), Verdict::Serve);
    assert!(begin(&gate, 1).is_ok());
}
