//! What a client of the dialect can depend on, asked of two servers: dwell's gateway, and the stock `codex exec-server`
//! it stands in for. A case is the same conversation with both; where they answer differently it says what each answers,
//! and PROTOCOL.md says why.

mod confinement;
mod doors;
mod edges;
mod ends;
mod exchanges;
mod files;
mod lab;
mod listener;
mod messages;
mod other;
mod own;
mod processes;
mod reading;
mod resuming;
mod sessions;
mod starting;
mod steps;
mod telling;
mod walks;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::Value;

pub(crate) use self::lab::{BOUND, Server};
use self::lab::{Lab, fits};
pub(crate) use self::steps::awaits;
use crate::world::{codex, confined};

/// Conversations under way at a time: most of them wait.
const AT_ONCE: usize = 12;

pub(crate) type Scene = fn(Lab) -> Pin<Box<dyn Future<Output = Value> + Send>>;

/// One conversation.
pub(crate) struct Case {
    /// Its name, unique; a difference stands under it in PROTOCOL.md.
    pub(crate) id: &'static str,
    /// Where the fact stands: the section of the description of the dialect.
    pub(crate) section: &'static str,
    pub(crate) does: Does,
    pub(crate) holds: Holds,
}

/// What is said.
pub(crate) enum Does {
    /// Steps, one after the other: see `steps`.
    Calls(&'static [(&'static str, &'static str)]),
    /// What does not fit into steps.
    Scene(Scene),
}

/// What must be answered: JSON in which a text may have stars, and of an object more members are no mistake.
pub(crate) enum Holds {
    Both(&'static str),
    Differ {
        stock: &'static str,
        dwell: &'static str,
    },
}

impl Case {
    pub(crate) const fn same(
        id: &'static str,
        section: &'static str,
        calls: &'static [(&'static str, &'static str)],
        both: &'static str,
    ) -> Self {
        let (does, holds) = (Does::Calls(calls), Holds::Both(both));
        Self {
            id,
            section,
            does,
            holds,
        }
    }

    pub(crate) const fn differs(
        id: &'static str,
        section: &'static str,
        calls: &'static [(&'static str, &'static str)],
        stock: &'static str,
        dwell: &'static str,
    ) -> Self {
        let (does, holds) = (Does::Calls(calls), Holds::Differ { stock, dwell });
        Self {
            id,
            section,
            does,
            holds,
        }
    }

    pub(crate) const fn scene(id: &'static str, section: &'static str, scene: Scene, holds: Holds) -> Self {
        Self {
            id,
            section,
            does: Does::Scene(scene),
            holds,
        }
    }

    fn expected(&self, server: &Server) -> Value {
        let text = match (&self.holds, server.is_stock) {
            (Holds::Both(both), _) => both,
            (Holds::Differ { stock, .. }, true) => stock,
            (Holds::Differ { dwell, .. }, false) => dwell,
        };
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{}: {error}: {text}", self.id))
    }

    fn is_difference(&self) -> bool {
        matches!(self.holds, Holds::Differ { .. })
    }
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        sessions::CASES,
        resuming::CASES,
        reading::CASES,
        listener::CASES,
        doors::CASES,
        messages::CASES,
        telling::CASES,
        processes::CASES,
        ends::CASES,
        starting::CASES,
        files::CASES,
        walks::CASES,
        edges::CASES,
        other::CASES,
        confinement::CASES,
        exchanges::CASES,
    ]
    .into_iter()
    .flatten()
}

/// What came of one case with one server, if it is not what it should be.
async fn mistake(case: &'static Case, server: Arc<Server>) -> Option<String> {
    let lab = Lab::new(Arc::clone(&server));
    let told = match case.does {
        Does::Calls(calls) => tokio::spawn(steps::take(lab, calls)),
        Does::Scene(scene) => tokio::spawn(scene(lab)),
    };
    let who = if server.is_stock {
        "codex exec-server"
    } else {
        "dwell"
    };
    let expected = case.expected(&server);
    match told.await {
        Ok(told) if fits(&expected, &told) => None,
        Ok(told) => Some(format!(
            "{} ({}) {who}\n  expected {expected}\n  answered {told}",
            case.id, case.section
        )),
        Err(failed) => Some(format!("{} ({}) {who}: {failed}", case.id, case.section)),
    }
}

#[test]
fn the_same_conversation_with_both_servers_has_the_answers_that_its_case_names() {
    if !confined("conformance::the_same_conversation_with_both_servers_has_the_answers_that_its_case_names") {
        return;
    }
    let only = std::env::var("DWELL_CONFORMANCE").unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Some scenes wait for a process, and hold their thread up meanwhile.
        .worker_threads(AT_ONCE)
        .enable_all()
        .build()
        .unwrap();
    let mistakes: Vec<String> = runtime.block_on(async {
        let servers = [Arc::new(Server::stock(&codex())), Arc::new(Server::dwell())];
        let both = cases().filter(|case| case.id.contains(&only)).flat_map(|case| {
            servers
                .iter()
                .map(move |server| mistake(case, Arc::clone(server)))
        });
        let told = futures_util::stream::iter(both).buffer_unordered(AT_ONCE);
        told.filter_map(std::future::ready).collect().await
    });
    assert!(
        mistakes.is_empty(),
        "{} mistakes\n{}",
        mistakes.len(),
        mistakes.join("\n")
    );
}

/// The control: a comparison that passes whatever it is given would let every case pass.
#[test]
fn what_is_answered_otherwise_is_noticed() {
    let json = |text| serde_json::from_str::<Value>(text).unwrap();
    for (expected, told) in [
        (r#"["a*"]"#, r#"["b"]"#),
        (r#"["a"]"#, r#"["a", "a"]"#),
        (r#"{"a": 1}"#, r#"{"b": 1}"#),
        (r#"[1]"#, r#"["1"]"#),
        (r#""-32600 *""#, r#""-32603 x""#),
        (r#"{"=": {"a": 1}}"#, r#"{"a": 1, "b": 2}"#),
    ] {
        assert!(!fits(&json(expected), &json(told)), "{expected} {told}");
    }
    for (expected, told) in [
        (r#"["a*c*"]"#, r#"["abcd"]"#),
        (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#),
        (r#"{"=": {"a": 1}}"#, r#"{"a": 1}"#),
        (r#"["*"]"#, r#"["x"]"#),
    ] {
        assert!(fits(&json(expected), &json(told)), "{expected} {told}");
    }
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    for case in cases() {
        assert!(names.insert(case.id), "{} is there twice", case.id);
    }
}

#[test]
fn every_difference_stands_in_protocol_md_with_its_reason_and_no_other() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/PROTOCOL.md")).unwrap();
    let (_, table) = text
        .split_once("| case | there | here | why |")
        .expect("the table of differences");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut listed = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(
            cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()),
            "a row has a case, two answers and a reason: {row}"
        );
        // Behind the colon it says what that is.
        let names = cells[0].split(": ").next().unwrap_or_default();
        for name in names.split('`').skip(1).step_by(2) {
            assert!(listed.insert(name.to_owned()), "{name} is listed twice");
        }
    }
    let found: BTreeSet<_> = cases()
        .filter(|case| case.is_difference())
        .map(|case| case.id.to_owned())
        .collect();
    assert_eq!(found, listed, "cases (left) and PROTOCOL.md (right)");
}
