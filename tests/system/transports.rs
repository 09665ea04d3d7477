//! What carries the bytes changes nothing of what a command gives, and of what is said about it.

use dwell_messages::Role;

use crate::roles::{System, Way};

const WAYS: [Way; 8] = [
    Way::Relay("tcp://"),
    Way::Relay("ws://"),
    Way::Relay("wss://"),
    Way::Relay("tls://"),
    Way::Direct(""),
    Way::Direct("ws://"),
    Way::Direct("wss://"),
    Way::Direct("tls://"),
];

#[test]
fn a_command_gives_the_same_output_and_one_whole_trace_on_every_transport() {
    for way in WAYS {
        let system = System::reached(way, &[]);
        let output = system.run(
            &[],
            &[
                "sh",
                "-c",
                "head -c 3000000 /dev/zero | tr '\\0' x; printf err >&2",
            ],
        );
        assert!(output.stdout == vec![b'x'; 3_000_000], "{way:?}");
        assert_eq!(output.stderr, b"err", "{way:?}");
        let picture = system.last_trace();
        picture.assert_whole();
        assert_eq!(picture.named(Role::Executor, "process").len(), 1, "{way:?}");
        let hops = picture.named(Role::Harness, "relay hop").len();
        assert_eq!(hops > 0, matches!(way, Way::Relay(_)), "{way:?}: {hops} hops");
    }
}

#[test]
fn an_untrusted_certificate_is_refused_and_the_error_names_the_flag() {
    for way in [Way::Relay("wss://"), Way::Direct("tls://")] {
        let system = System::reached(way, &[]);
        for authorities in [None, Some("cert.pem")] {
            let output = system.run_trusting(authorities, &[], &["true"]);
            assert_eq!(output.status.code(), Some(125), "{way:?}");
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(
                told.contains("not trusted") && told.contains("--tls-ca FILE"),
                "{told}"
            );
        }
    }
}

#[test]
fn tls_where_there_is_none_is_told() {
    let system = System::reached(Way::Direct("ws://"), &[]);
    let address = system.executor.ready["address"].as_str().unwrap();
    let output = crate::roles::dwell(&system.harness_home())
        .args(["run", "--direct", &format!("wss://{address}"), "--executor"])
        .arg(system.executor.ready["public_key"].as_str().unwrap())
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("check that it serves TLS on this port"), "{told}");
}
