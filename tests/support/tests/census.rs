//! The census, in a process of its own: other tests' descriptors come and go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Stdio};

use dwell_testkit::Census;

#[test]
fn a_census_tells_descriptors_and_zombies() {
    let before = Census::take().unwrap();
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let out = child.stdout.take().unwrap();
    // The end of its output comes before it is a zombie, by a moment.
    while !Census::take().unwrap().zombies().contains(&pid) {
        std::thread::yield_now();
    }
    let leak = Census::take().unwrap().leak_since(&before);
    assert!(
        leak.fds.iter().any(|(_, what)| what.starts_with("pipe:")) && leak.children.contains(&(pid, 'Z'))
    );
    child.wait().unwrap();
    drop(out);
    assert!(!Census::take().unwrap().children.contains_key(&pid));
}
