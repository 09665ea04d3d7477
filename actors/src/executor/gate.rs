//! Between a connection and a session: the handshake, the verdict on the client, and its first message, which says whether
//! it begins a session or takes one up again.
//!
//! No actor, no thread and no side effect stands behind a gate: a stranger costs one link's core and no more, and that
//! only if the door finds its message 1 worth a look.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;
use dwell_messages::{
    ErrorCode, Hello, Message as Wire, PublicKey, Resume, ResumeRefused, Welcome, WireError, codec,
};
use dwell_relay::strangers::{Admitted, Vouching};
use dwell_relay::{
    Incoming, Link, LinkError, LinkEstablished, LinkEvent, OuterFrame, Preamble, Reset, ResetCode,
};
use serde_bytes::ByteBuf;
use tokio::sync::Notify;

use super::door::{Origin, UnderWay, Unheard};
use super::session::begin;
use super::{Found, SessionId, Shared};
use crate::access::Verdict;
use crate::mailbox::Mailbox;
use crate::relay_framer::{
    Attachment, FramerControl, RelayFramer, Sent, Transport, put_off, turn_away, unknown,
};
use crate::telemetry::{Tick, unix_now_ns, wall_unix_ms};

/// Messages of one record that may stand behind the first.
const EARLY_MAX: usize = 4_096;

/// How far a client has got.
enum Stage {
    /// Its message 1 has not come.
    Awaited,
    /// Message 1 is being looked into.
    Heard(Admitted<Origin>),
    /// It has been answered.
    Answered(UnderWay),
    /// Its first record has opened.
    Proven,
}

/// Who stands before a gate.
pub(super) struct Visitor {
    pub(super) preamble: Preamble,
    pub(super) origin: Origin,
    pub(super) vouching: Vouching,
    /// Told when the handshake has to make room for another: look at `Gate::is_evicted`.
    pub(super) wake: Arc<Notify>,
}

/// A link on its way to a session.
pub(super) struct Gate {
    link: Link<Sent>,
    visitor: Visitor,
    stage: Stage,
    peer: Option<LinkEstablished>,
    /// The session's number, if it begins one.
    session: SessionId,
    relayed: bool,
}

/// What a frame has made of a gate.
pub(super) enum Step {
    /// It waits for more.
    Waiting(Box<Gate>),
    /// Its client has said something: `Passed::enter` finds its session.
    Passed(Box<Passed>),
    /// It leads nowhere. The bytes are the last that the other end hears.
    Over(BytesMut),
}

/// A link whose client has said something.
pub(super) struct Passed {
    link: Link<Sent>,
    peer: LinkEstablished,
    early: Vec<Incoming>,
    session: SessionId,
    read: Tick,
    relayed: bool,
}

impl Gate {
    pub(super) fn new(link: Link<Sent>, visitor: Visitor, relayed: bool) -> Self {
        Self {
            link,
            visitor,
            stage: Stage::Awaited,
            peer: None,
            session: 0,
            relayed,
        }
    }

    /// What is to be written now.
    pub(super) fn transmit(&mut self, out: &mut BytesMut) {
        // Nothing was queued, so no token comes back.
        drop(self.link.poll_transmit(Instant::now(), out, usize::MAX));
    }

    /// Whether it made room for another.
    pub(super) fn is_evicted(&self) -> bool {
        match &self.stage {
            Stage::Answered(under_way) => !under_way.is_pending(),
            Stage::Awaited | Stage::Heard(_) | Stage::Proven => false,
        }
    }

    /// Whether its client is served, as far as message 1 can show that: it may send records.
    pub(super) fn is_answered(&self) -> bool {
        match &self.stage {
            Stage::Answered(_) | Stage::Proven => true,
            Stage::Awaited | Stage::Heard(_) => false,
        }
    }

    /// It makes room for another: the last bytes to write.
    pub(super) fn evict(mut self) -> BytesMut {
        self.link.close(&overloaded());
        self.last_words()
    }

