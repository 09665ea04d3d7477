//! Trace context from its bytes and from its headers: within bounds, and the same after another round.
#![no_main]

use dwell_messages::trace::{
    TRACE_CONTEXT_BYTES, TRACESTATE_MAX_BYTES, TRACESTATE_MEMBERS_MAX, TraceContext, TraceState,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk::<TRACE_CONTEXT_BYTES>()
        && let Some(context) = TraceContext::decode(bytes)
    {
        assert!(context.is_valid());
        assert_eq!(TraceContext::decode(&context.encode()), Some(context));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(state) = TraceState::parse(text) {
        assert!(state.as_str().len() <= TRACESTATE_MAX_BYTES);
        assert!(state.as_str().split(',').count() <= TRACESTATE_MEMBERS_MAX);
        assert_eq!(TraceState::parse(state.as_str()), Some(state));
    }
    let (parent, state) = match text.split_once('\n') {
        Some((parent, state)) => (parent, Some(state)),
        None => (text, None),
    };
    if let Some(context) = TraceContext::from_traceparent(parent, state) {
        let state = context.state.as_ref().map(|state| state.as_str().to_owned());
        let again = TraceContext::from_traceparent(&context.to_traceparent(), state.as_deref());
        assert_eq!(again, Some(context));
    }
});
