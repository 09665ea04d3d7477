//! `dwell threads`, and what many processes keep at once.

use std::path::Path;
use std::process::Output;

use dwell_actors::metadata_store::{
    Change, MetadataStore as _, RunStatus, SqliteStore, ThreadId, ThreadPatch,
};
use dwell_actors::threads::{Append, Item, ItemKind, NewThread, Threads};
use serde_json::Value as Json;
use tempfile::{TempDir, tempdir};

use crate::roles::{System, dwell};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempdir().unwrap())
    }

    fn state(&self) -> std::path::PathBuf {
        self.0.path().join(".local/state/dwell")
    }

    fn threads(&self) -> Threads {
        let state = self.state();
        Threads::builder(state.join("threads"))
            .store(state.join("runs.db"))
            .open()
            .unwrap()
    }

    /// A thread with one goal and one body that is no text.
    fn keep(&self, goal: &str, cwd: &str) -> ThreadId {
        let patch = ThreadPatch {
            cwd: Change::Set(cwd.into()),
            ..ThreadPatch::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let thread = self.threads().create(NewThread { patch }).await.unwrap();
            let items = vec![
                Item::now(ItemKind::Goal, goal),
                Item::now(ItemKind::ToolOutput, [0xff, b'a']),
            ];
            thread.append_and_flush(Append::new(items)).await.unwrap();
            thread.shutdown().await.unwrap();
            thread.id()
        })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        dwell(self.0.path())
            .arg("threads")
            .args(arguments)
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Json {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn listed(&self, arguments: &[&str]) -> Vec<String> {
        let list = self.json(&[&["list"][..], arguments].concat());
        let threads = list["threads"].as_array().unwrap().iter();
        threads
            .map(|thread| thread["preview"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn threads_are_listed_newest_first_by_directory_and_text_and_in_pages() {
    let place = Place::new();
    assert_eq!(place.listed(&[]), Vec::<String>::new());
    place.keep("first parser", "/a");
    place.keep("second", "/b");
    place.keep("third PARSER", "/a");
    assert_eq!(place.listed(&[]), ["third PARSER", "second", "first parser"]);
    assert_eq!(place.listed(&["--cwd", "/a/."]), ["third PARSER", "first parser"]);
    assert_eq!(
        place.listed(&["--search", "parser", "--status", "idle"]),
        ["third PARSER", "first parser"]
    );
    assert_eq!(place.listed(&["--status", "active"]), Vec::<String>::new());
    let first = place.json(&["list", "--limit", "2"]);
    let mark = first["next"].as_str().unwrap();
    assert_eq!(place.listed(&["--after", mark]), ["first parser"]);
    let text = out(&place.run(&["list"]));
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().next().unwrap().ends_with("third PARSER"), "{text}");
}

#[test]
fn a_thread_is_shown_exported_and_deleted() {
    let place = Place::new();
    let id = place.keep("make it fast", "/src").to_string();
    let shown = place.json(&["show", &id]);
    assert_eq!(
        (&shown["id"], &shown["cwd"], &shown["items"]),
        (&id.as_str().into(), &"/src".into(), &2.into())
    );
    assert!(out(&place.run(&["show", &id])).contains("make it fast"));
    let lines: Vec<Json> = out(&place.run(&["export", &id]))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["text"]),
        (&"goal".into(), &"make it fast".into())
    );
    assert_eq!(
        (&lines[1]["text"], &lines[1]["base64"]),
        (&"\u{fffd}a".into(), &"/2E=".into())
    );
    let whole = place.json(&["export", &id]);
    assert_eq!(whole["items"].as_array().unwrap(), &lines);
    assert_eq!((&whole["thread"], &whole["fault"]), (&shown, &Json::Null));
    assert_eq!(place.json(&["delete", &id])["deleted"], true);
    for action in ["show", "export", "delete"] {
        let gone = place.run(&[action, &id, "--json"]);
        assert_eq!(gone.status.code(), Some(125));
        let said: Json = serde_json::from_slice(&gone.stdout).unwrap();
        assert_eq!(said["error"]["kind"], "no_thread", "{action}");
    }
    assert_eq!(
        std::fs::read_dir(place.state().join("threads")).unwrap().count(),
        0
    );
}

#[test]
fn a_thread_that_a_process_has_open_is_not_deleted() {
    let place = Place::new();
    let id = place.keep("busy", "/a");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let thread = place.threads().resume(id).await.unwrap();
        let refused = place.run(&["delete", &id.to_string()]);
        assert_eq!(refused.status.code(), Some(125));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.contains(&format!("open in process {}", std::process::id())),
            "{said}"
        );
        thread.shutdown().await.unwrap();
    });
    assert!(place.run(&["delete", &id.to_string()]).status.success());
}

#[test]
fn a_damaged_database_says_what_to_do_and_is_filled_again_from_the_histories() {
    let place = Place::new();
    let id = place.keep("survives", "/a").to_string();
    let path = place.state().join("runs.db");
    // As long as its log is there, the database is what stands in that.
    let log = path.with_extension("db-wal");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let closed = dwell_testkit::wait_until(std::time::Duration::from_secs(20), || !log.exists());
    runtime.block_on(closed).unwrap();
    std::fs::write(&path, [b'x'; 9_000]).unwrap();
    let refused = place.run(&["list"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("move it away") && said.contains("rebuild"),
        "{said}"
    );
    std::fs::rename(&path, path.with_extension("damaged")).unwrap();
    assert_eq!(place.listed(&[]), Vec::<String>::new());
    assert_eq!(place.json(&["rebuild"])["made"], 1);
    assert_eq!(place.json(&["rebuild"])["made"], 0);
    assert_eq!(place.listed(&[]), ["survives"]);
    assert_eq!(place.json(&["show", &id])["items"], 2);
}

#[test]
fn what_is_no_id_and_no_mark_is_refused_with_a_word() {
    let place = Place::new();
    for (arguments, word) in [
        (&["show", "abc"][..], "32 hexadecimal digits"),
        (&["list", "--after", "x"], "copy it whole"),
        (&["list", "--limit", "0"], "1..=1000"),
    ] {
        let refused = place.run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains(word),
            "{arguments:?}: {said}"
        );
    }
    assert!(out(&place.run(&["--help"])).contains("Examples:"));
}

#[test]
fn sixteen_runs_at_once_are_all_recorded() {
    let system = System::start(&[]);
    // Half of them below one caller's span: their trace and the numbers of their processes are the same.
    let ancestry = [(
        "TRACEPARENT",
        "00-11111111111111111111111111111111-2222222222222222-01",
    )];
    std::thread::scope(|scope| {
        for n in 0..16 {
            let environment = &ancestry[..n % 2];
            let system = &system;
            scope.spawn(move || system.run(environment, &["true"]));
        }
    });
    let path = system.harness_home().join(".local/state/dwell/runs.db");
    let runs = SqliteStore::open(Path::new(&path))
        .unwrap()
        .recent_runs(100)
        .unwrap();
    assert_eq!(runs.len(), 16);
    let below = runs.iter().filter(|run| run.trace_id.0 == [0x11; 16]);
    assert_eq!(below.count(), 8);
    assert!(
        runs.iter().all(|run| run.status == RunStatus::Exited(0)),
        "{runs:?}"
    );
}
