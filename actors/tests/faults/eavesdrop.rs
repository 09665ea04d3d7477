//! What the path between harness and relay sees.

use dwell_actors::harness::Command;
use dwell_messages::{ExitStatus, SpanId, TraceContext, TraceFlags, TraceId};
use dwell_testkit::{Direction, TcpFaultProxy};

use crate::support::{Roles, bounded, contains, wait};

const ARGUMENT: &str = "canary-argument-7c1d9b";
const VARIABLE: &str = "canary-variable-55aa20";
const OUTPUT: &str = "canary-output-9e03f1";
const INPUT: &str = "canary-input-b17e44";

#[tokio::test]
async fn the_path_sees_no_argument_variable_input_output_or_trace_id() {
    let roles = Roles::start().await;
    let proxy = TcpFaultProxy::start(roles.relay_address(), 1).await.unwrap();
    let harness = roles.connect(roles.through(proxy.address())).await.unwrap();
    let trace = TraceId(*b"\xc4\x17trace-canary\x99\x02");
    let parent = TraceContext::new(trace, SpanId(*b"\x11span-ca"), TraceFlags::SAMPLED);
    // The output is put together by the child, so that it is in no argument.
    let script = format!("cat; printf %s \"$HIDDEN\"; printf '%s%s' canary-output -9e03f1; : {ARGUMENT}");
    let command = Command::new("sh")
        .args(["-c", &script])
        .env("HIDDEN", VARIABLE)
        .stdin_piped()
        .parent(parent);
    let mut run = harness.exec(command);
    bounded("a write", run.write_stdin(INPUT.into())).await.unwrap();
    bounded("a close", run.close_stdin()).await.unwrap();
    let finished = wait(run).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    assert_eq!(finished.stdout.to_text(), format!("{INPUT}{VARIABLE}{OUTPUT}"));
    assert_eq!(finished.trace_id, trace);
    bounded("the spans", harness.flush_traces()).await;
    bounded("the end", harness.shutdown()).await;

    let hex: String = trace.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let secrets: [&[u8]; 9] = [
        ARGUMENT.as_bytes(),
        VARIABLE.as_bytes(),
        OUTPUT.as_bytes(),
        INPUT.as_bytes(),
        b"canary",
        b"HIDDEN",
        &trace.0,
        hex.as_bytes(),
        &roles.client.public().0,
    ];
    let (up, down) = (
        proxy.captured(Direction::ToUpstream),
        proxy.captured(Direction::ToClient),
    );
    for secret in secrets {
        assert!(
            !contains(&up, secret),
            "{} went up",
            String::from_utf8_lossy(secret)
        );
        assert!(
            !contains(&down, secret),
            "{} came down",
            String::from_utf8_lossy(secret)
        );
    }
    // The search finds what is in the clear.
    assert!(contains(&up, &roles.executor.public_key().0));
    assert!(
        up.len() > 400 && down.len() > 400,
        "{} up, {} down",
        up.len(),
        down.len()
    );
}
