//! One exchange: a task from its opening to its last byte.
//!
//! A part of the answer's body is read from the connection when somebody draws it and not before: what nobody draws fills
//! the connection's own buffers, and then holds its server up. The time is over for all of it at one instant, whoever
//! waits for whom.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dwell_messages::http::{self, HttpReply, HttpRequest, PART_MAX_BYTES};
use dwell_messages::{Envelope, ErrorCode, Reply, Request, TraceContext, WireError};
use dwell_relay::driver::tls::Trust;
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::core::{Life, unknown};
use super::hop::{Answer, follow};
use super::request::Sending;
use super::service::{HttpMessage, HttpService};
use crate::files::UNACKNOWLEDGED_MAX_BYTES;
use crate::mailbox::Mailbox;
use crate::relay_framer::Unacknowledged;
use crate::rpc_queue::server::Call;
use crate::telemetry::{Collector, Stage, Tick, semconv};

/// How long is waited before it is looked again whether the client has acknowledged what it was sent.
const RETRY: Duration = Duration::from_millis(5);

/// A request about the exchange, admitted.
pub(super) type Command = (TraceContext, Call);

/// What an exchange's task is made of.
pub(super) struct Exchange {
    pub(super) life: Life,
    pub(super) trust: Trust,
    pub(super) collector: Collector,
    pub(super) unacknowledged: Rc<Unacknowledged>,
    /// What is asked of it, in order.
    pub(super) commands: mpsc::Receiver<Command>,
    /// Ends when it is given up.
    pub(super) closed: oneshot::Receiver<()>,
    /// To whom its end is told.
    pub(super) service: Mailbox<HttpService>,
}

/// What an exchange came to, for its span.
#[derive(Default)]
struct Told {
    status: Option<u16>,
    followed: u32,
    body_bytes: u64,
}

/// How an exchange ends: what its last request is answered, if one waits.
struct End {
    last: Option<Command>,
    outcome: Result<HttpReply, WireError>,
}

/// What came of looking for the next part of a body.
enum Part {
    /// It; without a byte it is the end.
    Data(Bytes),
    /// Nobody waits for it any more.
    Withdrawn,
    /// There is none.
    Failed(WireError),
}

fn given_up() -> WireError {
    WireError::new(ErrorCode::Cancelled, "the HTTP request was given up")
}

fn too_late() -> WireError {
    WireError::new(ErrorCode::DeadlineExceeded, "the HTTP request timed out")
}

fn bad(text: &str) -> WireError {
    WireError::new(ErrorCode::BadRequest, text)
}

/// Returns at an instant, if there is one.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn answer((context, call): Command, result: Result<HttpReply, WireError>) {
    let result = result.map(Reply::Http);
    call.responder.answer_later(context, result, call.account).await;
}

fn asked(command: &Command) -> Option<&HttpRequest> {
    match &command.1.request {
        Request::Http(request) => Some(request),
        Request::EnvironmentInfo
        | Request::Start(_)
        | Request::Write(_)
        | Request::Signal(_)
        | Request::Terminate(_)
        | Request::Read(_)
        | Request::Resize(_)
        | Request::Sessions(_)
        | Request::File(_)
        | Request::FindUp(_)
        | Request::WorkspaceLoad(_) => None,
    }
}

