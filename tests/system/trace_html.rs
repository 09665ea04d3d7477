//! A run's page, opened by a browser that is not ours.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::roles::{System, dwell};

/// What a page may take to be drawn, in the browser's own virtual milliseconds.
const BUDGET: &str = "--virtual-time-budget=10000";

/// The document as the browser has it when the page's script has run.
fn opened(page: &Path, hash: &str) -> String {
    let profile = page.with_extension("profile");
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            BUDGET,
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--window-size=1400,900", "--dump-dom"])
        .arg(format!("file://{}{hash}", page.display()))
        .stdin(Stdio::null())
        .output()
        .expect("chromium is needed: install Debian's package chromium");
    let document = String::from_utf8(output.stdout).unwrap();
    assert!(
        document.contains("data-state=\"ready\"") || document.contains("id=\"script-error\""),
        "{document}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    document
}

/// The classes of every row, in order.
fn rows(document: &str) -> Vec<&str> {
    document
        .split("<div class=\"row ")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap_or_default())
        .collect()
}

fn data<'a>(document: &'a str, name: &str) -> &'a str {
    let (_, rest) = document
        .split_once(&format!("data-{name}=\""))
        .unwrap_or_else(|| panic!("no data-{name}"));
    rest.split('"').next().unwrap_or_default()
}

/// `dwell trace` of the last run, about which a harness's own files know.
fn trace(system: &System, arguments: &[&str]) -> std::process::Output {
    let output = dwell(&system.harness_home())
        .arg("trace")
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[test]
fn a_browser_draws_a_runs_page_marks_its_critical_path_and_searches_it() {
    let system = System::start(&[]);
    system.run(&[], &["sh", "-c", "printf out; sleep 0.02"]);
    let page = system.homes.path().join("call.html");
    trace(
        &system,
        &["export", "--format", "html", "-o", page.to_str().unwrap()],
    );
    let shown: Json = serde_json::from_slice(&trace(&system, &["show", "--json"]).stdout).unwrap();
    let expected = shown["rows"].as_array().unwrap();

    let document = opened(&page, "");
    assert!(!document.contains("id=\"script-error\""), "{document}");
    let drawn = rows(&document);
    assert_eq!(drawn.len(), expected.len());
    assert_eq!(data(&document, "rows"), expected.len().to_string());
    for (drawn, expected) in drawn.iter().zip(expected) {
        let has = |class: &str| drawn.split(' ').any(|one| one == class);
        assert!(has(expected["role"].as_str().unwrap()), "{drawn} {expected}");
        assert_eq!(
            has("critical"),
            expected["critical"] == true,
            "{drawn} {expected}"
        );
        assert_eq!(
            has("mailbox"),
            expected["class"] == "mailbox",
            "{drawn} {expected}"
        );
    }
    assert!(drawn.iter().filter(|row| row.contains("critical")).count() > 3);
    let steps = shown["critical_path"].as_array().unwrap().len();
    assert_eq!(document.matches("class=\"step\"").count(), steps);
    assert!(document.contains("<td>unattributed</td>"), "the account is there");

    let searched = opened(&page, "#search=mailbox%20processsupervisor");
    let hits = expected
        .iter()
        .filter(|row| row["name"] == "mailbox ProcessSupervisor")
        .count();
    assert!(hits > 0);
    assert_eq!(data(&searched, "hits"), hits.to_string());
    assert_eq!(
        rows(&searched).iter().filter(|row| row.ends_with(" hit")).count(),
        hits
    );
    assert_eq!(
        rows(&searched)
            .iter()
            .filter(|row| row.ends_with(" miss"))
            .count(),
        expected.len() - hits
    );

    let zoomed = opened(&page, "#from=100&to=400&critical=1&theme=dark");
    assert_eq!((data(&zoomed, "from"), data(&zoomed, "to")), ("100", "400"));
    assert_eq!(data(&zoomed, "theme"), "dark");
}

#[test]
fn a_script_that_is_not_the_pages_own_does_not_run_in_it_and_the_page_says_so() {
    let system = System::start(&[]);
    system.run(&[], &["true"]);
    let page = system.homes.path().join("call.html");
    trace(
        &system,
        &["export", "--format", "html", "-o", page.to_str().unwrap()],
    );
    let calm = std::fs::read_to_string(&page).unwrap();
    let foreign = "<script>document.body.dataset.stolen = '1'</script></body>";
    std::fs::write(&page, calm.replace("</body>", foreign)).unwrap();
    let document = opened(&page, "");
    assert!(
        !document.contains("data-stolen"),
        "the policy let a foreign script run"
    );
    assert!(
        document.contains("id=\"script-error\""),
        "what the policy refuses is seen"
    );
}

#[test]
fn a_run_is_listed_explained_and_found_by_its_first_digits() {
    let system = System::start(&[]);
    for _ in 0..6 {
        system.run(&[], &["sh", "-c", "true"]);
    }
    system.run(&[], &["sh", "-c", "sleep 0.3"]);
    let list: Json = serde_json::from_slice(&trace(&system, &["list", "--json"]).stdout).unwrap();
    let calls = list["calls"].as_array().unwrap();
    assert_eq!(calls.len(), 7);
    assert_eq!(
        (&calls[0]["program"], &calls[0]["status_detail"]),
        (&"sh".into(), &0.into())
    );
    assert_eq!(calls[0]["biggest"]["segment"], "run");

    let id = calls[0]["trace_id"].as_str().unwrap();
    let why: Json = serde_json::from_slice(&trace(&system, &["why", &id[..12], "--json"]).stdout).unwrap();
    assert_eq!(why["trace_id"], id);
    assert_eq!(why["earlier_calls"], 6);
    assert_eq!(why["ranked"], "by_excess");
    assert_eq!(why["reasons"][0]["cause"], "command");
}
