//! HTTP requests that an executor makes for its client.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::blob::Blob;

/// A header.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// A variable of the executor's whose value is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_env_var: Option<String>,
}

/// Values stay out of logs.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whether a redirect is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RedirectPolicy {
    /// It is.
    #[default]
    Follow,
    /// It is the answer.
    Stop,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    /// Its method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Its headers.
    #[serde(default)]
    pub headers: Vec<Header>,
    /// Its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<Blob>,
    /// How long it may take, the body included; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether redirects are followed.
    #[serde(default)]
    pub redirect_policy: RedirectPolicy,
    /// What it is known by.
    pub request_id: String,
    /// Whether the body is told piece by piece.
    #[serde(default)]
    pub stream_response: bool,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpAnswer {
    /// Its number.
    pub status: u16,
    /// Its headers, with names in small letters.
    pub headers: Vec<Header>,
    /// Its body; empty where that is told piece by piece.
    pub body_base64: Blob,
}

/// A piece of a body.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BodyDelta {
    /// Of which request.
    pub request_id: String,
    /// Its number, from 1.
    pub seq: u64,
    /// The bytes, at most `CHUNK_MAX_BYTES`.
    pub delta_base64: Blob,
    /// Whether nothing follows.
    pub done: bool,
    /// Why nothing follows.
    pub error: Option<String>,
}
