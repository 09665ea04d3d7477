//! HTTP requests that an executor makes, through the harness's link.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dwell_messages::http::{
    BODY_MAX_BYTES, Body, Close, ExchangeId, Head, Header, HttpReply, HttpRequest, Open, PART_MAX_BYTES,
    Read, Redirects, Send as SendPart, SentHeader,
};
use dwell_messages::{ErrorCode, Reply, Request, TraceContext, TraceFlags, WireError};

use crate::harness::{Asker, RunError};
use crate::propagation;
use crate::telemetry::root;

/// What is asked of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpAsk {
    /// The method, whichever it is.
    pub method: String,
    /// Where to: `http` or `https`, as the executor's machine understands it.
    pub url: String,
    /// The headers. What frames a message on its connection is the executor's own, and passed over.
    pub headers: Vec<SentHeader>,
    /// The body, at most `BODY_MAX_BYTES`.
    pub body: Bytes,
    /// How long all of it may take, to the last byte that is drawn. `None`: for ever.
    pub timeout: Option<Duration>,
    /// Whether redirects are followed.
    pub redirects: Redirects,
}

impl HttpAsk {
    /// A `GET` without anything else.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: "GET".into(),
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: None,
            redirects: Redirects::Follow,
        }
    }
}

/// Neither where it goes nor what it carries belongs into a log.
impl fmt::Debug for HttpAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAsk").finish_non_exhaustive()
    }
}

/// The HTTP of an executor's machine: requests come from there, and reach what that reaches. `Send`, `Sync` and cheap to
/// clone; usable on any runtime and on none.
///
/// Errors carry codes of [`ErrorCode`]: `BadRequest` for what cannot be sent, `HttpFailed` for what had no whole answer,
/// `DeadlineExceeded` when the time was over, `Busy` past the executor's bounds, `UnknownMethod` where it makes no such
/// requests, `PermissionDenied` where the client's key lacks the scope `spawn`; `Disconnected`, `Stopped` (nothing was
/// sent) and `OutcomeUnknown` where the link is gone for good.
#[derive(Clone)]
pub struct RemoteHttp {
    asker: Asker,
    numbers: Arc<AtomicU64>,
    parent: Option<TraceContext>,
}

impl fmt::Debug for RemoteHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHttp").finish_non_exhaustive()
    }
}

impl RemoteHttp {
    pub(crate) fn new(asker: Asker, numbers: Arc<AtomicU64>) -> Self {
        Self {
            asker,
            numbers,
            parent: None,
        }
    }

    /// The same, whose requests are traced below this span. Without it they are below the span that the calling code is
    /// in, if that is known, and else not traced.
    #[must_use]
    pub fn parent(&self, parent: TraceContext) -> Self {
        Self {
            parent: Some(parent).filter(TraceContext::is_valid),
            ..self.clone()
        }
    }

    /// Serves any request of the vocabulary, for who keeps exchanges in order on its own. Numbers in it have to be of
    /// [`RemoteHttp::fresh_exchange`].
    ///
    /// # Errors
    /// See the type; `UnknownHandle` for an exchange that is over.
    pub async fn call(&self, request: HttpRequest) -> Result<HttpReply, WireError> {
        ask(&self.asker.under(self.context()), request).await
    }

