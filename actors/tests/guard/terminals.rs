//! Commands on a terminal, with a guard and without.

use std::time::Duration;

use dwell_actors::spawn::{
    Environment, ExitStatus, InputPipe, OutputPipe, SpawnErrorKind, SpawnRequest, Spawned, Spawner,
    StdinError, TERMINAL_SIDE_MAX, Terminal, TerminalSize,
};
use dwell_testkit::{Census, Leak};

use super::executor::Guarded;
use super::runner::tests;
use super::support::{read_all, read_some, run, shell, start, submit};

tests! {
    RootAndNobody:
        a_command_finds_its_terminal_its_size_and_its_foreground,
        all_that_was_written_is_read_and_the_end_is_an_end,
        resizes_reach_the_foreground_job_and_are_clamped,
        keys_and_signals_reach_the_foreground_group_alone,
        the_hang_up_is_heard,
        both_directions_full_do_not_block_an_interrupt,
        a_failed_start_leaves_no_terminal,
    ;
}

const MODES: [Guarded; 3] = [Guarded::Fully, Guarded::ByHunt, Guarded::Not];

fn on_terminal(script: &str) -> SpawnRequest {
    SpawnRequest {
        terminal: Some(TerminalSize {
            rows: 33,
            columns: 111,
        }),
        ..shell(script)
    }
}

async fn begin(guarded: Guarded, script: &str) -> (Spawner, Spawned, OutputPipe, Terminal) {
    let spawner = Spawner::with_guard(guarded.options()).unwrap();
    let spawned = start(&spawner, on_terminal(script)).await;
    assert!(spawned.stderr.is_none());
    let out = OutputPipe::from_fd(spawned.stdout.try_clone().unwrap()).unwrap();
    let terminal = spawned.terminal.clone().unwrap();
    (spawner, spawned, out, terminal)
}

async fn until(out: &mut OutputPipe, what: &str) -> String {
    let mut text = String::new();
    while !text.contains(what) {
        let chunk = read_some(out)
            .await
            .unwrap_or_else(|| panic!("the end before {what}: {text}"));
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text
}

fn a_command_finds_its_terminal_its_size_and_its_foreground() {
    for guarded in MODES {
        run(async {
            let script = "tty; stty size; echo $TERM; ps -o pid=,pgid=,sid=,tpgid= -p $$; echo $$ >/dev/tty";
            let (_spawner, spawned, mut out, terminal) = begin(guarded, script).await;
            assert_eq!(
                terminal.size().unwrap(),
                TerminalSize {
                    rows: 33,
                    columns: 111
                }
            );
            let text = String::from_utf8(read_all(&mut out).await).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            assert!(lines[0].starts_with("/dev/pts/"), "{text}");
            assert_eq!(lines[1], "33 111");
            assert_eq!(lines[2], "xterm-256color");
            let pid = spawned.process.pid().to_string();
            let ids: Vec<&str> = lines[3].split_whitespace().collect();
            // `ps` itself is not in the foreground: a shell without job control is.
            assert_eq!(ids, [pid.as_str(); 4], "{text}");
            assert_eq!(lines[4], pid);
            assert_eq!(
                spawned.process.watch().unwrap().wait().await.unwrap().status,
                ExitStatus::Code(0)
            );
            assert_eq!(
                lines.len(),
                5,
                "standard error is the same terminal and has nothing to say"
            );
        });
    }
}

/// P-22.
fn all_that_was_written_is_read_and_the_end_is_an_end() {
    for guarded in MODES {
        run(async {
            for _ in 0..10 {
                let (_spawner, spawned, mut out, _) =
                    begin(guarded, "stty -opost; seq 1 20000; echo last").await;
                let text = String::from_utf8(read_all(&mut out).await).unwrap();
                let expected: String = (1..=20_000)
                    .map(|n| format!("{n}\n"))
                    .chain(["last\n".into()])
                    .collect();
                assert!(text == expected, "{} bytes of {}", text.len(), expected.len());
                drop(spawned);
            }
        });
    }
}

/// P-23.
fn resizes_reach_the_foreground_job_and_are_clamped() {
    for guarded in MODES {
        run(async {
            let script = "trap 'stty size' WINCH; echo up; while :; do sleep 0.01; done";
            let (_spawner, spawned, mut out, terminal) = begin(guarded, script).await;
            until(&mut out, "up").await;
            terminal
                .resize(TerminalSize {
                    rows: 50,
                    columns: 132,
                })
                .unwrap();
            until(&mut out, "50 132").await;
            for side in 0..1_000 {
                terminal
                    .resize(TerminalSize {
                        rows: side,
                        columns: side,
                    })
                    .unwrap();
            }
            terminal.resize(TerminalSize { rows: 0, columns: 0 }).unwrap();
            assert_eq!(terminal.size().unwrap(), TerminalSize::default());
            terminal
                .resize(TerminalSize {
                    rows: 65_535,
                    columns: 65_535,
                })
                .unwrap();
            assert_eq!(terminal.size().unwrap().rows, TERMINAL_SIDE_MAX);
            until(&mut out, "4096 4096").await;
            spawned.process.signal_group(9).unwrap();
            spawned.process.watch().unwrap().wait().await.unwrap();
            terminal.resize(TerminalSize::default()).unwrap();
        });
    }
}

fn keys_and_signals_reach_the_foreground_group_alone() {
    for guarded in MODES {
        run(async {
            // An interactive shell gives each job a group of its own and the terminal to the one in front.
            let script = "exec bash --norc --noprofile -ic 'sleep 1000 & bg=$!; \
                (trap \"echo usr1\" USR1; trap \"echo int; exit\" INT; echo up; while :; do sleep 0.01; done); \
                kill -0 $bg && echo spared; kill $bg'";
            let (_spawner, spawned, mut out, terminal) = begin(guarded, script).await;
            until(&mut out, "up\r\n").await;
            spawned.process.signal_foreground(&terminal, 10).unwrap();
            until(&mut out, "usr1").await;
            spawned.process.signal_foreground(&terminal, 2).unwrap();
            let rest = until(&mut out, "spared").await;
            assert!(rest.contains("int"), "{rest}");
            assert!(spawned.process.signal_foreground(&terminal, 99).is_err());
        });
    }
}

/// P-22.
fn the_hang_up_is_heard() {
    for guarded in MODES {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(directory.path(), mode).unwrap();
            let witness = directory.path().join("witness");
            let script = format!(
                "trap 'echo hup >{0}; exit' HUP; echo up; while :; do sleep 0.01; done",
                witness.display()
            );
            let (_spawner, spawned, mut out, terminal) = begin(guarded, &script).await;
            until(&mut out, "up").await;
            let Spawned {
                process,
                stdin,
                stdout,
                terminal: other,
                ..
            } = spawned;
            drop((stdin, stdout, out, terminal, other));
            assert_eq!(
                process.watch().unwrap().wait().await.unwrap().status,
                ExitStatus::Code(0)
            );
            assert_eq!(std::fs::read_to_string(&witness).unwrap(), "hup\n");
        });
    }
}

