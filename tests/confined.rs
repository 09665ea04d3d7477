//! Confined commands, with bubblewrap and the binary as its users have both: what they reach, and how they end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "system-tests")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(60);

/// An executor, killed when dropped, and a directory for it to work in that is not below `/tmp`.
struct Serving {
    child: Child,
    url: String,
    dir: TempDir,
}

impl Serving {
    fn start(arguments: &[&str], path: &str) -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["work", "home"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_dwell"))
            .env_clear()
            .env("DWELL_HOME", dir.path().join("home"))
            .env("PATH", path)
            .args(["executor", "--listen", "ws://127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            child,
            url: url.trim_end().into(),
            dir,
        }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The policy of a stock client for its workspace.
    fn policy(&self) -> Value {
        let special = |kind: &str, access: &str| json!({"path": {"type": "special", "value": {"kind": kind}}, "access": access});
        let git = json!({"path": {"type": "special", "value": {"kind": "project_roots", "subpath": ".git"}},
            "access": "read", "missing_path_behavior": "skip"});
        let work = format!("file://{}", self.work().display());
        json!({
            "permissions": {"type": "managed", "network": "restricted", "file_system": {"type": "restricted", "entries": [
                special("root", "read"), special("project_roots", "write"), git,
            ]}},
            "cwd": work, "workspaceRoots": [work], "windowsSandboxLevel": "disabled",
        })
    }

    /// The parameters of a confined command.
    fn confined(&self, process: &str, script: &str) -> Value {
        json!({"processId": process, "argv": ["/bin/bash", "-c", script], "cwd": format!("file://{}", self.work().display()),
            "tty": false, "env": {"PATH": "/usr/bin:/bin"}, "sandbox": self.policy()})
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn serving() -> Serving {
    Serving::start(&[], "/usr/bin:/bin")
}

struct Client {
    socket: WebSocketStream<TcpStream>,
    next: i64,
    /// What came while an answer was waited for.
    kept: Vec<Value>,
}

/// What came of a command.
#[derive(Debug)]
struct Ended {
    code: i64,
    denied: bool,
    text: String,
}

impl Client {
    async fn begin(serving: &Serving) -> Self {
        let url = &serving.url;
        let stream = TcpStream::connect(url.strip_prefix("ws://").unwrap())
            .await
            .unwrap();
        let (socket, _) = tokio_tungstenite::client_async(format!("{url}/"), stream)
            .await
            .unwrap();
        let mut client = Self {
            socket,
            next: 1,
            kept: Vec::new(),
        };
        client
            .call("initialize", json!({"clientName": "c"}))
            .await
            .unwrap();
        client.send(json!({"method": "initialized"})).await;
        client
    }

    async fn send(&mut self, message: Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn read(&mut self) -> Value {
        let next = async {
            loop {
                if let Message::Text(text) = self.socket.next().await.unwrap().unwrap() {
                    return serde_json::from_str(&text).unwrap();
                }
            }
        };
        tokio::time::timeout(BOUND, next).await.expect("it comes in time")
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.next;
        self.next += 1;
        self.send(json!({"id": id, "method": method, "params": params}))
            .await;
        loop {
            let message = self.read().await;
            if message.get("method").is_none() && message["id"] == json!(id) {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].clone()),
                };
            }
            self.kept.push(message);
        }
    }

    /// The next notification of a process.
    async fn event(&mut self, process: &str) -> Value {
        let is_its = |message: &Value| message["params"]["processId"] == process;
        if let Some(at) = self.kept.iter().position(is_its) {
            return self.kept.remove(at);
        }
        loop {
            let message = self.read().await;
            if is_its(&message) {
                return message;
            }
        }
    }

    async fn ended(&mut self, process: &str) -> Ended {
        let mut ended = Ended {
            code: -1,
            denied: false,
            text: String::new(),
        };
        loop {
            let event = self.event(process).await;
            let params = &event["params"];
            match event["method"].as_str().unwrap() {
                "process/output" => ended.text += &text(params),
                "process/exited" => {
                    ended.code = params["exitCode"].as_i64().unwrap();
                    ended.denied = params["sandboxDenied"].as_bool().unwrap();
                }
                _ => return ended,
            }
        }
    }

    /// Runs a confined command to its end.
    async fn run(&mut self, serving: &Serving, process: &str, script: &str) -> Ended {
        let started = self
            .call("process/start", serving.confined(process, script))
            .await
            .unwrap();
        assert_eq!(started["sandboxType"], "linuxSeccomp");
        self.ended(process).await
    }

    /// The number that a command says first.
    async fn number(&mut self, process: &str) -> u32 {
        let mut said = String::new();
        while !said.contains('\n') {
            said += &text(&self.event(process).await["params"]);
        }
        said.trim().parse().unwrap()
    }
}

fn text(params: &Value) -> String {
    String::from_utf8(STANDARD.decode(params["chunk"].as_str().unwrap()).unwrap()).unwrap()
}

/// Whether any process of this machine runs this. Nobody else's has these words.
fn runs(words: &str) -> bool {
    let mut lines = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok());
    let words = words.replace(' ', "\0") + "\0";
    lines.any(|line| line == words.as_bytes())
}

/// Waits until that is so.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "{what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_confined_command_writes_where_it_may_and_nowhere_else() {
    let serving = serving();
    let mut client = Client::begin(&serving).await;
    std::fs::create_dir(serving.work().join(".git")).unwrap();
    let outside = serving.dir.path().join("outside");
    let inside = client
        .run(&serving, "in", "echo x > inside && cat inside && id -u")
        .await;
    assert!(
        inside.code == 0 && inside.text.starts_with("x\n") && !inside.denied,
        "{inside:?}"
    );
    assert!(serving.work().join("inside").exists());
    for (number, place) in [
        outside.display().to_string(),
        ".git/config".into(),
        "/tmp/not-granted".into(),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("out{number}");
        let refused = client.run(&serving, &name, &format!("echo x > {place}")).await;
        assert!(refused.code != 0 && refused.denied, "{place}: {refused:?}");
        assert!(refused.text.contains("Read-only file system"), "{refused:?}");
    }
    assert!(!outside.exists() && !Path::new("/tmp/not-granted").exists());
    // What it may not undo: it has no capability, and no way to one.
    for (name, script) in [
        ("a", "mount -o remount,rw /"),
        ("b", "umount /"),
        ("c", "unshare -rm mount -o remount,bind,rw /"),
        ("d", "echo x > /proc/sys/kernel/hostname"),
        ("e", "echo x > /proc/1/root/outside"),
    ] {
        let undone = client
            .run(
                &serving,
                name,
                &format!("{script} && touch {}", outside.display()),
            )
            .await;
        assert!(undone.code != 0 && !outside.exists(), "{script}: {undone:?}");
    }
    let other = client
        .run(&serving, "other", "echo permission denied; exit 0")
        .await;
    assert!(!other.denied, "what succeeds was not denied");
    // The control: without a policy the same is written.
    let mut free = serving.confined("free", &format!("echo x > {}", outside.display()));
    free["sandbox"] = Value::Null;
    let started = client.call("process/start", free).await.unwrap();
    assert_eq!(started["sandboxType"], "none");
    let written = client.ended("free").await;
    assert!(
        written.code == 0 && !written.denied && outside.exists(),
        "{written:?}"
    );
}

