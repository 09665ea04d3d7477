//! Fields as variables of an environment: the carrier between a process and those it starts.

use dwell_messages::TraceContext;

use super::baggage::Baggage;
use super::choice::Propagators;

/// Every variable that may carry ancestry. A command never inherits the executor's own: they would make it a child of
/// whatever started the executor.
pub(crate) const CARRIED: [&str; 4] = ["TRACEPARENT", "TRACESTATE", "BAGGAGE", "UBER_TRACE_ID"];

/// A field's name as a variable's: upper case, with `_` for whatever a variable's name cannot have.
///
/// ```
/// assert_eq!(dwell_actors::propagation::environment_name("uber-trace-id"), "UBER_TRACE_ID");
/// ```
pub fn environment_name(field: &str) -> String {
    let mut name: String = field
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// The variables that make a command a child of this context.
pub(crate) fn for_child(propagators: &Propagators, context: &TraceContext) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut set = Vec::with_capacity(2);
    propagators.inject(context, &Baggage::default(), |field, text| {
        set.push((environment_name(field).into_bytes(), text.into_bytes()));
    });
    set
}
