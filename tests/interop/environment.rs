//! The other way round: dwell's own harness, and a stock `codex exec-server` as its environment.

use std::time::Duration;

use dwell::{Command, ErrorCode, ExitStatus, Harness, RunEvent, Target};
use dwell_testkit::{Cut, TcpFaultProxy};

use crate::conformance::{BOUND, Server, awaits};
use crate::world::{codex, confined};

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .expect("what was waited for came in time")
}

async fn connect(url: &str) -> Harness {
    bounded(Harness::builder().connect(Target::dialect(url)))
        .await
        .unwrap()
}

fn shell(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_harness_runs_commands_on_a_stock_server() {
    if !confined("environment::a_harness_runs_commands_on_a_stock_server") {
        return;
    }
    let server = Server::stock(&codex());
    let harness = connect(&server.url).await;
    assert_eq!(harness.environment().os, "linux");
    let good = bounded(harness.exec(shell("echo out; echo err >&2")).wait())
        .await
        .unwrap();
    assert_eq!(
        (good.status, &*good.stdout.to_text(), &*good.stderr.to_text()),
        (ExitStatus::Code(0), "out\n", "err\n")
    );
    let failing = bounded(
        harness
            .exec(shell("pwd; echo $A; exit 3").current_dir("/tmp").env("A", "1"))
            .wait(),
    );
    let failing = failing.await.unwrap();
    assert_eq!(
        (failing.status, &*failing.stdout.to_text()),
        (ExitStatus::Code(3), "/tmp\n1\n")
    );
    let missing = bounded(harness.exec(Command::new("no-such-program")).wait())
        .await
        .unwrap_err();
    assert_eq!(
        (missing.code(), missing.errno()),
        (Some(ErrorCode::SpawnFailed), Some(2))
    );
    // All of what passed over there is on the way, as far as anybody here knows.
    assert!(
        good.timings.executor.iter().all(|(_, micros)| *micros == 0),
        "{}",
        good.timings
    );
    assert!(good.timings.transit_us > 0);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_server_takes_input_interrupts_and_ends() {
    if !confined("environment::a_stock_server_takes_input_interrupts_and_ends") {
        return;
    }
    let server = Server::stock(&codex());
    let harness = connect(&server.url).await;
    let mut lines = harness.exec(Command::new("head").args(["-n", "2"]).stdin_piped());
    assert!(matches!(
        bounded(lines.next()).await,
        Some(RunEvent::Started { .. })
    ));
    for line in ["one\n", "two\n"] {
        bounded(lines.write_stdin(line.into())).await.unwrap();
    }
    let finished = bounded(lines.wait()).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    // A terminal's input has an end that can be typed.
    let mut typed = harness.exec(Command::new("cat").pty(24, 80));
    assert!(matches!(
        bounded(typed.next()).await,
        Some(RunEvent::Started { .. })
    ));
    bounded(typed.write_stdin("a\n".into())).await.unwrap();
    bounded(typed.close_stdin()).await.unwrap();
    assert_eq!(bounded(typed.wait()).await.unwrap().status, ExitStatus::Code(0));
    let mut trapped = harness.exec(shell("trap 'exit 9' INT; echo up; while :; do sleep 0.01; done"));
    while bounded(trapped.next()).await != Some(RunEvent::Stdout("up\n".into())) {}
    bounded(trapped.signal(2)).await.unwrap();
    assert_eq!(bounded(trapped.wait()).await.unwrap().status, ExitStatus::Code(9));
    let mut long = harness.exec(Command::new("sleep").arg("1000"));
    assert!(matches!(
        bounded(long.next()).await,
        Some(RunEvent::Started { .. })
    ));
    long.terminate(Duration::ZERO);
    assert_eq!(bounded(long.wait()).await.unwrap().status, ExitStatus::Code(137));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_come_whole_from_a_stock_server_however_slowly_they_are_taken() {
    if !confined("environment::twenty_megabytes_come_whole_from_a_stock_server_however_slowly_they_are_taken")
    {
        return;
    }
    let server = Server::stock(&codex());
    let harness = connect(&server.url).await;
    for pause in [Duration::ZERO, Duration::from_millis(1)] {
        let mut run = harness.exec(Command::new("seq").args(["1", "2800000"]));
        let (mut text, mut pieces) = (Vec::new(), 0);
        while let Some(event) = bounded(run.next()).await {
            match event {
                RunEvent::Stdout(data) => text.extend_from_slice(&data),
                RunEvent::Started { .. } | RunEvent::Exited(_) => {}
                other => panic!("{other:?}"),
            }
            pieces += 1;
            if pieces % 8 == 0 {
                tokio::time::sleep(pause).await;
            }
        }
        assert_eq!(bounded(run.wait()).await.unwrap().status, ExitStatus::Code(0));
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.lines()
                .map(|line| line.parse::<u64>().unwrap())
                .eq(1..=2_800_000)
        );
    }
    harness.shutdown().await;
}

/// In the middle of a command's output: not a byte is lost, and none comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_a_stock_server_outlives_its_connection() {
    if !confined("environment::a_command_on_a_stock_server_outlives_its_connection") {
        return;
    }
    let server = Server::stock(&codex());
    let upstream = server.url.strip_prefix("ws://").unwrap().parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let proxy = TcpFaultProxy::start(upstream, 1).await.unwrap();
        let harness = connect(&format!("ws://{}", proxy.address())).await;
        let half = dir.path().join(format!("half{round}"));
        let script = format!(
            "seq 1 2000; touch {half}; while [ -e {half} ]; do sleep 0.02; done; seq 2001 4000; exit 5",
            half = half.display()
        );
        let run = harness.exec(shell(&script));
        let waiting = tokio::spawn(run.wait());
        awaits(&half).await;
        proxy.cut(if round % 2 == 0 { Cut::Reset } else { Cut::Close });
        std::fs::remove_file(&half).unwrap();
        let finished = bounded(waiting).await.unwrap().unwrap();
        assert_eq!(finished.status, ExitStatus::Code(5), "round {round}");
        let text = finished.stdout.to_text();
        assert!(
            text.lines()
                .map(|line| line.parse::<u64>().unwrap())
                .eq(1..=4_000),
            "round {round}"
        );
        assert!(
            proxy.accepted() >= 2,
            "the control: there was a second connection"
        );
        harness.shutdown().await;
    }
}

#[test]
fn the_command_line_runs_on_a_stock_server_and_shows_one_box_for_what_passed_there() {
    if !confined(
        "environment::the_command_line_runs_on_a_stock_server_and_shows_one_box_for_what_passed_there",
    ) {
        return;
    }
    let server = Server::stock(&codex());
    let home = tempfile::tempdir().unwrap();
    let dwell = |arguments: &[&str], input: std::process::Stdio| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dwell"));
        command
            .args(arguments)
            .env("DWELL_HOME", home.path())
            .stdin(input);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let run = ["run", "--environment", &server.url, "--tty=never", "--"];
    let asked = [&run[..], &["sh", "-c", "echo hi; exit 3"]].concat();
    let (code, out, err) = dwell(&asked, std::process::Stdio::null());
    assert_eq!((code, &*out), (Some(3), "hi\n"), "{err}");
    let (_, trace, err) = dwell(&["trace"], std::process::Stdio::null());
    assert!(trace.contains("response wait"), "{trace}{err}");
    // An input whose end cannot be said would be waited for without end.
    let (code, _, err) = dwell(&asked, std::process::Stdio::piped());
    assert!(
        code == Some(125) && err.contains("where a command's input ends"),
        "{err}"
    );
}
