//! OTLP/JSON: one resource a role.

use crate::telemetry::service;
use crate::trace_file::{Resource, Trace, document};

use super::ROLES;

pub(super) fn write(trace: &Trace) -> String {
    let batches: Vec<_> = ROLES
        .into_iter()
        .filter_map(|role| {
            let own = trace.spans.iter().filter(|(by, _)| *by == role);
            let spans: Vec<_> = own.map(|(_, span)| span.clone()).collect();
            let resource = Resource::new(role, service(role));
            let clock = trace.offsets.iter().find(|(by, _)| *by == role);
            let resource = match clock {
                Some((_, clock)) => resource.with_clock(*clock),
                None => resource,
            };
            (!spans.is_empty()).then_some((resource, spans))
        })
        .collect();
    let mut text = document(&batches);
    text.push('\n');
    text
}
