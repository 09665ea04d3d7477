//! Getting a link to an executor: the first, and the next when one dies.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_messages::{Hello, StreamId, Welcome};
use dwell_relay::driver::Connection;
use dwell_relay::link::HANDSHAKE_TIMEOUT;
use dwell_relay::resume::{Pings, Redial};
use dwell_relay::{
    Dialer as DialerRole, Link, LinkError, LinkEvent, LinkOptions, OsRandomness, OuterDecoder, Preamble,
    Randomness as _, ResetCode, StaticKeypair,
};
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Target;
use super::session::Failed;
use crate::mailbox::Mailbox;
use crate::relay_framer::{Attachment, FramerControl, LinkLost, RelayFramer, Sent, Transport, chain};
use crate::telemetry::{Tick, unix_now_ns};

/// Attempts of one round that may be under way together.
const RACERS_MAX: usize = 3;
/// For so long an executor that says it has too much to do is asked again before that is the answer.
const OVERLOADED_FOR: Duration = Duration::from_secs(5);
/// A link that lived so long is not part of a series of losses: the next dial is made at once.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Whom to dial, and as whom.
pub(crate) struct Dialer {
    pub(crate) identity: Arc<StaticKeypair>,
    pub(crate) target: Target,
    pub(crate) authorization: Vec<u8>,
    pub(crate) pings: Pings,
    pub(crate) links: fn(LinkOptions) -> LinkOptions,
}

