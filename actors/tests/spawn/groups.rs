//! Signals, groups and who is reaped when.

use dwell_actors::spawn::{ExitStatus, Member, OutputPipe, Reap, SignalError, Spawner, members};
use dwell_testkit::{Marker, wait_until};
use rustix::process::Signal;

use super::support::{PATIENCE, not_counting, read_some, request, run, shell, start};

const TREE: &str = "trap '' TERM; for i in 1 2 3; do sh -c \"trap '' TERM; echo up; while :; do sleep 0.05; done\" & done; wait; wait";

/// P-08, without a guard.
#[test]
fn a_tree_that_ignores_term_dies_of_kill() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        let mut request = shell(TREE);
        let mark = marker.pair();
        let pairs = request.env.pairs().iter().cloned();
        request.env = dwell_actors::spawn::Environment::exact(
            pairs.chain([(mark.0.as_bytes().to_vec(), mark.1.as_bytes().to_vec())]),
        );
        let spawned = start(&spawner, request).await;
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        let mut up = 0;
        while up < 3 {
            up += read_some(&mut out)
                .await
                .unwrap()
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
        }
        assert!(spawned.process.members().unwrap().len() >= 4);
        spawned.process.signal_group(Signal::TERM.as_raw()).unwrap();
        // Three rounds of each loop have surely seen the signal.
        assert!(
            wait_until(std::time::Duration::from_millis(150), || spawned
                .process
                .exit()
                .unwrap()
                .is_some())
            .await
            .is_err()
        );
        assert!(marker.living().unwrap().len() >= 4);
        spawned.process.signal_group(Signal::KILL.as_raw()).unwrap();
        let exit = spawned.process.watch().unwrap().wait().await.unwrap();
        assert_eq!(exit.status, ExitStatus::Signal(9));
        wait_until(PATIENCE, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
    });
}

#[test]
fn a_signal_to_the_leader_spares_its_children() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("sleep 60 & echo up; wait")).await;
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        read_some(&mut out).await.unwrap();
        spawned.process.signal_leader(15).unwrap();
        let exit = spawned.process.watch().unwrap().wait().await.unwrap();
        assert_eq!(exit.status, ExitStatus::Signal(15));
        let group = spawned.process.members().unwrap();
        let (zombies, alive): (Vec<&Member>, Vec<&Member>) =
            group.iter().partition(|member| member.is_zombie);
        assert_eq!(
            zombies.iter().map(|member| member.pid).collect::<Vec<_>>(),
            [spawned.process.pid()]
        );
        assert_eq!(zombies[0].start_ticks, spawned.process.start_ticks().unwrap());
        assert_eq!(alive.len(), 1, "the sleeper lives on: {group:?}");
    });
}

/// P-25, without a guard: the number cannot be used again.
#[test]
fn the_group_id_stays_taken_until_the_leader_is_reaped() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, request(&["true"])).await;
        let pid = spawned.process.pid();
        spawned.process.watch().unwrap().wait().await.unwrap();
        // The zombie is the group's only member: no other process can get its number.
        assert_eq!(members(pid).unwrap().len(), 1);
        spawned.process.signal_group(Signal::TERM.as_raw()).unwrap();
        spawned.process.signal_leader(Signal::TERM.as_raw()).unwrap();
        assert!(matches!(spawned.process.reap().unwrap(), Reap::Done(_)));
        assert!(members(pid).unwrap().is_empty());
    });
}

/// P-25, without a guard: when it could be, nothing is sent.
#[test]
fn after_a_strangers_wait_the_group_is_not_signalled() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("sleep 60 >/dev/null 2>&1 & echo $!")).await;
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        let sleeper: i32 = std::str::from_utf8(&read_some(&mut out).await.unwrap())
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        spawned.process.watch().unwrap().wait().await.unwrap();
        let leader = rustix::process::Pid::from_raw(spawned.process.pid() as i32).unwrap();
        rustix::process::waitpid(Some(leader), rustix::process::WaitOptions::empty()).unwrap();
        assert!(matches!(spawned.process.signal_group(9), Err(SignalError::Gone)));
        assert!(matches!(spawned.process.signal_leader(9), Err(SignalError::Gone)));
        assert!(spawned.process.reap().is_err());
        let sleeper = rustix::process::Pid::from_raw(sleeper).unwrap();
        rustix::process::kill_process(sleeper, Signal::KILL).unwrap();
    });
}

/// P-09.
#[test]
fn a_stopped_process_can_be_killed_and_continued() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("kill -STOP $$; exit 5")).await;
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", spawned.process.pid())).unwrap();
        wait_until(PATIENCE, || state().contains(") T ")).await.unwrap();
        assert_eq!(spawned.process.exit().unwrap(), None, "stopping is no end");
        spawned.process.signal_leader(Signal::CONT.as_raw()).unwrap();
        assert_eq!(
            spawned.process.watch().unwrap().wait().await.unwrap().status,
            ExitStatus::Code(5)
        );
        let stopped = start(&spawner, shell("kill -STOP $$")).await;
        stopped.process.signal_group(9).unwrap();
        assert_eq!(
            stopped.process.watch().unwrap().wait().await.unwrap().status,
            ExitStatus::Signal(9)
        );
    });
}

#[test]
fn numbers_that_are_no_signals_are_refused() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, request(&["sleep", "60"])).await;
        for number in [0, -1, 64, 65, i32::MAX, i32::MIN] {
            let refused = spawned.process.signal_leader(number);
            assert!(matches!(refused, Err(SignalError::Unsupported { number: same }) if same == number));
            assert!(matches!(
                spawned.process.signal_group(number),
                Err(SignalError::Unsupported { .. })
            ));
        }
        assert_eq!(spawned.process.exit().unwrap(), None);
    });
}