/// P-24, P-20.
fn both_directions_full_do_not_block_an_interrupt() {
    for guarded in MODES {
        run(async {
            let script = "stty raw -echo isig; echo up; exec yes";
            let (_spawner, mut spawned, mut out, terminal) = begin(guarded, script).await;
            until(&mut out, "up").await;
            let mut stdin = InputPipe::from_fd(spawned.stdin.take().unwrap()).unwrap();
            let mut flood = bytes::Bytes::from(vec![b'x'; 1 << 20]);
            let bound = Duration::from_millis(50);
            assert!(
                tokio::time::timeout(bound, stdin.write_all(&mut flood))
                    .await
                    .is_err(),
                "nobody reads: the writer waits"
            );
            spawned.process.signal_foreground(&terminal, 2).unwrap();
            let exit = tokio::time::timeout(Duration::from_secs(10), async {
                spawned.process.watch().unwrap().wait().await
            });
            assert_eq!(
                exit.await.unwrap().unwrap().status,
                ExitStatus::Signal(2),
                "{guarded:?}"
            );
            read_all(&mut out).await;
            let left = stdin.write_all(&mut flood).await;
            assert!(matches!(left, Err(StdinError::Closed)), "{left:?}");
        });
    }
}

fn a_failed_start_leaves_no_terminal() {
    run(async {});
    for guarded in MODES {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            let request = || SpawnRequest {
                argv: vec![b"/no/such".to_vec()],
                env: Environment::default(),
                ..on_terminal("")
            };
            // A keeper in use and one in reserve: from then on no more are made.
            for _ in 0..4 {
                assert!(submit(&spawner, request()).await.result.is_err());
            }
            let before = Census::take().unwrap();
            let error = submit(&spawner, request()).await.result.unwrap_err();
            assert!(matches!(error.kind, SpawnErrorKind::ProgramMissing { .. }));
            assert_eq!(Census::take().unwrap().leak_since(&before), Leak::default());
        });
    }
}
