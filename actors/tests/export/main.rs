//! What leaves dwell: context at the edges, spans on their way to back ends, and what must never be among them.
//!
//! The faults of telemetry, and where each is injected. Without a path it is a module here; `wire` is
//! `messages/tests/trace.rs`, `faults`, `links`, `mailbox` and `tools` are the test programs of these names beside this
//! one, `system` the one of the whole system.
//!
//! | fault | tests |
//! |---|---|
//! | X-01 malformed parent | `propagators::every_format_is_read_as_it_is_defined_and_nothing_malformed_is_a_parent`, `wire::traceparent_is_read_as_w3c_has_it`, `system::propagation::a_malformed_parent_begins_a_new_trace` |
//! | X-02 ids of zeroes | the same, `propagators::a_parent_of_zeroes_begins_a_new_trace`, `faults::runtimes::no_parent_context_ever_fails_a_call` |
//! | X-03 too much tracestate | `propagators::too_much_tracestate_is_cut_and_the_parent_stays`, `wire::past_512_bytes_whole_members_are_cut_from_the_right` |
//! | X-04 back end down, refusing, hanging, failing, slow | `back_ends::spans_for_a_back_end_that_hangs_are_dropped_and_counted_and_nobody_waits` and its neighbours, `back_ends::calls_take_no_longer_while_a_back_end_hangs` |
//! | X-05 not sampled | `sampling::an_unsampled_call_costs_no_span_and_its_context_still_reaches_the_command`, `system::propagation::a_sampler_of_the_environment_is_honoured` |
//! | X-06 back again; a full queue at the end | `back_ends::a_back_end_that_comes_back_gets_spans_again`, `back_ends::a_flush_with_a_full_queue_and_a_back_end_that_hangs_gives_up_in_time` |
//! | X-07 secrets | `privacy::what_is_secret_is_in_no_span_log_file_or_body`, `faults::eavesdrop`, `links::hostile` |
//! | X-08 control characters | `privacy::control_characters_never_reach_a_terminal`, `tools::waterfall` |
//! | X-09 ids as labels | none here: metrics are another test's |
//! | X-10 a relay that forges context | it is inside the seal: `faults::eavesdrop::the_path_sees_no_argument_variable_input_output_or_trace_id`, and `links::hostile` for what changing sealed bytes brings |
//! | X-11 clocks that disagree | `clocks::no_duration_is_negative_whatever_clocks_do`, `clocks::an_offset_at_its_limits_is_written_read_and_drawn` |

#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod back_ends;
mod clocks;
mod conventions;
mod otlp;
mod privacy;
mod propagators;
mod sampling;
mod server;
mod support;