impl Dialer {
    /// Dials once: an established link, and nothing said over it.
    pub(crate) async fn establish(&self) -> Result<Attachment, Failed> {
        let connection = self.target.address.dial().await.map_err(Failed::Dial)?;
        let link = self.link().map_err(Failed::Local)?;
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.shake_hands(connection, link))
            .await
            .unwrap_or_else(|_| {
                let late = LinkError::HandshakeDeadline {
                    seconds: HANDSHAKE_TIMEOUT.as_secs(),
                };
                Err(LinkLost::Failed(late.to_string()).into())
            })
    }

    /// The first link of a session. Whoever is told that there is too much to do just now comes again.
    pub(crate) async fn first(&self) -> Result<Attachment, Failed> {
        let begun = Instant::now();
        let mut again = Redial::default();
        // The first pause of a redial is none, and this is no redial.
        again.pause(Duration::ZERO, 0);
        loop {
            match self.establish().await {
                Err(Failed::Lost(LinkLost::Reset {
                    code: ResetCode::Overloaded,
                    ..
                })) if begun.elapsed() < OVERLOADED_FOR => {
                    tracing::debug!("the executor, or the relay, has too much to do: dialling again");
                    let mut draw = [0; 8];
                    OsRandomness::new().fill(&mut draw).ok();
                    let pause = again.pause(begun.elapsed(), u64::from_ne_bytes(draw));
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn shake_hands(
        &self,
        mut connection: Connection,
        mut link: Link<Sent>,
    ) -> Result<Attachment, Failed> {
        let gone = |error: std::io::Error| LinkLost::Connection(error.to_string());
        let mut out = BytesMut::new();
        let mut decoder = OuterDecoder::new();
        let refused = |error: LinkError| {
            let text = chain(&error);
            match error {
                LinkError::Refused(_) => LinkLost::Refused(text),
                _ => LinkLost::Failed(text),
            }
        };
        loop {
            drop(
                link.poll_transmit(Instant::now(), &mut out, usize::MAX)
                    .map_err(refused)?,
            );
            if !out.is_empty() {
                connection.writer.write_all(&out).await.map_err(gone)?;
                out.clear();
            }
            let read = Tick::now();
            while let Some(frame) = decoder
                .next_frame()
                .map_err(|error| LinkLost::Connection(error.to_string()))?
            {
                link.handle_frame(Instant::now(), frame).map_err(refused)?;
                match link.poll_event() {
                    None | Some(LinkEvent::AuthorizationNeeded { .. } | LinkEvent::Message(_)) => {}
                    Some(LinkEvent::PeerClosed { reason }) => {
                        let (code, text) = (reason.code, reason.text);
                        let text = if text.is_empty() {
                            text
                        } else {
                            format!(": {text}")
                        };
                        return Err(LinkLost::Reset { code, text }.into());
                    }
                    Some(LinkEvent::Established(peer)) => {
                        return Ok(Attachment {
                            link,
                            transport: Transport::Own(connection, Box::new(decoder)),
                            peer,
                            early: Vec::new(),
                            read,
                            relayed: self.target.relayed,
                            anew: false,
                            dialled: Some(self.pings),
                        });
                    }
                }
            }
            if connection
                .reader
                .read_buf(decoder.buffer_mut())
                .await
                .map_err(gone)?
                == 0
            {
                return Err(LinkLost::Connection("the other end closed it".into()).into());
            }
        }
    }

    fn link(&self) -> Result<Link<Sent>, String> {
        let target = &self.target;
        let mut rng = OsRandomness::new();
        let mut stream = StreamId::default();
        rng.fill(&mut stream.0).map_err(|error| error.to_string())?;
        let preamble = Preamble::new(DialerRole::Harness, target.executor, stream, &target.token)
            .map_err(|error| error.to_string())?;
        let hello = Hello {
            timestamp_ms: unix_now_ns() / 1_000_000,
            authorization: ByteBuf::from(self.authorization.clone()),
        };
        let hello = hello.encode().map_err(|error| error.to_string())?;
        let options = if target.relayed {
            LinkOptions::relayed()
        } else {
            LinkOptions::direct()
        };
        Link::dial(
            Instant::now(),
            &self.identity,
            &preamble,
            &target.token,
            &hello,
            (self.links)(options),
            &mut rng,
        )
        .map_err(|error| chain(&error))
    }

    /// Dials; an attempt that is not answered in time is raced by another. The first link wins.
    async fn race(&self, round_trip: Duration) -> Result<Attachment, Failed> {
        let pause = Redial::race_after(round_trip);
        let mut attempts = vec![Box::pin(self.establish())];
        loop {
            let next = std::future::poll_fn(|cx| {
                let ready = attempts.iter_mut().enumerate().find_map(|(at, attempt)| {
                    match attempt.as_mut().poll(cx) {
                        std::task::Poll::Ready(outcome) => Some((at, outcome)),
                        std::task::Poll::Pending => None,
                    }
                });
                ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            });
            match tokio::time::timeout(pause, next).await {
                Ok((_, Ok(attachment))) => return Ok(attachment),
                Ok((at, Err(failed))) => {
                    drop(attempts.swap_remove(at));
                    if attempts.is_empty() {
                        return Err(failed);
                    }
                }
                Err(_) if attempts.len() < RACERS_MAX => attempts.push(Box::pin(self.establish())),
                Err(_) => {}
            }
        }
    }
}

/// Dials until there is a link to the same life of the executor, and gives it to the framer. Whoever waits no longer
/// drops it.
pub(super) async fn redial(
    dialer: Rc<Dialer>,
    state: Rc<RefCell<(Redial, Option<Instant>)>>,
    epoch: ByteBuf,
    round_trip: Duration,
    framer: Mailbox<RelayFramer>,
) {
    let lost = Instant::now();
    {
        let mut state = state.borrow_mut();
        if state.1.take().is_some_and(|up| up.elapsed() >= SETTLED_AFTER) {
            state.0 = Redial::default();
        }
    }
    loop {
        let mut draw = [0; 8];
        // Without randomness attempts are merely regular.
        OsRandomness::new().fill(&mut draw).ok();
        let pause = state
            .borrow_mut()
            .0
            .pause(lost.elapsed(), u64::from_ne_bytes(draw));
        tokio::time::sleep(pause).await;
        let attachment = match dialer.race(round_trip).await {
            Ok(attachment) => attachment,
            Err(failed) => {
                tracing::debug!(%failed, "no link yet");
                continue;
            }
        };
        let same = Welcome::decode(&attachment.peer.welcome).is_ok_and(|welcome| welcome.epoch == epoch);
        if !same {
            let why = "the executor was restarted: what it had not answered is not sent again";
            let lost = LinkLost::NotResumed(why.into());
            drop(framer.control(FramerControl::Lost(None, lost)));
            return;
        }
        give(&framer, attachment).await;
        return;
    }
}

/// Gives a link to a framer. Its control queue may be full for a moment.
async fn give(framer: &Mailbox<RelayFramer>, attachment: Attachment) {
    let mut control = FramerControl::Attach(Box::new(attachment), None);
    while let Err(full) = framer.control(control) {
        control = full.0;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
