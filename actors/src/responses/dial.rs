//! A connection to a model's server: TCP, and TLS unless it is on this machine.

use std::sync::Arc;

use super::config::Config;
use super::error::ResponsesError;
use crate::dial_out::{self, Protection};

pub(super) use crate::dial_out::Stream;

/// Dials. The deadline is the caller's.
///
/// # Errors
/// [`ResponsesError::Unreachable`], with what the system or TLS says.
pub(super) async fn dial(config: &Config) -> Result<Stream, ResponsesError> {
    let endpoint = &config.endpoint;
    let protection = if endpoint.is_secure() {
        Protection::Tls(&config.trust)
    } else {
        Protection::ClearHere
    };
    dial_out::dial(endpoint.host(), endpoint.port(), protection)
        .await
        .map_err(|source| ResponsesError::Unreachable {
            authority: config.endpoint.authority(),
            source: Arc::new(source),
        })
}
