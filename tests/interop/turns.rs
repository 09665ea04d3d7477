//! The turns.

use std::time::Duration;

use dwell_testkit::{Cut, TcpFaultProxy};
use serde_json::json;
use tempfile::TempDir;

use crate::mock::{Step, exec, patch};
use crate::world::{World, confined};

/// What runs unconfined is asked for so.
const FULL: Option<&str> = Some("danger-full-access");
/// What runs confined to its workspace.
const WORKSPACE: Option<&str> = Some("workspace-write");

#[test]
fn a_turn_runs_commands_that_succeed_fail_and_are_not_there() {
    if !confined("turns::a_turn_runs_commands_that_succeed_fail_and_are_not_there") {
        return;
    }
    let world = World::start(&[]);
    let script = vec![
        exec("echo hello; pwd; exit 3"),
        exec("no-such-command"),
        exec("printf 'a%.0s' $(seq 10)"),
    ];
    let turn = world.turn(&world.url, FULL, script);
    let [failing, missing, good] = &turn.outputs[..] else {
        panic!("three outputs: {:?} {}", turn.outputs, turn.said);
    };
    let work = world.work();
    assert!(
        failing.contains("exited with code 3") && failing.contains("hello"),
        "{failing}"
    );
    assert!(
        failing.contains(work.to_str().unwrap()),
        "in its own directory: {failing}"
    );
    assert!(missing.contains("exited with code 127"), "{missing}");
    assert!(
        good.contains("exited with code 0") && good.contains("aaaaaaaaaa"),
        "{good}"
    );
    world.traced(3);
}

#[test]
fn a_turn_runs_through_a_relay_that_can_read_nothing() {
    if !confined("turns::a_turn_runs_through_a_relay_that_can_read_nothing") {
        return;
    }
    let world = World::start_bridged();
    let script = vec![
        exec("echo hello; exit 3"),
        patch("*** Add File: new\n+line\n"),
        exec("cat new; seq 1 2800000"),
    ];
    let turn = world.turn(&world.url, FULL, script);
    let [failing, added, long] = &turn.outputs[..] else {
        panic!("three outputs: {:?} {}", turn.outputs, turn.said);
    };
    assert!(
        failing.contains("exited with code 3") && failing.contains("hello"),
        "{failing}"
    );
    assert!(added.contains("A new"), "{added}");
    assert!(long.contains("line\n") && long.contains("2800000"), "{long}");
    world.traced(2);
}

#[test]
fn a_turn_types_into_a_command_that_runs_on() {
    if !confined("turns::a_turn_types_into_a_command_that_runs_on") {
        return;
    }
    let world = World::start(&[]);
    let asks = "read x; echo got-$x; read y; echo got-$y; exit 4";
    let types = |text: &str| {
        Step::Call(
            "write_stdin",
            json!({"session_id": "$SESSION", "chars": text, "yield_time_ms": 10_000}),
        )
    };
    let begun = json!({"cmd": asks, "tty": true, "yield_time_ms": 500});
    let script = vec![Step::Call("exec_command", begun), types("one\n"), types("two\n")];
    let turn = world.turn(&world.url, FULL, script);
    let [begun, one, two] = &turn.outputs[..] else {
        panic!("three outputs: {:?} {}", turn.outputs, turn.said);
    };
    assert!(begun.contains("running with session ID"), "{begun}");
    assert!(one.contains("got-one"), "{one}");
    assert!(
        two.contains("got-two") && two.contains("exited with code 4"),
        "{two}"
    );
    world.traced(1);
}

#[test]
fn a_turn_patches_and_reads_files() {
    if !confined("turns::a_turn_patches_and_reads_files") {
        return;
    }
    let world = World::start(&[]);
    std::fs::write(world.work().join("gone"), "x\n").unwrap();
    std::fs::write(world.work().join("AGENTS.md"), "be brief\n").unwrap();
    let script = vec![
        patch("*** Add File: sub/dir/new\n+line one\n+line two\n"),
        patch("*** Update File: sub/dir/new\n@@\n-line one\n+line 1\n line two\n*** Delete File: gone\n"),
        exec("cat sub/dir/new; ls"),
    ];
    let turn = world.turn(&world.url, FULL, script);
    let [added, updated, listed] = &turn.outputs[..] else {
        panic!("three outputs: {:?} {}", turn.outputs, turn.said);
    };
    assert!(added.contains("A sub/dir/new"), "{added}");
    assert!(
        updated.contains("M sub/dir/new") && updated.contains("D gone"),
        "{updated}"
    );
    assert!(
        listed.contains("line 1\nline two") && !listed.contains("gone"),
        "{listed}"
    );
    assert_eq!(
        std::fs::read_to_string(world.work().join("sub/dir/new")).unwrap(),
        "line 1\nline two\n"
    );
    world.traced(1);
}

