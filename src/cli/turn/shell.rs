//! The function that the model may call: one program with its arguments.

use dwell_actors::responses::{FunctionCall, Request};
use serde_json::{Value, json};

use crate::cli::capture::Capture;
use crate::cli::roles::Ended;

/// What it is called.
const NAME: &str = "shell";
/// Arguments of one call.
const ARGV_MAX: usize = 4_096;
/// Bytes of each end of each stream that the model is given.
const OUTPUT_MAX_BYTES: usize = 16 * 1024;

/// The request, with the function in it.
pub(super) fn offered(request: Request) -> Request {
    let parameters = json!({
        "type": "object",
        "properties": { "argv": {
            "type": "array",
            "items": { "type": "string" },
            "minItems": 1,
            "description": "the program and its arguments; for pipes, give [\"sh\", \"-c\", \"…\"]",
        } },
        "required": ["argv"],
        "additionalProperties": false,
    });
    request.function(
        NAME,
        "Runs a program on the other machine and returns its output.",
        &parameters,
    )
}

/// What is to be run. An error is what the model is told.
pub(super) fn argv(call: &FunctionCall) -> Result<Vec<String>, &'static str> {
    if call.name != NAME {
        return Err("there is no such function: use `shell`");
    }
    let arguments: Value = serde_json::from_str(&call.arguments)
        .map_err(|_| "the arguments are not JSON: give {\"argv\": [\"…\"]}")?;
    let argv = arguments.get("argv").and_then(Value::as_array);
    let argv = argv.ok_or("`argv` is missing: give {\"argv\": [\"program\", \"argument\"]}")?;
    if argv.is_empty() || argv.len() > ARGV_MAX {
        return Err("`argv` has 1 to 4096 texts, the program's name first");
    }
    let texts = argv.iter().map(|arg| arg.as_str().map(str::to_owned));
    texts
        .collect::<Option<_>>()
        .ok_or("`argv` has something in it that is no text")
}

/// What a command printed.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
    pub(super) status: String,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            stdout: Capture::new(OUTPUT_MAX_BYTES),
            stderr: Capture::new(OUTPUT_MAX_BYTES),
            status: String::new(),
        }
    }
}

impl Output {
    /// As the model gets it.
    pub(super) fn to_text(&self) -> String {
        let (out, err) = (self.stdout.to_json(), self.stderr.to_json());
        let omitted = |stream: &Value| stream["omitted_bytes"].as_u64().unwrap_or(0);
        let mut text = json!({ "status": self.status, "stdout": out["text"], "stderr": err["text"] });
        if omitted(&out) + omitted(&err) > 0 {
            text["omitted_bytes"] = json!({ "stdout": omitted(&out), "stderr": omitted(&err) });
        }
        text.to_string()
    }
}

/// How a command ended, in words.
pub(super) fn status(ended: &Ended) -> String {
    crate::cli::demo::status_line(ended.status)
}

/// What was not done, and why.
pub(super) fn error(why: &str) -> String {
    json!({ "error": why }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> FunctionCall {
        FunctionCall {
            call_id: "c".into(),
            name: name.into(),
            arguments: arguments.into(),
        }
    }

    #[test]
    fn only_a_list_of_texts_is_run() {
        assert_eq!(
            argv(&call("shell", r#"{"argv":["ls","-l"]}"#)),
            Ok(vec!["ls".into(), "-l".into()])
        );
        for (name, arguments) in [
            ("rm", r#"{"argv":["ls"]}"#),
            ("shell", ""),
            ("shell", "ls -l"),
            ("shell", "[]"),
            ("shell", r#"{"argv":"ls"}"#),
            ("shell", r#"{"argv":[]}"#),
            ("shell", r#"{"argv":["ls",7]}"#),
        ] {
            assert!(argv(&call(name, arguments)).is_err(), "{name} {arguments}");
        }
    }

    #[test]
    fn a_model_gets_both_ends_of_a_long_output_and_is_told_what_is_missing() {
        let mut output = Output::default();
        output.stdout.push(&vec![b'x'; 3 * OUTPUT_MAX_BYTES]);
        output.status = "exit status 0".into();
        let text: Value = serde_json::from_str(&output.to_text()).unwrap();
        assert_eq!(text["stdout"].as_str().map(str::len), Some(2 * OUTPUT_MAX_BYTES));
        assert_eq!(text["omitted_bytes"]["stdout"], OUTPUT_MAX_BYTES);
        let short: Value = serde_json::from_str(&Output::default().to_text()).unwrap();
        assert_eq!(short.get("omitted_bytes"), None);
    }
}
