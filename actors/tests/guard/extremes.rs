//! What can only be had in a place of its own: few terminals, few numbers, a file system that stands still.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dwell_actors::spawn::{
    ExitStatus, SpawnError, SpawnErrorKind, SpawnRequest, Spawned, Spawner, TerminalSize, TreeReport,
};
use dwell_messages::process::Ending;
use dwell_testkit::{Census, Leak, Marker, wait_until};

use super::ends::{BOUND, assert_works, connect, connect_with, shell as command, until, wait};
use super::executor::{Guarded, stand};
use super::runner::{again, is_root, tests};
use super::support::{PATIENCE, failure, finish, read_some, request, run, shell, start, submit};

tests! {
    RootAndNobody:
        terminals_run_out_and_that_is_a_typed_error,
        a_number_that_is_used_again_is_not_signalled,
        a_set_user_id_program_gains_what_the_file_says_and_no_more,
    ;
    Anyone:
        what_cannot_be_killed_is_reported_and_the_session_goes_on,
        without_a_guard_what_cannot_be_killed_is_reported_too,
        an_executor_ends_though_something_cannot_be_killed;
}

/// Says that this is the process inside of the place that was made.
const INSIDE: &str = "DWELL_GUARD_INSIDE";

/// This test again in namespaces of its own: as root in new ones, as anybody else with a user namespace around them.
fn inside(namespaces: &[&str], preparation: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    if !is_root() {
        command.arg("--map-root-user");
    }
    let own = std::env::current_exe().unwrap();
    let script = format!("set -e; {preparation} exec \"$0\"");
    command.args(namespaces).args(["sh", "-c", &script]).arg(own);
    again(command, INSIDE);
    false
}

/// P-07, with a `/dev/pts` of the test's own that has room for a few.
fn terminals_run_out_and_that_is_a_typed_error() {
    const MOST: usize = 3;
    let options = format!("newinstance,ptmxmode=0666,max={MOST}");
    let mounting =
        format!("mount -t devpts -o {options} devpts /dev/pts; mount --bind /dev/pts/ptmx /dev/ptmx;");
    if !inside(&["--mount"], &mounting) {
        return;
    }
    for guarded in [Guarded::Fully, Guarded::ByHunt, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            let on_terminal = || SpawnRequest {
                terminal: Some(TerminalSize::default()),
                ..request(&["sleep", "1000"])
            };
            let mut running: Vec<Spawned> = Vec::new();
            for _ in 0..MOST {
                running.push(start(&spawner, on_terminal()).await);
            }
            // What is made ahead of time is made by now.
            finish(start(&spawner, request(&["true"])).await).await;
            let before = Census::take().unwrap();
            let kind = failure(&spawner, on_terminal()).await;
            assert!(
                matches!(kind, SpawnErrorKind::TerminalUnavailable { errno: 11 | 28 }),
                "{guarded:?}: {kind:?}"
            );
            assert!(
                SpawnError::from(kind).to_string().contains("run without one"),
                "{kind:?}"
            );
            assert_eq!(Census::take().unwrap().leak_since(&before), Leak::default());
            finish(start(&spawner, request(&["true"])).await).await;
            drop(running.pop());
            // Free again when the last of its command is gone.
            let deadline = Instant::now() + PATIENCE;
            while submit(&spawner, on_terminal()).await.result.is_err() {
                assert!(Instant::now() < deadline, "{guarded:?}: a terminal is lost");
            }
        });
    }
}

