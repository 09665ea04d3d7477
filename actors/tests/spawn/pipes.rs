//! Output and input.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::spawn::{
    ExitStatus, InputPipe, OutputPipe, PIPE_BYTES, READ_CHUNK_MAX_BYTES, Spawner, StdinError,
};

use super::support::{finish, not_counting, read_all, read_some, request, run, shell, start, with_stdin};

const MIB: usize = 1024 * 1024;

/// P-15, without a link.
#[test]
fn sixty_four_mebibytes_come_through_whole_and_in_order() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        // A stream whose every byte depends on its place: counted lines.
        let spawned = start(&spawner, shell("seq 1 9000000 | head -c 67108864")).await;
        assert_eq!(spawned.pipes.stdout_bytes, PIPE_BYTES);
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        let (mut total, mut line, mut next) = (0, Vec::new(), 1_u64);
        while let Some(chunk) = read_some(&mut out).await {
            total += chunk.len();
            for byte in chunk {
                if byte == b'\n' {
                    assert_eq!(std::str::from_utf8(&line).unwrap().parse(), Ok(next));
                    next += 1;
                    line.clear();
                } else {
                    line.push(byte);
                }
            }
        }
        assert_eq!(total, 64 * MIB);
        assert_eq!(
            spawned.process.watch().unwrap().wait().await.unwrap().status,
            ExitStatus::Code(0)
        );
    });
}

/// P-17, without a link.
#[test]
fn the_two_streams_are_kept_apart_and_each_in_order() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let script = "i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
        let finished = finish(start(&spawner, shell(script)).await).await;
        let expected = |mark: char| {
            (0..2000)
                .map(|i| format!("{mark}{i}\n"))
                .collect::<String>()
                .into_bytes()
        };
        assert_eq!(finished.stdout, expected('o'));
        assert_eq!(finished.stderr, expected('e'));
    });
}

/// P-14.
#[test]
fn output_written_before_anybody_reads_is_there_after_the_exit() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("printf abc; printf def >&2")).await;
        spawned.process.watch().unwrap().wait().await.unwrap();
        assert_eq!(
            read_all(&mut OutputPipe::from_fd(spawned.stdout).unwrap()).await,
            b"abc"
        );
        assert_eq!(
            read_all(&mut OutputPipe::from_fd(spawned.stderr.unwrap()).unwrap()).await,
            b"def"
        );
    });
}

#[test]
fn a_read_takes_no_more_than_it_may_and_zero_is_refused() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("printf 0123456789")).await;
        spawned.process.watch().unwrap().wait().await.unwrap();
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        assert!(out.read_chunk(0).await.is_err());
        assert_eq!(out.read_chunk(3).await.unwrap().unwrap(), "012");
        assert_eq!(out.read_chunk(1).await.unwrap().unwrap(), "3");
        assert_eq!(out.read_chunk(usize::MAX).await.unwrap().unwrap(), "456789");
        assert_eq!(out.read_chunk(1).await.unwrap(), None);
        assert_eq!(out.read_chunk(1).await.unwrap(), None, "the end stays the end");
    });
}

#[test]
fn dropped_reads_lose_nothing() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("seq 1 200000")).await;
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        let mut all = Vec::new();
        loop {
            // Polled once and dropped, ready or not: what it did not hand out must still be there.
            let mut once = Box::pin(out.read_chunk(1000));
            let chunk = match poll_once(once.as_mut()).await {
                Poll::Ready(chunk) => chunk.unwrap(),
                Poll::Pending => {
                    drop(once);
                    out.read_chunk(1000).await.unwrap()
                }
            };
            match chunk {
                Some(chunk) => all.extend_from_slice(&chunk),
                None => break,
            }
        }
        let expected: String = (1..=200_000).map(|i| format!("{i}\n")).collect();
        assert!(all == expected.as_bytes());
    });
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

#[test]
fn reading_what_is_there_lets_the_other_tasks_of_its_thread_have_their_turn() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, request(&["head", "-c", "65536", "/dev/zero"])).await;
        spawned.process.watch().unwrap().wait().await.unwrap();
        // All of it is in the pipe: no read has to wait, so none is a turn by itself.
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        let turns = std::cell::Cell::new(0_u32);
        let other = async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let reading = async {
            let mut total = 0;
            while let Some(chunk) = out.read_chunk(1).await.unwrap() {
                total += chunk.len();
            }
            total
        };
        tokio::select! {
            () = other => {}
            total = reading => assert_eq!(total, 65_536),
        }
        assert!(turns.get() >= 1_000, "{} turns during 65,536 reads", turns.get());
    });
}

