//! A model that says what a script says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the model wants done next. Behind the last it says that it is done.
pub(crate) enum Step {
    /// Calls a tool. `$SESSION` in the arguments is the number of the last command that was left running.
    Call(&'static str, Value),
}

/// Runs a command.
pub(crate) fn exec(command: &str) -> Step {
    Step::Call(
        "exec_command",
        json!({"cmd": command, "yield_time_ms": 30_000, "max_output_tokens": 1_000}),
    )
}

/// Patches files.
pub(crate) fn patch(body: &str) -> Step {
    exec(&format!(
        "apply_patch <<'EOF'\n*** Begin Patch\n{body}*** End Patch\nEOF\n"
    ))
}

#[derive(Default)]
struct Told {
    /// What came of each call, in order.
    outputs: Vec<String>,
    asked: usize,
    session: Option<u64>,
}

/// Listens until the process ends.
pub(crate) struct Mock {
    port: u16,
    told: Arc<Mutex<Told>>,
}

impl Mock {
    pub(crate) fn start(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::<Mutex<Told>>::default();
        let (script, shared) = (Arc::new(script), Arc::clone(&told));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, told) = (Arc::clone(&script), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &script, &told));
            }
        });
        Self { port, told }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    pub(crate) fn outputs(&self) -> Vec<String> {
        self.told.lock().unwrap().outputs.clone()
    }
}

fn serve(stream: TcpStream, script: &[Step], told: &Mutex<Told>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some((method, body)) = request(&mut reader) {
        let (kind, answer) = if method == "POST" {
            ("text/event-stream", turn(&body, script, told))
        } else {
            ("application/json", r#"{"models":[]}"#.to_owned())
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if writer.write_all((head + &answer).as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|length| *length > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?;
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first.split(' ').next()?.to_owned(), body))
}

fn turn(body: &[u8], script: &[Step], told: &Mutex<Told>) -> String {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut told = told.lock().unwrap();
    let input = request["input"].as_array().cloned().unwrap_or_default();
    let outputs = input.iter().filter(|item| {
        item["type"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("_output"))
    });
    told.outputs = outputs
        .map(|item| {
            item["output"]
                .as_str()
                .map_or_else(|| item["output"].to_string(), str::to_owned)
        })
        .collect();
    let left = told
        .outputs
        .last()
        .and_then(|output| output.split("session ID ").nth(1));
    let session = left
        .and_then(|text| text.split_whitespace().next())
        .and_then(|number| number.parse().ok());
    told.session = session.or(told.session);
    let at = told.asked;
    told.asked += 1;
    let id = format!("call_{at}");
    let item = match script.get(at) {
        Some(Step::Call(name, arguments)) => {
            let arguments = arguments.to_string();
            let session = told.session.unwrap_or_default().to_string();
            let arguments = arguments.replace("\"$SESSION\"", &session);
            json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments})
        }
        None => {
            json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]})
        }
    };
    let usage = json!({"input_tokens": 1, "input_tokens_details": null, "output_tokens": 1,
        "output_tokens_details": null, "total_tokens": 2});
    let events = [
        json!({"type": "response.created", "response": {"id": id}}),
        json!({"type": "response.output_item.done", "item": item}),
        json!({"type": "response.completed", "response": {"id": id, "usage": usage}}),
    ];
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect()
}