    /// When `timeout` is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    /// It took too long: the last bytes to write.
    pub(super) fn timeout(mut self) -> BytesMut {
        drop(self.link.handle_timeout(Instant::now()));
        self.last_words()
    }

    /// Takes a frame.
    pub(super) fn handle(mut self, shared: &Shared, frame: OuterFrame, read: Tick) -> Step {
        if self.is_evicted() {
            return Step::Over(self.evict());
        }
        if frame.kind == OuterKind::Handshake
            && let Stage::Awaited = &self.stage
            && let Err(reset) = self.hear(shared, &frame)
        {
            self.link.close(&reset);
            return Step::Over(self.last_words());
        }
        if let Err(error) = self.link.handle_frame(Instant::now(), frame) {
            tracing::debug!(%error, "a link did not come about");
            self.failed(shared);
            return Step::Over(self.last_words());
        }
        let mut early = Vec::new();
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::AuthorizationNeeded {
                    client,
                    hello,
                    handshake_hash,
                } => {
                    if self.verdict(shared, client, &hello, &handshake_hash).is_none() {
                        return Step::Over(self.last_words());
                    }
                }
                LinkEvent::Established(peer) => {
                    self.peer = Some(peer);
                    if let Stage::Answered(under_way) = std::mem::replace(&mut self.stage, Stage::Proven)
                        && !under_way.confirm()
                    {
                        return Step::Over(self.evict());
                    }
                }
                LinkEvent::Message(incoming) if early.len() < EARLY_MAX => early.push(incoming),
                LinkEvent::Message(_) | LinkEvent::PeerClosed { .. } => return Step::Over(self.last_words()),
            }
        }
        match self.peer.take() {
            Some(peer) if !early.is_empty() => Step::Passed(Box::new(Passed {
                link: self.link,
                peer,
                early,
                session: self.session,
                read,
                relayed: self.relayed,
            })),
            peer => {
                self.peer = peer;
                Step::Waiting(Box::new(self))
            }
        }
    }

    /// Asks the door about a message 1, before anything is computed for it.
    fn hear(&mut self, shared: &Shared, frame: &OuterFrame) -> Result<(), Reset> {
        let visitor = &self.visitor;
        let from = (visitor.origin, visitor.vouching);
        match shared
            .door
            .judge(&visitor.preamble.encode(), &frame.payload, from)
        {
            Ok(admitted) => {
                self.stage = Stage::Heard(admitted);
                Ok(())
            }
            Err(why) => {
                tracing::debug!(origin = ?visitor.origin, %why, "a message 1 was not looked into");
                Err(match why {
                    Unheard::Turned(turned) if turned.is_for_now() => overloaded(),
                    // As garbage.
                    Unheard::WrongMac | Unheard::Turned(_) => Reset::new(ResetCode::Unavailable),
                })
            }
        }
    }

    fn failed(&mut self, shared: &Shared) {
        match std::mem::replace(&mut self.stage, Stage::Awaited) {
            Stage::Heard(admitted) => shared.door.failed(admitted),
            // Dropping it is its end.
            Stage::Awaited | Stage::Answered(_) | Stage::Proven => {}
        }
    }

    fn verdict(
        &mut self,
        shared: &Shared,
        client: PublicKey,
        hello: &[u8],
        handshake: &[u8; 32],
    ) -> Option<()> {
        let Some((welcome, session)) = authorize(shared, client, hello, handshake) else {
            self.failed(shared);
            self.link.refuse();
            return None;
        };
        if let Stage::Heard(admitted) = std::mem::replace(&mut self.stage, Stage::Awaited) {
            match shared.door.answered(admitted, &self.visitor.wake) {
                Ok(under_way) => self.stage = Stage::Answered(under_way),
                Err(why) => {
                    tracing::debug!(%client, %why, "a message 1 was not answered");
                    self.link.refuse();
                    return None;
                }
            }
        }
        self.session = session;
        self.link
            .welcome(&welcome)
            .inspect_err(|error: &LinkError| tracing::warn!(%error, "a client could not be welcomed"))
            .ok()
    }

    fn last_words(mut self) -> BytesMut {
        let mut out = BytesMut::new();
        self.transmit(&mut out);
        out
    }
}