/// P-25. The number is given out again on purpose: in the guard's own namespace, or in one around executor and guard.
fn a_number_that_is_used_again_is_not_signalled() {
    if !inside(&["--pid", "--fork", "--mount-proc", "--kill-child"], "") {
        return;
    }
    // Without a guard there is nothing to inject: until it is given up, the dead leader keeps its number.
    for guarded in [Guarded::Fully, Guarded::ByHunt] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            let first = start(&spawner, request(&["true"])).await;
            let mut watcher = first.process.watch().unwrap();
            watcher.wait().await.unwrap();
            let number = first.process.pid();
            // A keeper made ahead of time may take the number: then it is tried again with what comes next.
            let script = format!(
                "while :; do echo {0} >/proc/sys/kernel/ns_last_pid; sh -c '[ $$ = {1} ] || exit 9; \
                 trap \"echo hit\" TERM; echo up; while :; do sleep 0.01; done' && exit 0; \
                 [ $? = 9 ] || exit 1; done",
                number - 1,
                number
            );
            let (bystander, mut out) = stand(&spawner, &script, ("A", "b")).await;
            for _ in 0..100 {
                first.process.signal_leader(15).unwrap();
                first.process.signal_group(15).unwrap();
            }
            let _ = first.process.terminate(Duration::ZERO).unwrap();
            assert_eq!(watcher.tree_ended().await.unwrap(), TreeReport::default());
            drop((watcher, first));
            // The positive control: whoever goes by number does hit it, and it was not hit before.
            let kill = format!("kill -TERM {number}");
            let killed = finish(start(&spawner, shell(&kill)).await).await;
            assert_eq!(killed.exit.status, ExitStatus::Code(0), "{guarded:?}");
            assert_eq!(read_some(&mut out).await.unwrap(), "hit\n", "{guarded:?}");
            bystander.process.signal_group(9).unwrap();
            let exit = bystander.process.watch().unwrap().wait().await.unwrap();
            assert_eq!(exit.status, ExitStatus::Signal(9));
            assert_eq!(super::support::read_all(&mut out).await, b"", "hit once");
        });
    }
}

/// P-32. dwell does not ask for `no_new_privs`: what the bit on a file gives is the machine's policy, as it is without
/// dwell. Root makes the program nobody's and nobody root's, so that each gains and loses something.
fn a_set_user_id_program_gains_what_the_file_says_and_no_more() {
    const PROGRAM: &str = "DWELL_GUARD_SET_USER_ID";
    let whoami = rustix::process::geteuid().as_raw();
    let (program, expected, _directory) = match std::env::var(PROGRAM) {
        // As nobody, with root's program.
        Ok(program) => (PathBuf::from(program), 0, None),
        Err(_) => {
            let directory = tempfile::tempdir().unwrap();
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            let owner = if is_root() { 65_534 } else { whoami };
            let program = directory.path().join("id");
            set_user_id(&program, owner);
            (program, owner, Some(directory))
        }
    };
    for guarded in [Guarded::Fully, Guarded::ByHunt, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            let program = program.to_str().unwrap();
            let script = format!("{program} -u; {program} -ru; grep NoNewPrivs /proc/self/status; id -u");
            let finished = finish(start(&spawner, shell(&script)).await).await;
            assert_eq!(
                String::from_utf8(finished.stdout).unwrap(),
                format!("{expected}\n{whoami}\nNoNewPrivs:\t0\n{whoami}\n"),
                "{guarded:?}: effective, real, and the next command's"
            );
        });
    }
    if is_root() {
        use std::os::unix::process::CommandExt as _;
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("id");
        set_user_id(&program, 0);
        let mut command = Command::new("/proc/self/exe");
        command
            .uid(65_534)
            .gid(65_534)
            .current_dir("/")
            .env(PROGRAM, &program);
        again(command, INSIDE);
    }
}

/// A copy of `id` that runs as its owner.
fn set_user_id(program: &Path, owner: u32) {
    std::fs::copy("/usr/bin/id", program).unwrap();
    std::os::unix::fs::chown(program, Some(owner), None).unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o4755)).unwrap();
}

/// A file system on a file of the test's, frozen: whoever writes to it waits in the kernel and hears no signal.
struct Frozen {
    place: PathBuf,
    /// Thaws and unmounts when its standard input ends, which the end of this process brings about, whatever it is.
    thaw: Child,
    _directory: tempfile::TempDir,
}

