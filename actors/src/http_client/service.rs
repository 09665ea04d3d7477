//! `HttpService`: one session's HTTP requests on the executor.
//!
//! Owns which exchanges the session has, and the way to each one's task. Never waits for a server and holds no byte of a
//! body: an exchange's task does both, and has what is asked of it in a queue of [`COMMANDS_MAX`]; past that the answer
//! is that it is busy. Full: the dispatcher waits. Stop: every exchange is given up. Who sends: the `Dispatcher`, the
//! session, and the exchanges' tasks through a port that holds one word of each. Supervised by the session.

use std::rc::Rc;

use dwell_messages::http::{ExchangeId, HttpReply, HttpRequest, Open};
use dwell_messages::{Envelope, ErrorCode, Reply, Request, TraceContext, WireError};
use dwell_relay::driver::tls::Trust;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::core::{Exchanges, Life, unknown};
use super::exchange::{Command, Exchange};
use super::{COMMANDS_MAX, EXCHANGES_MAX};
use crate::account::Segment;
use crate::mailbox::{Actor, Mailbox, Message, Turn};
use crate::relay_framer::Unacknowledged;
use crate::rpc_queue::server::Call;
use crate::telemetry::Collector;

/// What it is told.
pub(crate) enum HttpMessage {
    /// A request about HTTP.
    Call(Box<Call>),
    /// A life of an exchange is over.
    Over(ExchangeId, Life),
    /// The session has another owner, who knows nothing of its exchanges.
    TakenOver,
}

impl Message for HttpMessage {
    const NAMES: &'static [&'static str] = &["Call", "Over", "TakenOver"];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Over(..) => 1,
            Self::TakenOver => 2,
        }
    }
}

/// The way to an exchange's task; dropping it gives the exchange up.
struct Way {
    commands: mpsc::Sender<Command>,
    _closes: oneshot::Sender<()>,
}

/// See the module.
pub(crate) struct HttpService {
    exchanges: Exchanges<Way>,
    trust: Trust,
    collector: Collector,
    unacknowledged: Rc<Unacknowledged>,
    over: Option<Mailbox<HttpService>>,
}

impl HttpService {
    pub(super) fn new(trust: Trust, collector: Collector, unacknowledged: Rc<Unacknowledged>) -> Self {
        Self {
            exchanges: Exchanges::default(),
            trust,
            collector,
            unacknowledged,
            over: None,
        }
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::SupervisorMailbox, turn.now());
        let Request::Http(request) = &call.request else {
            let error = WireError::new(ErrorCode::BadRequest, "the request is not about HTTP");
            return call.responder.answer(turn, context, Err(error), call.account);
        };
        match request.as_ref() {
            HttpRequest::Open(open) => {
                let open = open.as_ref().clone();
                self.open((context, call), open, turn);
            }
            HttpRequest::Send(_) | HttpRequest::Read(_) => {
                let exchange = request.exchange();
                self.hand_on(exchange, (context, call), turn);
            }
            HttpRequest::Close(close) => {
                drop(self.exchanges.close(close.exchange));
                let reply = Reply::Http(HttpReply::Closed);
                call.responder.answer(turn, context, Ok(reply), call.account);
            }
        }
    }

    fn open(&mut self, (context, call): Command, open: Open, turn: &mut Turn<'_, Self>) {
        let service = self
            .over
            // One of each that is there. Of those that were closed the task waits, and nobody with it.
            .get_or_insert_with(|| turn.mailbox().port(EXCHANGES_MAX))
            .clone();
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (closes, closed) = oneshot::channel();
        let way = Way {
            commands,
            _closes: closes,
        };
        let mut begun = None;
        let admitted = self.exchanges.open(&open, |life| {
            begun = Some(life);
            way
        });
        let life = match (admitted, begun) {
            (Ok(()), Some(life)) => life,
            (Err(error), _) => {
                return call.responder.answer(turn, context, Err(error), call.account);
            }
            (Ok(()), None) => return,
        };
        let exchange = Exchange {
            life,
            trust: self.trust.clone(),
            collector: self.collector.clone(),
            unacknowledged: Rc::clone(&self.unacknowledged),
            commands: queue,
            closed,
            service,
        };
        turn.spawn(exchange.run((context, call), open)).detach();
    }

    fn hand_on(&self, exchange: ExchangeId, command: Command, turn: &mut Turn<'_, Self>) {
        let (command, error) = match self.exchanges.of(exchange) {
            Err(error) => (command, error),
            Ok(way) => match way.commands.try_send(command) {
                Ok(()) => return,
                Err(TrySendError::Full(command)) => {
                    let text = "too much is asked of this HTTP request at once";
                    let error = WireError::new(ErrorCode::Busy, text);
                    (
                        command,
                        error.with_limit(COMMANDS_MAX as u64, COMMANDS_MAX as u64 + 1),
                    )
                }
                Err(TrySendError::Closed(command)) => (command, unknown()),
            },
        };
        let (context, call) = command;
        call.responder.answer(turn, context, Err(error), call.account);
    }
}

impl Actor for HttpService {
    const NAME: &'static str = "HttpService";
    type Message = HttpMessage;
    type Control = std::convert::Infallible;

    fn receive(&mut self, envelope: Envelope<HttpMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            HttpMessage::Call(call) => self.call(envelope.context, *call, turn),
            HttpMessage::Over(exchange, life) => self.exchanges.over(exchange, life),
            HttpMessage::TakenOver => self.exchanges.clear(),
        }
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        self.exchanges.clear();
    }
}