    /// A number that no exchange of this session has had.
    pub fn fresh_exchange(&self) -> ExchangeId {
        ExchangeId(self.numbers.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn context(&self) -> TraceContext {
        let parent = self.parent.clone().or_else(propagation::current);
        parent
            .filter(TraceContext::is_valid)
            .unwrap_or_else(|| root(false))
    }

    /// Makes a request, and waits for the head of its answer. Dropping the future gives the request up; what the server
    /// had of it by then, it had.
    ///
    /// # Errors
    /// See the type.
    pub async fn request(&self, ask: HttpAsk) -> Result<RemoteExchange, WireError> {
        let whole = ask.body.len() as u64;
        if whole > BODY_MAX_BYTES {
            let text = "the body is too large";
            return Err(WireError::new(ErrorCode::TooLarge, text).with_limit(BODY_MAX_BYTES, whole));
        }
        let exchange = self.fresh_exchange();
        let mut rest = ask.body;
        let first = rest.split_to(rest.len().min(PART_MAX_BYTES));
        let open = Open {
            exchange,
            method: ask.method,
            url: ask.url,
            headers: ask.headers,
            redirects: ask.redirects,
            timeout_ms: ask
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            body_bytes: whole,
            data: first,
        };
        // From here on, dropping this gives it up.
        let mut its = RemoteExchange {
            asker: self.asker.under(self.context()),
            exchange,
            head: None,
            drawing: None,
            is_over: false,
        };
        match its.opened(open, rest).await {
            Ok(head) => its.head = Some(head),
            Err(error) => {
                its.is_over = matches!(
                    error.code,
                    ErrorCode::HttpFailed | ErrorCode::BadRequest | ErrorCode::UnknownMethod
                );
                return Err(error);
            }
        }
        Ok(its)
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<HttpReply, WireError>> + Send>>;

/// Bodies are stream data: they travel under the same trace without spans of their own, however many parts they have.
fn ask(asker: &Asker, request: HttpRequest) -> Answer {
    let flags = match &request {
        HttpRequest::Send(_) | HttpRequest::Read(_) => TraceFlags::NONE,
        HttpRequest::Open(_) | HttpRequest::Close(_) => asker.context.flags,
    };
    let asker = asker.under(TraceContext {
        flags,
        ..asker.context.clone()
    });
    Box::pin(async move {
        match asker.ask(None, Request::Http(Box::new(request))).await {
            Ok(Reply::Http(reply)) => Ok(reply),
            Ok(_) => Err(strange()),
            Err(error) => Err(as_wire(error)),
        }
    })
}

/// An answer whose body has not been drawn yet. Dropping it gives the request up, and closes its connection.
#[must_use = "dropping it gives the request up"]
pub struct RemoteExchange {
    asker: Asker,
    exchange: ExchangeId,
    head: Option<Head>,
    drawing: Option<Answer>,
    is_over: bool,
}

impl fmt::Debug for RemoteExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteExchange")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl RemoteExchange {
    /// The answer's number.
    pub fn status(&self) -> u16 {
        self.head.as_ref().map_or(0, |head| head.status)
    }

    /// Its headers, with names in small letters, in their order and with repetitions.
    pub fn headers(&self) -> &[Header] {
        self.head.as_ref().map_or(&[], |head| &head.headers)
    }

    fn ask(&self, request: HttpRequest) -> Answer {
        ask(&self.asker, request)
    }

    async fn opened(&mut self, open: Open, mut rest: Bytes) -> Result<Head, WireError> {
        let exchange = self.exchange;
        let mut opened = self.ask(HttpRequest::Open(Box::new(open)));
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(PART_MAX_BYTES));
            let sent = self.ask(HttpRequest::Send(SendPart { exchange, data }));
            tokio::select! {
                biased;
                // Only a failure is answered before the body is whole. It is polled first, and so asked for first.
                answer = &mut opened => return head(answer),
                sent = sent => drop(sent?),
            }
        }
        head(opened.await)
    }

    /// The next part of the body, as it came, at most 256 KiB; `None` behind the last. Nothing is read from the server that
    /// nobody asks for here. Cancellation safe: what had come comes with the next call.
    ///
    /// # Errors
    /// See [`RemoteHttp`]. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let read = HttpRequest::Read(Read {
                exchange: self.exchange,
                max_bytes: u32::try_from(PART_MAX_BYTES).unwrap_or(u32::MAX),
            });
            if self.drawing.is_none() {
                self.drawing = Some(self.ask(read));
            }
            let Some(drawing) = &mut self.drawing else {
                continue;
            };
            let answer = drawing.await;
            self.drawing = None;
            match answer {
                Ok(HttpReply::Body(Body { data, end })) => {
                    self.is_over = end;
                    if !data.is_empty() {
                        return Ok(Some(data));
                    }
                }
                Ok(_) => return Err(strange()),
                Err(error) => {
                    self.is_over = true;
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for RemoteExchange {
    fn drop(&mut self) {
        if !self.is_over {
            // First, so that nobody is answered.
            self.drawing = None;
            let close = HttpRequest::Close(Close {
                exchange: self.exchange,
            });
            self.asker.under(root(false)).tell(Request::Http(Box::new(close)));
        }
    }
}

fn head(answer: Result<HttpReply, WireError>) -> Result<Head, WireError> {
    match answer? {
        HttpReply::Head(head) => Ok(head),
        HttpReply::Sent | HttpReply::Body(_) | HttpReply::Closed => Err(strange()),
    }
}

fn strange() -> WireError {
    WireError::new(ErrorCode::Protocol, "the answer is of another kind")
}

/// What became of a question, in the words of the wire: this side's own failures have their codes there.
fn as_wire(error: RunError) -> WireError {
    match error {
        RunError::Refused(error) => error,
        RunError::NotStarted(why) => WireError::new(ErrorCode::Stopped, why),
        RunError::DeadlineExceeded => WireError::new(ErrorCode::DeadlineExceeded, "the answer came too late"),
        RunError::Lost(why) => WireError::new(ErrorCode::OutcomeUnknown, why),
    }
}
