//! A test runner that fits on a page: the usual one has the program's `main`, where the guard must come first.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A test that takes longer than this hangs.
/// `DWELL_SOAK` multiplies it.
const TEST_TIMEOUT: Duration = Duration::from_secs(75);

/// Which test a child of the runner runs.
const ONE: &str = "DWELL_GUARD_TEST";

/// What every test finds in its environment, and so the executor in it.
const PROBES: [(&str, &str); 4] = [
    ("PROBE_PLAIN", "plain"),
    ("PROBE_OTHER", "other"),
    ("PROBE_API_KEY", "hidden"),
    ("LC_PROBE", "C"),
];

/// Who runs one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// Whoever runs the tests.
    Anyone,
    /// Root, and once more as nobody.
    RootAndNobody,
}

/// One test.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) by: As,
    pub(crate) body: fn(),
}

/// Lists the functions of a module by their names.
macro_rules! tests {
    ($($by:ident: $($name:ident),+ $(,)?;)+) => {
        pub(crate) const TESTS: &[$crate::runner::Test] = &[$($($crate::runner::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            by: $crate::runner::As::$by,
            body: $name,
        }),+),+];
    };
}
pub(crate) use tests;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs those the arguments ask for, each in a process of its own: it may lower its limits, and its census is its own.
pub(crate) fn run(tests: &[Test]) -> ExitCode {
    if let Some(one) = std::env::var_os(ONE) {
        let test = tests
            .iter()
            .find(|test| test.name == one.to_str().unwrap())
            .unwrap();
        (test.body)();
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_listing = std::env::args().any(|argument| argument == "--list");
    let mut failed = Vec::new();
    let mut passed = 0;
    for test in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| test.name.contains(filter)) {
            continue;
        }
        if is_listing {
            println!("{}: test", test.name);
            continue;
        }
        let is_twice = test.by == As::RootAndNobody && is_root();
        let mut users = vec![None];
        users.extend(is_twice.then_some(Some(65_534)));
        for user in users {
            let begun = Instant::now();
            let whom = user.map_or("", |_| " (as nobody)");
            let is_ok = run_one(test, user);
            let word = if is_ok { "ok" } else { "FAILED" };
            println!(
                "test {}{whom} ... {word} ({} ms)",
                test.name,
                begun.elapsed().as_millis()
            );
            if is_ok {
                passed += 1;
            } else {
                failed.push(test.name);
            }
        }
    }
    if !is_listing {
        println!(
            "\ntest result: {passed} passed; {} failed {failed:?}",
            failed.len()
        );
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_one(test: &Test, user: Option<u32>) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.env(ONE, test.name).envs(PROBES).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user).current_dir("/");
    }
    let mut child = command.spawn().unwrap();
    let times = if std::env::var_os("DWELL_SOAK").is_some() {
        20
    } else {
        1
    };
    let deadline = Instant::now() + TEST_TIMEOUT * times;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if Instant::now() > deadline {
            println!("test {} hangs", test.name);
            // Its guard sees it end.
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        pause(Duration::from_millis(2));
    }
}

/// Whether the rounds are those of a release.
pub(crate) fn is_soak() -> bool {
    std::env::var_os("DWELL_SOAK").is_some()
}

/// This very test once more, in a process of its own that `command` leads to: its last words are this program's path.
pub(crate) fn again(mut command: Command, mark: &str) {
    let status = command.env(mark, "1").status();
    let status =
        status.unwrap_or_else(|error| panic!("this test needs {:?}: {error}", command.get_program()));
    assert!(status.success(), "in a process of its own: {status}");
}

/// For things outside of this program that announce nothing.
pub(crate) fn pause(time: Duration) {
    let time = rustix::event::Timespec::try_from(time).unwrap();
    let _ = rustix::event::poll(&mut [], Some(&time));
}