#[test]
fn input_goes_round_whole_while_output_is_read() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, with_stdin(request(&["cat"]))).await;
        let mut input = InputPipe::from_fd(spawned.stdin.unwrap()).unwrap();
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        let sent: Vec<u8> = (0..4 * MIB as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut left = Bytes::from(sent.clone());
        let writing = async {
            input.write_all(&mut left).await.unwrap();
            input.close();
        };
        let ((), received) = tokio::join!(writing, read_all(&mut out));
        assert!(received == sent);
        assert_eq!(input.written_bytes(), sent.len() as u64);
        assert!(left.is_empty() && input.is_closed());
        input.close();
        assert!(matches!(
            input.write_all(&mut Bytes::from_static(b"x")).await,
            Err(StdinError::Closed)
        ));
        assert_eq!(
            spawned.process.watch().unwrap().wait().await.unwrap().status,
            ExitStatus::Code(0)
        );
    });
}

/// P-19, without a link.
#[test]
fn a_dropped_write_says_exactly_how_far_it_came() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        // Reads nothing until it is told to by a signal, so the pipe fills.
        let script = "trap 'exec cat' USR1; echo ready; while :; do read -r _ < /dev/null; done";
        let spawned = start(&spawner, with_stdin(shell(script))).await;
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        assert_eq!(read_some(&mut out).await.unwrap(), "ready\n");
        let mut input = InputPipe::from_fd(spawned.stdin.unwrap()).unwrap();
        let sent: Vec<u8> = (0..MIB).map(|i| (i % 251) as u8).collect();
        let mut left = Bytes::from(sent.clone());
        assert!(
            tokio::time::timeout(Duration::from_millis(20), input.write_all(&mut left))
                .await
                .is_err()
        );
        assert!(input.written_bytes() > 0);
        assert_eq!(input.written_bytes() as usize + left.len(), sent.len());
        spawned
            .process
            .signal_leader(rustix::process::Signal::USR1.as_raw())
            .unwrap();
        let writing = async {
            input.write_all(&mut left).await.unwrap();
            input.close();
        };
        let ((), received) = tokio::join!(writing, read_all(&mut out));
        assert!(received == sent, "nothing twice, nothing lost");
    });
}

/// P-20.
#[test]
fn writing_to_a_process_that_reads_no_more_is_a_typed_error_and_kills_nobody() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, with_stdin(request(&["true"]))).await;
        spawned.process.watch().unwrap().wait().await.unwrap();
        let mut input = InputPipe::from_fd(spawned.stdin.unwrap()).unwrap();
        let mut left = Bytes::from_static(b"too late");
        assert!(matches!(
            input.write_all(&mut left).await,
            Err(StdinError::Closed)
        ));
        assert_eq!((left.len(), input.written_bytes()), (8, 0));
        assert!(input.is_closed());
    });
}

/// P-20.
#[test]
fn this_process_ignores_sigpipe_and_its_children_do_not() {
    let _shared = not_counting();
    let ignores = |status: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() & (1 << 12) != 0
    };
    assert!(ignores(&std::fs::read_to_string("/proc/self/status").unwrap()));
    run(async {
        let spawner = Spawner::start().unwrap();
        let finished = finish(start(&spawner, request(&["cat", "/proc/self/status"])).await).await;
        assert!(!ignores(std::str::from_utf8(&finished.stdout).unwrap()));
    });
}

#[test]
fn without_a_stdin_pipe_input_is_at_its_end() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, request(&["cat"])).await;
        assert!(spawned.stdin.is_none());
        assert!(finish(spawned).await.stdout.is_empty());
    });
}

/// P-10.
#[test]
fn an_exit_is_seen_while_a_grandchild_still_holds_the_pipe() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(
            &spawner,
            shell("(trap 'echo late; exit' USR1; echo early; while :; do sleep 0.01; done) &"),
        )
        .await;
        let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
        let exit = spawned.process.watch().unwrap().wait().await.unwrap();
        assert_eq!(exit.status, ExitStatus::Code(0));
        assert_eq!(read_some(&mut out).await.unwrap(), "early\n");
        let still_open =
            tokio::time::timeout(Duration::from_millis(50), out.read_chunk(READ_CHUNK_MAX_BYTES)).await;
        assert!(still_open.is_err(), "the pipe is open: {still_open:?}");
        // The leader is a zombie, and its group is reached all the same.
        spawned
            .process
            .signal_group(rustix::process::Signal::USR1.as_raw())
            .unwrap();
        assert_eq!(read_all(&mut out).await, b"late\n");
    });
}