fn overloaded() -> Reset {
    Reset::with_text(
        ResetCode::Overloaded,
        "too many handshakes at the moment: try again",
    )
}

fn authorize(
    shared: &Shared,
    client: PublicKey,
    hello: &[u8],
    handshake: &[u8; 32],
) -> Option<(Vec<u8>, SessionId)> {
    let hello = match Hello::decode(hello) {
        Ok(hello) => hello,
        Err(error) => {
            tracing::warn!(%client, %error, "a client's hello was not understood");
            shared.gate.not_understood(&client, handshake);
            return None;
        }
    };
    let (now, now_unix_s) = (Instant::now(), wall_unix_ms() / 1_000);
    match (shared.gate).admit(now, now_unix_s, &client, &hello.authorization, handshake) {
        Verdict::Serve => {}
        Verdict::Refuse => {
            let fingerprint = dwell_relay::fingerprint(&client);
            tracing::warn!(%client, %fingerprint, "a client was turned away");
            return None;
        }
    }
    let (session, grant) = shared.next_session(&client);
    let welcome = Welcome {
        epoch: ByteBuf::from(shared.epoch.to_vec()),
        session,
        grant: ByteBuf::from(grant.to_vec()),
        unix_ns: unix_now_ns(),
        environment: (*shared.environment).clone(),
    };
    Some((welcome.encode().ok()?, session))
}

impl Passed {
    /// Finds or begins the session. `None`: there is none for this client; it was told, if there was something to tell.
    pub(super) fn enter(self, shared: &Arc<Shared>, transport: Transport) -> Option<Mailbox<RelayFramer>> {
        let Self {
            link,
            peer,
            mut early,
            session,
            read,
            relayed,
        } = self;
        let resume = early.first().and_then(resume_of);
        if resume.is_some() {
            early.remove(0);
        }
        let client = peer.peer;
        let mut attachment = Attachment {
            link,
            transport,
            peer,
            early,
            read,
            relayed,
            anew: false,
            dialled: None,
        };
        match resume {
            None => begin(shared, attachment, session),
            Some(resume) => {
                let framer = match shared.session(&resume, &client, &attachment.transport, session) {
                    Found::Session(framer) => framer,
                    Found::NeverBegun => {
                        attachment.anew = true;
                        return begin(shared, attachment, session);
                    }
                    Found::Nothing => {
                        tracing::warn!(%client, "a client asked for a session that is over, or not its own");
                        let handshake = &attachment.peer.handshake_hash;
                        shared
                            .gate
                            .not_taken_up(&client, handshake, "there is no such session");
                        turn_away(attachment, &unknown());
                        return None;
                    }
                    Found::OutOfReach => {
                        turn_away(attachment, &out_of_reach());
                        return None;
                    }
                };
                let control = FramerControl::Attach(Box::new(attachment), Some(Box::new(resume)));
                if let Err(full) = framer.control(control)
                    && let FramerControl::Attach(attachment, _) = full.0
                {
                    put_off(*attachment);
                    return None;
                }
                Some(framer)
            }
        }
    }
}

/// A relay's connection carries only sessions of its own thread.
fn out_of_reach() -> ResumeRefused {
    let text = "the session was begun over another way to this executor: take it up that way, or directly";
    ResumeRefused {
        error: WireError::new(ErrorCode::UnknownSession, text),
        owner: 0,
    }
}

fn resume_of(first: &Incoming) -> Option<Resume> {
    match codec::decode(&first.bytes).ok()?.message {
        Wire::Resume(resume) => Some(*resume),
        _ => None,
    }
}
