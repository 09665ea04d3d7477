//! The names that back ends see are pinned, spelled in one place, and follow the conventions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dwell_actors::telemetry::semconv;

/// Where names are spelled, and nowhere else.
const PLACE: &str = "telemetry/semconv.rs";

/// Every constant of text in that file, by its value; span names stand in a module of their own.
fn spelled() -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let text = std::fs::read_to_string(source().join(PLACE)).unwrap();
    let (attributes, spans) = text.split_once("pub mod span {").unwrap();
    let of = |text: &str| {
        let lines = text.lines().map(str::trim);
        let named = lines.filter_map(|line| {
            let (name, value) = line.strip_prefix("pub const ")?.split_once(": &str = \"")?;
            Some((value.trim_end_matches("\";").to_owned(), name.to_owned()))
        });
        named.collect()
    };
    (of(attributes), of(spans))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// This crate's source files with their text, tests within them left out.
fn files(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            let name = path
                .strip_prefix(source())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            found.push((name, code));
        }
    }
}

/// What stands between the parentheses that open at the end of `before`.
fn arguments(code: &str) -> &str {
    let mut depth = 1;
    for (at, c) in code.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &code[..at];
        }
    }
    code
}

#[test]
fn the_names_are_these() {
    // Theirs.
    assert_eq!(semconv::SCHEMA_URL, "https://opentelemetry.io/schemas/1.45.0");
    let theirs = [
        (semconv::RPC_SYSTEM_NAME, "rpc.system.name"),
        (semconv::RPC_CLIENT_DURATION, "rpc.client.call.duration"),
        (semconv::RPC_SERVER_DURATION, "rpc.server.call.duration"),
        (semconv::RPC_METHOD, "rpc.method"),
        (semconv::RPC_METHOD_ORIGINAL, "rpc.method_original"),
        (semconv::RPC_STATUS_CODE, "rpc.status_code"),
        (semconv::OTHER, "_OTHER"),
        (semconv::ERROR_TYPE, "error.type"),
        (semconv::PROCESS_EXECUTABLE_NAME, "process.executable.name"),
        (semconv::PROCESS_EXIT_CODE, "process.exit.code"),
        (semconv::PROCESS_PID, "process.pid"),
        (semconv::SERVICE_NAME, "service.name"),
        (semconv::SERVICE_VERSION, "service.version"),
        (semconv::SERVICE_INSTANCE_ID, "service.instance.id"),
        (semconv::HOST_ARCH, "host.arch"),
        (semconv::OS_TYPE, "os.type"),
        (semconv::HTTP_STATUS, "http.response.status_code"),
    ];
    // Ours.
    let ours = [
        (semconv::RPC_SYSTEM, "dwell"),
        (semconv::SCOPE, "dwell"),
        (semconv::RPC_OK, "ok"),
        (semconv::ACTOR_TYPE, "dwell.actor.type"),
        (semconv::MESSAGE_TYPE, "dwell.message.type"),
        (semconv::MAILBOX_DEPTH, "dwell.mailbox.depth"),
        (
            semconv::MAILBOX_RESIDENCE_TOTAL_US,
            "dwell.mailbox.residence_total_us",
        ),
        (
            semconv::MAILBOX_RESIDENCE_LONGEST_US,
            "dwell.mailbox.residence_longest_us",
        ),
        (semconv::PARENT_REMOTE, "dwell.parent.remote"),
        (semconv::STREAM_BYTES, "dwell.stream.bytes"),
        (semconv::ROLE, "dwell.role"),
        (semconv::CLOCK_OFFSET_US, "clock.offset_us"),
        (semconv::CLOCK_ERROR_US, "clock.error_us"),
        (semconv::CHAIN_TRANSIT_US, "chain.transit.both_ways_us"),
        (semconv::span::CALL, "call"),
        (semconv::span::PROCESS, "process"),
        (semconv::span::RESPONSE_WAIT, "response wait"),
        (semconv::span::RELAY_HOP, "relay hop"),
    ];
    for (name, expected) in theirs.into_iter().chain(ours) {
        assert_eq!(name, expected);
    }
    let (attributes, _) = spelled();
    let known = theirs.map(|(name, _)| name);
    for name in attributes
        .keys()
        .filter(|name| name.contains('.') && !name.contains("://"))
    {
        let own = ["dwell.", "chain.", "clock."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        assert!(
            own || known.contains(&name.as_str()),
            "{name} is in a namespace that is not ours"
        );
    }
}

#[test]
fn no_other_file_spells_a_name() {
    let (attributes, spans) = spelled();
    assert!(
        attributes.len() > 40 && spans.len() > 20,
        "{} and {}",
        attributes.len(),
        spans.len()
    );
    let mut all = Vec::new();
    files(&source(), &mut all);
    assert!(all.len() > 150, "{} files were found", all.len());
    for (file, code) in all.iter().filter(|(file, _)| file != PLACE) {
        for (value, name) in attributes.iter().filter(|(value, _)| value.contains('.')) {
            assert!(
                !code.contains(&format!("\"{value}\"")),
                "{file} spells {value}: use semconv::{name}"
            );
        }
        // Those of earlier days, and whatever is made up on the way.
        for retired in ["\"actor.", "\"process.io.", "\"rpc.", "\"process.", "\"error."] {
            assert!(
                !code.contains(retired),
                "{file} spells a name beginning with {retired}: see semconv"
            );
        }
        for call in ["Stage::new(", "Stage::with_id("] {
            for (at, _) in code.match_indices(call) {
                let given = arguments(&code[at + call.len()..]);
                assert!(!given.contains('"'), "{file} names a span on its own: {given}");
            }
        }
        for call in [
            ".number(\"",
            ".text(\"",
            ".maybe_number(\"",
            ".maybe_float(\"",
            ".flag(\"",
        ] {
            assert!(!code.contains(call), "{file} names an attribute on its own");
        }
    }
}

#[test]
fn a_method_that_is_not_known_has_no_name_of_its_senders_making() {
    use dwell_messages::codec::{context_of, decode, encode};
    use dwell_messages::{Envelope, Message, TraceFlags};
    let context = crate::support::context(2, TraceFlags::SAMPLED);
    let mut bytes = encode(&Envelope::new(context.clone(), Message::Ping(1)), 1)
        .unwrap()
        .to_vec();
    // The kind is the header's second byte; a request of a version to come.
    bytes[1] = 0x3e;
    let bytes = bytes::Bytes::from(bytes);
    assert!(decode(&bytes).is_err());
    assert_eq!(
        context_of(&bytes),
        Some(context),
        "its trace is known all the same"
    );
}
