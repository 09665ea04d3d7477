//! The files that say who is served and who is trusted: what is understood can be written down and read again.
#![no_main]

use dwell_actors::keys::{
    AUTHORIZED_CLIENTS_MAX, AuthorizedClients, Identity, KNOWN_EXECUTORS_MAX, KeyError, KnownExecutors,
    parse_authorization,
};
use dwell_fuzz::scratch_file;
use libfuzzer_sys::fuzz_target;

fn lines(content: &[u8]) -> usize {
    content.split(|byte| *byte == b'\n').count()
}

fn check_authorized(content: &[u8]) {
    let path = scratch_file("authorized_clients", content);
    let clients = match AuthorizedClients::load(&path) {
        Ok(clients) => clients,
        Err(KeyError::Line { line, .. }) => return assert!((1..=lines(content)).contains(&line)),
        Err(KeyError::TooMany { max, .. }) => return assert!(lines(content) > max),
        Err(error) => panic!("the file is as it must be: {error}"),
    };
    assert!(clients.keys().len() <= AUTHORIZED_CLIENTS_MAX.min(lines(content)));
    let mut written = String::new();
    for key in clients.keys() {
        let grant = clients.grant(key).expect("who is listed has a grant");
        let line = format!("{key} {grant}");
        assert_eq!(parse_authorization(line.trim_end()), Ok((*key, grant)));
        written.push_str(&line);
        written.push('\n');
    }
    let path = scratch_file("authorized_clients.again", written.as_bytes());
    let again = AuthorizedClients::load(&path).expect("what was written down is read");
    assert_eq!(again.keys(), clients.keys(), "each once, in the same order");
    for key in clients.keys() {
        assert_eq!(again.grant(key), clients.grant(key));
    }
}

fn check_known(content: &[u8]) {
    let path = scratch_file("known_executors", content);
    let known = match KnownExecutors::load(&path) {
        Ok(known) => known,
        Err(KeyError::TooMany { max, .. }) => return assert!(lines(content) > max),
        Err(error) => panic!("the file is as it must be: {error}"),
    };
    let (entries, problems) = (known.entries(), known.problems());
    assert!(entries.len() <= KNOWN_EXECUTORS_MAX && entries.len() + problems.len() <= lines(content));
    let mut written = String::new();
    for (place, entry) in entries.iter().enumerate() {
        let name = entry.name.as_str();
        assert!(
            entries[..place].iter().all(|other| other.name != entry.name),
            "a name has one key"
        );
        match known.find(name) {
            Ok(found) => assert_eq!(found, entry),
            Err(KeyError::SeveralKeys { .. }) => {}
            Err(error) => panic!("{name} is listed: {error}"),
        }
        written.push_str(&format!("{entry}\n"));
    }
    for problem in problems {
        match problem {
            KeyError::Line { line, .. } | KeyError::SeveralKeys { line, .. } => {
                assert!((1..=lines(content)).contains(&line));
            }
            other => panic!("no line is {other}"),
        }
    }
    let path = scratch_file("known_executors.again", written.as_bytes());
    let again = KnownExecutors::load(&path).expect("what was written down is read");
    assert_eq!(again.entries(), entries);
    assert!(again.problems().is_empty());
}

fn check_identity(content: &[u8]) {
    let path = scratch_file("identity", content);
    if let Ok(identity) = Identity::load(&path) {
        let shown = format!("{identity:?}");
        let private: String = identity
            .private()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(!shown.contains(&private), "what is logged does not show the key");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, content)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => check_identity(content),
        1 | 2 => check_authorized(content),
        _ => check_known(content),
    }
});