#[tokio::test]
async fn a_confined_command_reaches_no_network_and_nobody_who_listens_on_a_local_socket() {
    let serving = serving();
    let mut client = Client::begin(&serving).await;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let path = serving.work().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let reach = format!(
        "python3 -c 'import socket,sys\nfor family, address in ((socket.AF_INET, (\"127.0.0.1\", {port})), (socket.AF_UNIX, \"{}\")):\n  \
         try:\n    socket.socket(family).connect(address); print(\"reached\", family)\n  except OSError as e: print(\"refused\", e.errno)\n\
         try: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); print(\"reached dgram\")\n\
         except OSError as e: print(\"refused\", e.errno)\na, b = socket.socketpair(); a.send(b\"x\"); print(\"pair\", b.recv(1))'",
        path.display()
    );
    let barred = client.run(&serving, "p", &reach).await;
    assert_eq!(
        barred
            .text
            .lines()
            .filter(|line| line.starts_with("refused"))
            .count(),
        3,
        "{barred:?}"
    );
    assert!(
        barred.text.contains("pair b'x'"),
        "a pair reaches nobody: {barred:?}"
    );
    assert!(listener.accept().is_err());
    let mut free = serving.confined("free", &reach);
    free["sandbox"]["permissions"]["network"] = json!("enabled");
    client.call("process/start", free).await.unwrap();
    let free = client.ended("free").await;
    assert_eq!(
        free.text
            .lines()
            .filter(|line| line.starts_with("reached"))
            .count(),
        3,
        "the control: {free:?}"
    );
}

