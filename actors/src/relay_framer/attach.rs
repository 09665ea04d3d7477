//! How a session gets its links, and loses them.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_messages::{
    Envelope, ErrorCode, Message as Wire, Resume, ResumeRefused, Resumed, TraceContext, WireError, codec,
};
use dwell_relay::resume::Beat;
use dwell_relay::{Lane, Outgoing, Reset, ResetCode};
use tokio::io::AsyncWriteExt as _;

use super::line::{Attachment, Line, Transport};
use super::uplink::{Sent, Uplink};
use super::{FramerControl, LinkLost, RelayFramer, WIND_DOWN_MAX};
use crate::mailbox::Turn;
use crate::telemetry::Tick;

/// How long somebody who is turned away may take to hear it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

impl RelayFramer {
    /// The session's first link.
    pub(super) fn begin(&mut self, attachment: Attachment, turn: &mut Turn<'_, Self>) {
        let Attachment {
            link,
            transport,
            peer,
            early,
            read,
            relayed,
            dialled,
            anew,
        } = attachment;
        let Some(line) = Line::open(link, transport, (relayed, dialled), turn) else {
            return self.over(LinkLost::Connection("it is gone already".into()), turn);
        };
        self.line = Some(line);
        self.attachments = 1;
        if anew {
            self.say(Wire::Resumed(Resumed {
                owner: self.owner,
                received: 0,
                from: 1,
                anew,
            }));
        }
        self.upper.begun(&peer, turn);
        self.beat(turn);
        for incoming in &early {
            self.message(incoming, read, turn);
        }
        self.wake();
    }

    /// A further link. On an executor `resume` is what the client said first; on a harness it is still to be said.
    pub(super) fn attach(
        &mut self,
        attachment: Attachment,
        resume: Option<Box<Resume>>,
        turn: &mut Turn<'_, Self>,
    ) {
        if self.over {
            return turn_away(attachment, &unknown());
        }
        if let Some(resume) = &resume
            && resume.owner <= self.owner
        {
            let text = format!("the session has owner {} already", self.owner);
            let refused = ResumeRefused {
                error: WireError::new(ErrorCode::Superseded, text),
                owner: self.owner,
            };
            return turn_away(attachment, &refused);
        }
        let Attachment {
            link,
            transport,
            peer,
            early,
            read,
            relayed,
            dialled,
            ..
        } = attachment;
        if resume.is_some() && self.line.is_some() {
            // Whoever has the session now, if anybody is there, hears it inside the seal.
            self.say(Wire::Goodbye("somebody else has taken the session over".into()));
            if let Some(line) = &self.line {
                line.uplink.flush(line.stream);
            }
        }
        self.line = None;
        let Some(mut line) = Line::open(link, transport, (relayed, dialled), turn) else {
            return self.link_lost(LinkLost::Connection("it is gone already".into()), turn);
        };
        line.welcome = peer.welcome;
        self.line = Some(line);
        self.attachments += 1;
        match resume {
            Some(resume) => self.take_up(*resume, turn),
            None => self.ask_to_go_on(turn),
        }
        self.beat(turn);
        for incoming in &early {
            self.message(incoming, read, turn);
        }
        self.wake();
    }

    /// The executor's part: the client says what it has, and hears what we have.
    fn take_up(&mut self, resume: Resume, turn: &mut Turn<'_, Self>) {
        let outcome = self.replay.acknowledge(resume.received, drop);
        self.count_unacknowledged();
        if let Err(error) = outcome {
            return self.over(LinkLost::Protocol(error.to_string()), turn);
        }
        self.owner = resume.owner;
        let resumed = Resumed {
            owner: self.owner,
            received: self.received.state(),
            from: self.replay.first_kept(),
            anew: false,
        };
        self.say(Wire::Resumed(resumed));
        self.send_again(turn);
        self.upper.resumed(self.attachments, Some(resume), turn);
    }

    /// The harness's part, first half.
    fn ask_to_go_on(&mut self, turn: &mut Turn<'_, Self>) {
        let Some(resume) = self.upper.resume() else {
            return self.over(LinkLost::NotResumed("this side resumes nothing".into()), turn);
        };
        // What is said here need not be said again.
        self.released.clear();
        let resume = Resume {
            owner: self.owner + 1,
            received: self.received.state(),
            ..resume
        };
        self.owner = resume.owner;
        if let Some(line) = &mut self.line {
            line.resuming = true;
        }
        self.say(Wire::Resume(Box::new(resume)));
    }

