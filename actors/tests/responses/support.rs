//! A session on a server that plays, and places that keep what telemetry is told.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dwell_actors::responses::mock::{Act, MockModel, Seen, completed, created, deltas, message};
use dwell_actors::responses::{Answer, ApiKey, Deadlines, Request, Responses, ResponsesBuilder};
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell_messages::{Role, Span};

/// The longest anything here may take.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
/// What no telemetry may have.
pub(crate) const KEY: &str = "sk-canary-key-9f";

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

/// Keeps every span.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<Span>>>);

impl Kept {
    pub(crate) fn all(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }
}

impl SpanSink for Kept {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(spans);
        Ok(())
    }
}

/// All logs of this program, at every level.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Logs {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn logs() -> &'static Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    LOGS.get_or_init(|| {
        let logs = Logs::default();
        let writer = logs.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        logs
    })
}

pub(crate) fn short(connect: u64, idle: u64, total: u64) -> Deadlines {
    Deadlines {
        connect: Duration::from_millis(connect),
        idle: Duration::from_millis(idle),
        total: Duration::from_millis(total),
    }
}

/// A session, its server, and its spans.
pub(crate) struct World {
    pub(crate) model: MockModel,
    pub(crate) session: Responses,
    pub(crate) kept: Kept,
}

impl World {
    pub(crate) async fn new(play: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::of(MockModel::start(play).await.unwrap(), |builder| builder)
    }

    pub(crate) fn of(model: MockModel, set: impl FnOnce(ResponsesBuilder) -> ResponsesBuilder) -> Self {
        logs();
        let kept = Kept::default();
        let builder = Responses::builder(model.endpoint())
            .key(ApiKey::parse(KEY, "a test").unwrap())
            .sink(kept.clone());
        Self {
            model,
            session: set(builder).open().unwrap(),
            kept,
        }
    }

    /// Asks, and has the whole answer.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        bounded("an answer", self.session.ask(request).finish())
            .await
            .unwrap()
    }

    /// Asks, and has the kind of the error.
    pub(crate) async fn error(&self, request: Request) -> &'static str {
        bounded("an error", self.session.ask(request).finish())
            .await
            .unwrap_err()
            .kind()
    }

    /// Waits until something of the server's or of telemetry's has come about.
    pub(crate) async fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        bounded(what, async {
            loop {
                self.session.flush_traces().await;
                if is(self) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Answers with this text.
pub(crate) fn says(seen: &Seen, text: &str) -> Vec<Act> {
    let id = format!("r{}.{}", seen.connection, seen.request);
    let mut acts = vec![created(&id)];
    acts.extend(deltas(text));
    acts.extend([message(text), completed(&id)]);
    acts
}

pub(crate) fn ask(text: &str) -> Request {
    Request::new("a-model").user(text)
}