#[tokio::test]
async fn codes_and_signals_of_a_confined_command_are_its_own() {
    let serving = serving();
    let mut client = Client::begin(&serving).await;
    for (name, script, code) in [
        ("a", "exit 0", 0),
        ("b", "exit 3", 3),
        ("c", "kill -9 $$", 137),
        ("d", "kill -11 $$", 139),
        ("e", "kill -INT $$; exit 7", 130),
    ] {
        let ended = client.run(&serving, name, script).await;
        assert_eq!(ended.code, code, "{script}: {ended:?}");
    }
    let env = client
        .run(
            &serving,
            "env",
            "echo $0 $PWD; env | cut -d= -f1 | sort | tr '\\n' ' '",
        )
        .await;
    assert!(
        env.text
            .starts_with(&format!("/bin/bash {}", serving.work().display())),
        "{env:?}"
    );
    assert!(!env.text.contains("DWELL"), "{env:?}");
    let mut loaders = serving.confined("loaders", "echo $LD_LIBRARY_PATH");
    loaders["env"]["LD_LIBRARY_PATH"] = json!("/somewhere else");
    client.call("process/start", loaders.clone()).await.unwrap();
    assert_eq!(client.ended("loaders").await.text, "/somewhere else\n");
    let mut named = serving.confined("named", "tr '\\0' ' ' < /proc/$$/cmdline; true");
    named["arg0"] = json!("another name");
    client.call("process/start", named).await.unwrap();
    let named = client.ended("named").await;
    assert!(named.text.starts_with("another name -c "), "{named:?}");
    // What a loader obeys takes effect inside: the program that it tells of is the command, not what confines it.
    loaders["processId"] = json!("told");
    loaders["env"] = json!({"LD_TRACE_LOADED_OBJECTS": "1"});
    client.call("process/start", loaders).await.unwrap();
    let told = client.ended("told").await;
    assert!(
        told.text.contains("libtinfo") && !told.text.contains("libgcc_s"),
        "{told:?}"
    );
    let mut missing = serving.confined("missing", "");
    missing["argv"] = json!(["no-such-program"]);
    let error = client.call("process/start", missing).await.unwrap_err();
    assert_eq!(error["message"], "No such file or directory (os error 2)");
}