    /// The harness's part, second half.
    pub(super) fn goes_on(&mut self, resumed: Resumed, turn: &mut Turn<'_, Self>) {
        let Some(line) = self.line.as_mut().filter(|line| line.resuming) else {
            let why = "it goes on with a session that nobody takes up";
            return self.over(LinkLost::Protocol(why.into()), turn);
        };
        line.resuming = false;
        if resumed.anew {
            self.owner = resumed.owner;
            let welcome = std::mem::take(&mut line.welcome);
            self.upper.anew(&welcome);
        }
        let outcome = self.replay.acknowledge(resumed.received, drop);
        self.count_unacknowledged();
        if let Err(error) = outcome {
            return self.over(LinkLost::Protocol(error.to_string()), turn);
        }
        self.received.skip_to(resumed.from);
        self.send_again(turn);
        self.send_waiting(turn);
        self.upper.resumed(self.attachments, None, turn);
    }

    /// The link is gone; the session waits for the next, or ends.
    pub(super) fn link_lost(&mut self, why: LinkLost, turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        self.line = None;
        self.held = None;
        self.ack = None;
        if !why.may_resume() {
            return self.over(why, turn);
        }
        match self.upper.detached(&why, turn) {
            Some(wait) if !wait.is_zero() => {
                let expired = FramerControl::Expired(self.attachments);
                // It looks at the count of links: a timer that comes late finds another.
                turn.timer(wait, expired).detach();
            }
            Some(_) | None => self.over(why, turn),
        }
    }

    /// What the link's pulse wants.
    pub(super) fn beat(&mut self, turn: &mut Turn<'_, Self>) {
        loop {
            let Some(line) = &mut self.line else { return };
            match line.beat(turn) {
                Beat::Wait(_) => return,
                Beat::Ping => self.say(Wire::Ping(Tick::now().to_raw())),
                Beat::Dead => return self.link_lost(LinkLost::Silent, turn),
            }
        }
    }

    /// Ends what the session runs, and says goodbye when its client has heard of it.
    pub(super) fn wind_down(&mut self, reason: String, turn: &mut Turn<'_, Self>) {
        if self.over || self.winding_down.is_some() {
            return;
        }
        if self.line.is_none() || !self.upper.wind_down() {
            return self.end(reason, turn);
        }
        self.winding_down = Some(reason);
        turn.timer(WIND_DOWN_MAX, FramerControl::WoundDown).detach();
    }

    /// Says goodbye and ends.
    pub(super) fn end(&mut self, reason: String, turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        self.farewell(reason, turn);
        self.over(LinkLost::Ended, turn);
    }

    /// The last word inside the seal: the peer need not wait for anybody to come back.
    pub(super) fn farewell(&mut self, reason: String, turn: &Turn<'_, Self>) {
        self.acknowledge();
        self.say(Wire::Goodbye(reason));
        if let Some(line) = self.line.take() {
            line.uplink.flush(line.stream);
            // The goodbye leaves with the next write; the reset behind it drops what was not cut.
            turn.spawn(async move {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                drop(line);
            })
            .detach();
        }
    }
}

/// What everybody hears of a session that is not there or not theirs.
pub(crate) fn unknown() -> ResumeRefused {
    let text = "there is no such session: the executor was restarted, or it was away for too long";
    ResumeRefused {
        error: WireError::new(ErrorCode::UnknownSession, text),
        owner: 0,
    }
}

/// Tells whoever established a link that it gets no session, and ends the link.
pub(crate) fn turn_away(attachment: Attachment, refused: &ResumeRefused) {
    let Attachment {
        mut link, transport, ..
    } = attachment;
    let stream = link.stream();
    let envelope = Envelope::new(TraceContext::default(), Wire::ResumeRefused(refused.clone()));
    let mut out = BytesMut::new();
    if let Ok(bytes) = codec::encode(&envelope, 0) {
        let message = Outgoing {
            lane: Lane::Control,
            channel: 0,
            bytes,
            trailer: None,
            token: Sent {
                room: None,
                on_written: None,
            },
        };
        if link.enqueue(message).is_ok() {
            drop(link.poll_transmit(Instant::now(), &mut out, usize::MAX));
        }
    }
    link.close(&Reset::new(ResetCode::Closed));
    drop(link.poll_transmit(Instant::now(), &mut out, usize::MAX));
    match transport {
        Transport::Own(mut connection, _) => {
            actix_rt::spawn(async move {
                let told = async {
                    connection.writer.write_all(&out).await?;
                    connection.writer.shutdown().await
                };
                drop(tokio::time::timeout(REFUSAL_TIMEOUT, told).await);
            });
        }
        Transport::Shared(id) => {
            if let Some(uplink) = Uplink::local(id) {
                uplink.retire(stream);
                uplink.say(|clear| clear.extend_from_slice(&out));
            }
        }
    }
}
