//! The guard, seen from an executor: this program is the guard too, and plays the executor where one has to die.
//!
//! With `DWELL_SOAK=1` the rounds are those of a release.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![expect(clippy::print_stdout, reason = "it is its own test runner")]

mod asked;
mod containment;
mod controllers;
mod endings;
mod ends;
mod executor;
mod extremes;
mod failures;
mod limits;
mod runner;
mod speed;
#[path = "../spawn/support.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the plain path, which use more of it"
)]
mod support;
mod terminals;
mod through;
mod volume;

fn main() -> std::process::ExitCode {
    dwell_actors::guard::init();
    if let Some(role) = std::env::var_os(executor::ROLE) {
        executor::play(&role);
        return std::process::ExitCode::SUCCESS;
    }
    let tests = [
        asked::TESTS,
        containment::TESTS,
        endings::TESTS,
        extremes::TESTS,
        failures::TESTS,
        limits::TESTS,
        terminals::TESTS,
        through::TESTS,
        volume::TESTS,
        speed::TESTS,
    ];
    runner::run(&tests.concat())
}