#[tokio::test]
async fn an_interrupt_reaches_a_confined_command_and_not_what_confines_it() {
    let serving = serving();
    let mut client = Client::begin(&serving).await;
    let script = "trap 'echo caught; exit 5' INT; echo 1; while :; do sleep 0.02; done";
    for tty in [false, true] {
        let name = if tty { "tty" } else { "pipe" };
        let mut start = serving.confined(name, script);
        start["tty"] = json!(tty);
        client.call("process/start", start).await.unwrap();
        client.number(name).await;
        if tty {
            let key = json!({"processId": name, "chunk": "Aw==", "writeId": "1"});
            client.call("process/write", key).await.unwrap();
        } else {
            client
                .call(
                    "process/signal",
                    json!({"processId": name, "signal": "interrupt"}),
                )
                .await
                .unwrap();
        }
        let ended = client.ended(name).await;
        assert!(
            ended.code == 5 && ended.text.contains("caught"),
            "{name}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_termination_kills_whatever_a_confined_command_started() {
    let serving = serving();
    let mut client = Client::begin(&serving).await;
    let words = format!("sleep {}", 40_000 + std::process::id());
    let script = format!("(setsid {words} &) ; echo 1; {words}");
    client
        .call("process/start", serving.confined("p", &script))
        .await
        .unwrap();
    client.number("p").await;
    until("the grandchild runs", || runs(&words));
    let answer = client
        .call("process/terminate", json!({"processId": "p"}))
        .await
        .unwrap();
    assert_eq!(answer, json!({"running": true}));
    assert_eq!(client.ended("p").await.code, 137);
    until("the grandchild is gone", || !runs(&words));
}

#[tokio::test]
async fn nothing_confined_survives_its_executor() {
    let mut serving = serving();
    let mut client = Client::begin(&serving).await;
    let words = format!("sleep {}", 50_000_000 + std::process::id());
    let script = format!("(setsid {words} &) ; echo 1; {words}");
    client
        .call("process/start", serving.confined("p", &script))
        .await
        .unwrap();
    client.number("p").await;
    until("the grandchild runs", || runs(&words));
    serving.child.kill().unwrap();
    serving.child.wait().unwrap();
    until("the grandchild is gone", || !runs(&words));
}

#[tokio::test]
async fn files_are_written_where_a_policy_lets_them_and_by_no_link() {
    let serving = serving();
    let mut client = Client::begin(&serving).await;
    let outside = serving.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(serving.work().join(".git")).unwrap();
    std::os::unix::fs::symlink(&outside, serving.work().join("link")).unwrap();
    let uri = |path: &Path| format!("file://{}", path.display());
    let ask = |path: PathBuf| json!({"path": uri(&path), "dataBase64": "eA==", "sandbox": serving.policy()});
    let write = async |client: &mut Client, path: PathBuf| client.call("fs/writeFile", ask(path)).await;
    assert!(write(&mut client, serving.work().join("a")).await.is_ok());
    let read_only = json!({"code": -32603, "message": "Read-only file system (os error 30)"});
    for place in [outside.join("a"), serving.work().join(".git/config")] {
        assert_eq!(write(&mut client, place).await, Err(read_only.clone()));
    }
    let through = write(&mut client, serving.work().join("link/a"))
        .await
        .unwrap_err();
    assert_eq!(through["code"], -32603, "{through}");
    assert!(!outside.join("a").exists() && serving.work().join("a").exists());
    for (method, more) in [
        ("fs/readFile", json!({})),
        ("fs/getMetadata", json!({})),
        ("fs/readDirectory", json!({"path": uri(&outside)})),
        (
            "fs/createDirectory",
            json!({"path": uri(&serving.work().join("d/e"))}),
        ),
        (
            "fs/open",
            json!({"handleId": "h", "mode": "replace", "path": uri(&serving.work().join("h"))}),
        ),
        ("fs/remove", json!({"recursive": false, "force": false})),
    ] {
        let mut params = ask(serving.work().join("a"));
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        let answer = client.call(method, params).await;
        assert!(answer.is_ok(), "{method}: {answer:?}");
    }
    for (method, more) in [
        ("fs/remove", json!({"path": uri(&outside)})),
        (
            "fs/remove",
            json!({"path": uri(&serving.work()), "recursive": true}),
        ),
        (
            "fs/copy",
            json!({"sourcePath": "file:///etc/hostname", "destinationPath": uri(&serving.work().join("c")), "recursive": false}),
        ),
        (
            "fs/open",
            json!({"handleId": "i", "mode": "replace", "path": uri(&outside.join("i"))}),
        ),
        ("fs/createDirectory", json!({"path": uri(&outside.join("d"))})),
    ] {
        let mut params = json!({"sandbox": serving.policy()});
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        assert_eq!(
            client.call(method, params.clone()).await.unwrap_err()["code"],
            -32603,
            "{method}"
        );
        // The control: unconfined it is done.
        params["sandbox"] = Value::Null;
        if params["path"] != json!(uri(&serving.work())) && params["path"] != json!(uri(&outside)) {
            assert!(client.call(method, params).await.is_ok(), "{method}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_enforced_or_is_not_wanted_does_not_run() {
    let serving = serving();
    let mut client = Client::begin(&serving).await;
    let deny = json!({"path": {"type": "path", "path": "file:///etc/shadow"}, "access": "deny"});
    let mut params = serving.confined("p", "true");
    params["sandbox"]["permissions"]["file_system"]["entries"]
        .as_array_mut()
        .unwrap()
        .push(deny);
    let mut linked = serving.confined("l", "true");
    std::os::unix::fs::symlink("/etc", serving.work().join("l")).unwrap();
    let place = format!("file://{}", serving.work().join("l").display());
    let link = json!({"path": {"type": "path", "path": place}, "access": "write"});
    linked["sandbox"]["permissions"]["file_system"]["entries"]
        .as_array_mut()
        .unwrap()
        .push(link);
    for params in [params, linked] {
        let error = client.call("process/start", params).await.unwrap_err();
        assert_eq!(error["code"], -32603);
        assert!(
            error["message"].as_str().unwrap().contains("--sandbox=off"),
            "{error}"
        );
    }
    assert_eq!(client.run(&serving, "ok", "true").await.code, 0, "the control");

    // Where it is not wanted, and where there is no bubblewrap that works.
    let broken = TempDir::new().unwrap();
    std::os::unix::fs::symlink("/bin/false", broken.path().join("bwrap")).unwrap();
    let path = format!("{}:/usr/bin:/bin", broken.path().display());
    for serving in [
        Serving::start(&["--sandbox", "refuse"], "/usr/bin:/bin"),
        Serving::start(&[], &path),
    ] {
        let mut client = Client::begin(&serving).await;
        let error = client
            .call("process/start", serving.confined("p", "true"))
            .await
            .unwrap_err();
        assert!(
            error["message"].as_str().unwrap().contains("--sandbox=off"),
            "{error}"
        );
        let read = json!({"path": "file:///etc/hostname", "sandbox": serving.policy()});
        let error = client.call("fs/readFile", read).await.unwrap_err();
        assert!(
            error["message"].as_str().unwrap().contains("--sandbox=off"),
            "{error}"
        );
    }
}
