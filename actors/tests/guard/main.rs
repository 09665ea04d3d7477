//! The guard, seen from an executor: this program is the guard too, and plays the executor where one has to die.
//!
//! With `DWELL_SOAK=1` the rounds are those of a release.
//!
//! The faults of processes, and where each is injected. Without a path it is a module here; `spawn`, `faults` and
//! `system` are the test programs of these names, and the first two of them have no guard.
//!
//! | fault | tests |
//! |---|---|
//! | P-01 what cannot be executed | `failures::programs_that_cannot_run_are_typed_errors`, `spawn::failures`, `faults::commands::what_cannot_start_is_a_typed_error_with_its_errno` |
//! | P-02 bad directory | `failures::directories_that_cannot_be_entered_are_typed_errors`, `spawn::failures`, `faults::commands` |
//! | P-03 too long | `failures::too_long_is_said_before_and_after_asking_the_kernel`, `spawn::failures`, `faults::commands::arguments_of_any_size_end_in_a_typed_error_and_the_link_lives` |
//! | P-04 no more processes | `failures::out_of_processes_is_retryable` |
//! | P-05 no more descriptors | `failures::out_of_descriptors_at_any_step_leaves_nothing` |
//! | P-06 no memory | `asked::a_limit_that_cannot_be_had_is_refused_and_named`, `limits::a_kill_for_lack_of_memory_is_told_from_another` |
//! | P-07 no more terminals | `extremes::terminals_run_out_and_that_is_a_typed_error`, `failures::out_of_descriptors_at_any_step_leaves_nothing` |
//! | P-08 deaf to TERM | `containment::a_tree_that_ignores_term_is_killed_after_the_grace_and_counted`, `through::stopping_reports_what_had_to_be_killed` |
//! | P-09 stopped | `containment::a_stopped_tree_hears_term`, `spawn::groups::a_stopped_process_can_be_killed_and_continued` |
//! | P-10, P-11 held pipe | `endings::an_end_is_told_at_once_while_a_grandchild_holds_the_pipe`, `through::a_held_pipe_is_given_up_and_its_holders_are_counted` |
//! | P-12 daemon | `containment::a_daemon_dies_with_its_command`, `containment::a_detached_command_outlives_the_executor`, `asked::what_is_detached_outlives_session_and_executor` |
//! | P-13 zombies | `endings::keepers_are_used_again_and_nothing_is_left` |
//! | P-14 over before anybody looks | `endings::ends_that_come_before_anybody_looks_are_not_lost`, `spawn::pipes::output_written_before_anybody_reads_is_there_after_the_exit` |
//! | P-15 much output | `volume::much_output_arrives_as_it_was_written` |
//! | P-16 output that nobody takes | `volume::output_that_nobody_takes_stops_the_command_and_costs_no_memory`, `system::processes::output_that_nobody_reads_stops_the_command_and_costs_no_memory` |
//! | P-17 two streams | `faults::processes::two_streams_written_in_turns_are_each_exact_and_in_order`, `spawn::pipes` |
//! | P-18 all bytes | `faults::processes::bytes_of_every_value_go_there_and_come_back` |
//! | P-19 input that nobody reads | `volume::input_that_nobody_reads_is_held_back_and_the_session_goes_on` |
//! | P-20 closed input | `terminals::both_directions_full_do_not_block_an_interrupt`, `faults::processes::input_that_is_closed_stays_closed_and_says_so`, `spawn::pipes` |
//! | P-21 input sent again | `a_repeated_write_is_applied_once_and_a_hole_is_refused` in `process/stdin_tests.rs`; over a new link it is resumption's |
//! | P-22 a terminal's end | `terminals::all_that_was_written_is_read_and_the_end_is_an_end`, `the_end_of_a_terminal_that_is_told_too_early_is_not_believed` in `spawn/pipes.rs`, `terminals::the_hang_up_is_heard` |
//! | P-23 resizes | `terminals::resizes_reach_the_foreground_job_and_are_clamped`, `through::a_terminal_has_its_size_follows_a_resize_and_hears_keys` |
//! | P-24 a terminal full both ways | `terminals::both_directions_full_do_not_block_an_interrupt`, `faults::processes::a_terminal_that_is_full_both_ways_hears_an_interrupt` |
//! | P-25 a number used again | `extremes::a_number_that_is_used_again_is_not_signalled`, `containment::after_the_leader_no_signal_reaches_a_stranger`, `spawn::groups` |
//! | P-26 executor killed | `containment::nothing_survives_the_executor` and its control, `system::processes::an_executor_that_is_killed_leaves_only_what_was_detached` |
//! | P-27 executor told to end | `system::processes::an_executor_that_is_told_to_end_ends_its_commands_within_their_grace` |
//! | P-28 executor stopped | `system::processes::an_executor_that_stood_still_goes_on_where_it_was` |
//! | P-29 killed for memory | `limits::a_kill_for_lack_of_memory_is_told_from_another`; of the executor itself it is a KILL, P-26 |
//! | P-30 descriptors | `endings::the_child_has_three_descriptors_its_own_environment_and_default_signals`, `spawn::hygiene::a_child_sees_its_three_descriptors_and_no_other` |
//! | P-31 environment | the same, `asked::each_policy_passes_what_it_says_and_the_answer_names_what_was_withheld`, `spawn::environment` |
//! | P-32 set-user-id | `extremes::a_set_user_id_program_gains_what_the_file_says_and_no_more`, `limits::no_privilege_is_gained` |
//! | P-33 escape from a sandbox | none: there is no sandbox to escape from, and no request asks for one |
//! | P-34 bomb, hog, full disk | `limits::a_limit_on_processes_stops_a_bomb`, `limits::a_limit_on_processor_time_and_on_files_ends_a_command`, `containment::a_tree_that_forks_while_it_is_killed_ends`. That others are at most twice as slow meanwhile is none: it is measured on a machine of one's own, and this one's two processors are everybody's |
//! | P-35 the thread that spawned ends | `endings::the_thread_that_spawned_may_end` |
//! | P-36 a thousand at once, ten thousand in turn | `endings::a_thousand_at_once_leave_a_bounded_reserve_and_no_descriptor`, `endings::keepers_are_used_again_and_nothing_is_left` |
//! | P-37 cannot be killed | `extremes::what_cannot_be_killed_is_reported_and_the_session_goes_on`, `extremes::an_executor_ends_though_something_cannot_be_killed` |

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