impl Exchange {
    /// From the opening, which `opening` asks for, to the end.
    pub(super) async fn run(mut self, opening: Command, open: http::Open) {
        let (begun, context) = (Tick::now(), opening.0.clone());
        let mut told = Told::default();
        let End { last, outcome } = self.serve(opening, &open, &mut told).await;
        let error = outcome.as_ref().err().map(|error| error.code);
        self.collector.stage(
            Stage::new(&context, semconv::span::HTTP_EXCHANGE, begun, Tick::now())
                .maybe_number(semconv::HTTP_STATUS, told.status)
                .number(semconv::HTTP_REDIRECTS, told.followed)
                .number(semconv::HTTP_BODY_BYTES, told.body_bytes)
                .failed(error.map(ErrorCode::name)),
        );
        // Before whoever waits hears of it: its place is free when it asks for the next.
        let over = HttpMessage::Over(open.exchange, self.life);
        let over = Envelope::new(TraceContext::default(), over);
        drop(self.service.tell(over).await);
        if let Some(last) = last {
            answer(last, outcome).await;
        }
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            let why = match error {
                Some(ErrorCode::Cancelled) => given_up(),
                Some(_) | None => unknown(),
            };
            answer(command, Err(why)).await;
        }
    }

    async fn serve(&mut self, opening: Command, open: &http::Open, told: &mut Told) -> End {
        if !opening.1.responder.begin() {
            // Its client was told.
            let outcome = Err(given_up());
            return End { last: None, outcome };
        }
        let (found, deadline) = match self.head(open).await {
            Ok(found) => found,
            Err(error) => {
                return End {
                    last: Some(opening),
                    outcome: Err(error),
                };
            }
        };
        (told.status, told.followed) = (Some(found.status), found.followed);
        let headers = found.headers.iter().map(|(name, value)| http::Header {
            name: name.as_str().to_owned(),
            value: ByteBuf::from(value.as_bytes()),
        });
        let head = http::Head {
            status: found.status,
            headers: headers.collect(),
        };
        answer(opening, Ok(HttpReply::Head(head))).await;
        self.body(Some(found), deadline, told).await
    }

    /// The head of the answer, and when the time is over.
    async fn head(&mut self, open: &http::Open) -> Result<(Answer, Option<Instant>), WireError> {
        use std::os::unix::ffi::OsStringExt as _;
        let variable = |name: &str| std::env::var_os(name).map(std::ffi::OsString::into_vec);
        let mut sending = Sending::new(open, variable)?;
        let deadline = match open.timeout_ms {
            None => None,
            Some(0) => return Err(too_late()),
            // What is that far away never comes.
            Some(millis) => Instant::now().checked_add(Duration::from_millis(millis)),
        };
        sending.body = self.sent(open, deadline).await?;
        let answer = tokio::select! {
            biased;
            _ = &mut self.closed => Err(given_up()),
            () = at(deadline) => Err(too_late()),
            answer = Box::pin(follow(sending, &self.trust)) => answer,
        };
        Ok((answer?, deadline))
    }

    /// The whole body of the request.
    async fn sent(&mut self, open: &http::Open, deadline: Option<Instant>) -> Result<Bytes, WireError> {
        if open.data.len() as u64 == open.body_bytes {
            return Ok(open.data.clone());
        }
        let mut body = BytesMut::from(&open.data[..]);
        while (body.len() as u64) < open.body_bytes {
            let command = tokio::select! {
                biased;
                _ = &mut self.closed => return Err(given_up()),
                () = at(deadline) => return Err(too_late()),
                command = self.commands.recv() => command.ok_or_else(given_up)?,
            };
            match asked(&command) {
                Some(HttpRequest::Send(send)) if (body.len() + send.data.len()) as u64 <= open.body_bytes => {
                    body.extend_from_slice(&send.data);
                    answer(command, Ok(HttpReply::Sent)).await;
                }
                Some(HttpRequest::Send(_)) => {
                    let why = bad("data has more bytes than body_bytes says");
                    answer(command, Err(why.clone())).await;
                    return Err(why);
                }
                Some(HttpRequest::Open(_) | HttpRequest::Read(_) | HttpRequest::Close(_)) | None => {
                    answer(command, Err(bad("the request's body is not whole yet"))).await;
                }
            }
        }
        Ok(body.freeze())
    }

    /// The body of the answer, to whoever draws it. `from` is gone when its time was over.
    async fn body(&mut self, mut from: Option<Answer>, deadline: Option<Instant>, told: &mut Told) -> End {
        let mut rest = Bytes::new();
        loop {
            let Some((command, max_bytes)) = self.drawn(&mut from, deadline).await else {
                return End {
                    last: None,
                    outcome: Err(given_up()),
                };
            };
            let part = match &mut from {
                None => Part::Failed(too_late()),
                Some(_) if !rest.is_empty() => Part::Data(rest.split_off(0)),
                Some(from) => self.part(&command, from, deadline).await,
            };
            match part {
                Part::Withdrawn => continue,
                Part::Failed(error) => {
                    return End {
                        last: Some(command),
                        outcome: Err(error),
                    };
                }
                Part::Data(part) => rest = part,
            }
            if !command.1.responder.begin() {
                // The next one has it.
                continue;
            }
            let data = rest.split_to(rest.len().min(max_bytes));
            told.body_bytes += data.len() as u64;
            let is_over = from.as_ref().is_none_or(Answer::is_over);
            let end = data.is_empty() || (rest.is_empty() && is_over);
            let part = Ok(HttpReply::Body(http::Body { data, end }));
            if end {
                return End {
                    last: Some(command),
                    outcome: part,
                };
            }
            answer(command, part).await;
        }
    }

    /// The next request for a part, and how many bytes it may have. When the time is over before one comes, the connection
    /// goes at once. `None`: it was given up.
    async fn drawn(
        &mut self,
        from: &mut Option<Answer>,
        deadline: Option<Instant>,
    ) -> Option<(Command, usize)> {
        loop {
            let command = tokio::select! {
                biased;
                _ = &mut self.closed => return None,
                () = at(deadline), if from.is_some() => {
                    *from = None;
                    continue;
                }
                command = self.commands.recv() => command?,
            };
            match asked(&command) {
                Some(HttpRequest::Read(read)) => {
                    let most = usize::try_from(read.max_bytes).unwrap_or(usize::MAX);
                    return Some((command, most.clamp(1, PART_MAX_BYTES)));
                }
                Some(HttpRequest::Open(_) | HttpRequest::Send(_) | HttpRequest::Close(_)) | None => {
                    answer(command, Err(bad("the request's body is whole already"))).await;
                }
            }
        }
    }

    async fn part(&mut self, command: &Command, from: &mut Answer, deadline: Option<Instant>) -> Part {
        let cancellation = command.1.responder.cancellation();
        let unacknowledged = Rc::clone(&self.unacknowledged);
        let next = async {
            while unacknowledged.bytes.get() >= UNACKNOWLEDGED_MAX_BYTES {
                tokio::time::sleep(RETRY).await;
            }
            from.next().await
        };
        tokio::select! {
            biased;
            _ = &mut self.closed => Part::Failed(given_up()),
            () = cancellation.cancelled() => Part::Withdrawn,
            () = at(deadline) => Part::Failed(too_late()),
            part = next => match part {
                Ok(part) => Part::Data(part.unwrap_or_default()),
                Err(error) => Part::Failed(error),
            },
        }
    }
}