impl Frozen {
    /// Panics, and says what is missing, where there can be none.
    fn new() -> Self {
        assert!(
            is_root(),
            "this test needs root: it mounts a file system and freezes it"
        );
        let directory = tempfile::tempdir().unwrap();
        let (image, place) = (directory.path().join("image"), directory.path().join("place"));
        std::fs::create_dir(&place).unwrap();
        std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        must("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()]);
        must(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_ref(), place.as_ref()],
        );
        let thaw = Command::new("sh")
            .args([
                "-c",
                "read x; fsfreeze --unfreeze \"$0\"; umount \"$0\" || umount -l \"$0\"",
            ])
            .arg(&place)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let frozen = Self {
            place,
            thaw,
            _directory: directory,
        };
        must("fsfreeze", &["--freeze".as_ref(), frozen.place.as_ref()]);
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(mut word) = self.thaw.stdin.take() {
            let _ = word.write_all(b"\n");
        }
        let _ = self.thaw.wait();
    }
}

fn must(program: &str, arguments: &[&std::ffi::OsStr]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    assert!(
        output.status.success(),
        "this test needs a loop device and ext4: {program} says {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// P-37.
fn what_cannot_be_killed_is_reported_and_the_session_goes_on() {
    unkillable(Guarded::Fully);
    unkillable(Guarded::ByHunt);
}

/// P-37 without a guard.
fn without_a_guard_what_cannot_be_killed_is_reported_too() {
    unkillable(Guarded::Not);
}

fn unkillable(guarded: Guarded) {
    let frozen = Frozen::new();
    let marker = Marker::new().unwrap();
    let (name, value) = marker.pair();
    run(async {
        let ends = connect_with(guarded).await;
        let file = frozen.place.join("file");
        let script = format!("echo up; echo x >{}; echo thawed", file.display());
        let mut stuck = ends.harness.exec(command(&script).env(name, value));
        until(&mut stuck, "up").await;
        let is_stuck = || {
            marker
                .living()
                .unwrap()
                .iter()
                .any(|process| state(process.pid) == Some('D'))
        };
        wait_until(PATIENCE, is_stuck).await.unwrap();
        let begun = Instant::now();
        let stopping = stuck.stop(Duration::from_millis(100));
        // The others are served while it is waited for.
        let (report, ()) = tokio::join!(stopping, async {
            for _ in 0..5 {
                assert_works(&ends.harness).await;
            }
        });
        let report = report.unwrap();
        assert!(report.unkillable >= 1, "{guarded:?}: {report:?}");
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(12),
            "{guarded:?}: reported after {took:?}"
        );
        println!(
            "{guarded:?}: {} unkillable, reported after {} ms",
            report.unkillable,
            took.as_millis()
        );
        // Asked again it is no less bounded.
        let report = tokio::time::timeout(BOUND, stuck.stop(Duration::ZERO))
            .await
            .unwrap();
        assert!(report.unwrap().unkillable >= 1, "{guarded:?}");
        assert_works(&ends.harness).await;
        drop(frozen);
        let finished = wait(stuck).await.unwrap();
        // TERM was there first, and the kernel keeps to it.
        let status = dwell_messages::ExitStatus::Signal(15);
        assert_eq!(
            (finished.status, finished.ending),
            (status, Some(Ending::Terminated))
        );
        wait_until(PATIENCE, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
        assert_works(&ends.harness).await;
    });
}

/// P-37: it is left to the kernel, and not waited for without end.
fn an_executor_ends_though_something_cannot_be_killed() {
    let frozen = Frozen::new();
    let marker = Marker::new().unwrap();
    let (name, value) = marker.pair();
    run(async {
        let ends = connect().await;
        let script = format!("echo up; echo x >{}", frozen.place.join("file").display());
        let mut stuck = ends.harness.exec(command(&script).env(name, value));
        until(&mut stuck, "up").await;
        let is_stuck = || {
            marker
                .living()
                .unwrap()
                .iter()
                .any(|process| state(process.pid) == Some('D'))
        };
        wait_until(PATIENCE, is_stuck).await.unwrap();
        let begun = Instant::now();
        ends.executor.shutdown().await;
        let took = begun.elapsed();
        assert!(took < BOUND, "{took:?}");
        println!(
            "an executor with an unkillable command ended after {} ms",
            took.as_millis()
        );
        drop((stuck, frozen));
        wait_until(PATIENCE, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
    });
}

/// A process's state, as `/proc` has it.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