#[test]
fn a_turn_takes_twenty_megabytes() {
    if !confined("turns::a_turn_takes_twenty_megabytes") {
        return;
    }
    let world = World::start(&[]);
    let turn = world.turn(&world.url, FULL, vec![exec("seq 1 2800000")]);
    let [output] = &turn.outputs[..] else {
        panic!("one output: {:?} {}", turn.outputs, turn.said);
    };
    // What the CLI leaves out it has counted: 5,322,223 times four bytes, give or take the last.
    assert!(
        output.contains("exited with code 0") && output.contains("2800000"),
        "{output}"
    );
    let counted = output
        .split("Original token count: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let bytes = 4 * counted.parse::<u64>().unwrap();
    let sent = (1..=2_800_000_u64)
        .map(|line| line.to_string().len() as u64 + 1)
        .sum::<u64>();
    assert!(bytes.abs_diff(sent) <= 4, "{bytes} of {sent}");
    world.traced(1);
}

/// The CLI's own recovery, in the middle of a command's output: not a byte is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_outlives_its_connection() {
    if !confined("turns::a_turn_outlives_its_connection") {
        return;
    }
    let rounds = if std::env::var_os("DWELL_SOAK").is_some() {
        50
    } else {
        5
    };
    for round in 0..rounds {
        let world = World::start(&[]);
        let upstream = world.url.strip_prefix("ws://").unwrap().parse().unwrap();
        let proxy = TcpFaultProxy::start(upstream, 1).await.unwrap();
        let url = format!("ws://{}", proxy.address());
        let marker = world.work().join("half");
        let command = "seq 1 2000; touch half; while [ -e half ]; do sleep 0.02; done; seq 2001 4000; exit 5";
        let turning = tokio::task::spawn_blocking(move || {
            let turn = world.turn(&url, FULL, vec![exec(command), exec("echo again")]);
            (turn, world)
        });
        while !marker.exists() {
            assert!(
                !turning.is_finished(),
                "round {round}: the turn was over before its command was half-way"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.cut(if round % 2 == 0 { Cut::Reset } else { Cut::Close });
        std::fs::remove_file(&marker).unwrap();
        let (turn, world) = turning.await.unwrap();
        let [output, again] = &turn.outputs[..] else {
            panic!("two outputs: {:?} {}", turn.outputs, turn.said);
        };
        assert!(
            proxy.accepted() >= 2,
            "the control: there was a second connection"
        );
        assert!(output.contains("exited with code 5"), "round {round}: {output}");
        let counted = output
            .split("Original token count: ")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap();
        let sent = (1..=4_000_u64)
            .map(|line| line.to_string().len() as u64 + 1)
            .sum::<u64>();
        assert!(
            (4 * counted.parse::<u64>().unwrap()).abs_diff(sent) <= 4,
            "round {round}: {output}"
        );
        assert!(again.contains("again"), "{again}");
        world.traced(2);
    }
}

/// The CLI's own default policy: what is outside of the workspace can be read, and what is inside written.
#[test]
fn a_turn_in_the_clis_default_sandbox_writes_inside_of_the_workspace_alone() {
    if !confined("turns::a_turn_in_the_clis_default_sandbox_writes_inside_of_the_workspace_alone") {
        return;
    }
    for bridged in [false, true] {
        let world = if bridged {
            World::start_bridged()
        } else {
            World::start(&[])
        };
        // The CLI lets what is below /tmp be written, and the world is there.
        let elsewhere = TempDir::new_in("/var/tmp").unwrap();
        let outside = elsewhere.path().join("outside");
        let write = format!("echo no > {}", outside.display());
        let read = "head -c 5 /etc/passwd && echo yes > inside && cat inside";
        let added = patch("*** Add File: sub/new\n+line\n");
        let turn = world.turn(&world.url, WORKSPACE, vec![exec(read), exec(&write), added]);
        let [inside, refused, added] = &turn.outputs[..] else {
            panic!("three outputs: {:?} {}", turn.outputs, turn.said);
        };
        assert!(
            inside.contains("exited with code 0") && inside.contains("root:yes"),
            "{inside}"
        );
        assert!(world.work().join("inside").exists(), "{inside}");
        assert!(
            !outside.exists() && refused.contains("Read-only file system"),
            "{refused}"
        );
        assert!(!refused.contains("exited with code 0"), "{refused}");
        assert!(
            added.contains("A sub/new") && world.work().join("sub/new").exists(),
            "{added}"
        );
        // Without being asked for a policy it lets nothing be written at all.
        let turn = world.turn(
            &world.url,
            None,
            vec![exec("cat inside; echo no > inside"), exec("cat inside")],
        );
        let [refused, kept] = &turn.outputs[..] else {
            panic!("two outputs: {:?} {}", turn.outputs, turn.said);
        };
        assert!(
            refused.contains("yes") && refused.contains("Read-only file system"),
            "{refused}"
        );
        assert!(
            kept.contains("exited with code 0") && kept.contains("yes"),
            "{kept}"
        );
        // The control: it is the policy that keeps it.
        world.turn(&world.url, FULL, vec![exec(&write)]);
        assert!(outside.exists());
        world.traced(5);
    }
}

#[test]
fn what_the_cli_wants_confined_does_not_run_unless_the_operator_said_so() {
    if !confined("turns::what_the_cli_wants_confined_does_not_run_unless_the_operator_said_so") {
        return;
    }
    for (arguments, runs) in [
        (&["--sandbox", "refuse"][..], false),
        (&["--sandbox", "off"][..], true),
    ] {
        let world = World::start(arguments);
        let outside = world.home().join("outside");
        let turn = world.turn(
            &world.url,
            None,
            vec![exec(&format!("touch {}", outside.display()))],
        );
        assert_eq!(outside.exists(), runs, "{:?} {}", turn.outputs, turn.said);
        if !runs {
            assert!(turn.outputs[0].contains("--sandbox=off"), "{:?}", turn.outputs);
        }
        world.traced(usize::from(runs));
    }
}
