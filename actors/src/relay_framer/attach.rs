//! How a session gets its links, and loses them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_messages::{
    Envelope, ErrorCode, Message as Wire, RequestId, Resume, ResumeRefused, Resumed, TraceContext, WireError,
    codec,
};
use dwell_relay::resume::{Beat, Replay};
use dwell_relay::{Lane, Outgoing, Reset, ResetCode};
use tokio::io::AsyncWriteExt as _;

use super::line::{Attachment, Line, Transport};
use super::uplink::{Sent, Uplink};
use super::{ACK_DELAY, COMPANY_WAIT, FramerControl, LinkLost, RelayFramer, WIND_DOWN_MAX, chain};
use crate::mailbox::Turn;
use crate::telemetry::Tick;

/// More than any session ever sends, asks or starts, and far from where counting ends.
const COUNT_MAX: u64 = u64::MAX / 2;
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
        let Some(mut line) = Line::open(link, transport, (relayed, dialled), self.collector.board(), turn)
        else {
            return self.over(LinkLost::Connection("it is gone already".into()), turn);
        };
        line.welcome = peer.welcome.clone();
        self.line = Some(line);
        self.attachments = 1;
        if anew {
            self.say(Wire::Resumed(Resumed {
                owner: self.owner,
                received: 0,
                from: 1,
                anew,
                requests: 0,
                processes: 0,
            }));
        }
        if self.taking {
            self.ask_to_go_on(turn);
        } else {
            self.upper.begun(&peer, turn);
        }
        self.beat(turn);
        for incoming in &early {
            self.message(incoming, (read, Tick::now()), turn);
        }
        // While a session is taken up nothing else may be said, so nothing is waited for.
        if self.accompanied && !self.taking {
            self.held = Some(turn.timer(COMPANY_WAIT, FramerControl::Flush));
        } else {
            self.wake();
        }
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
        if let Some(Err(refused)) = resume.as_deref().map(|resume| self.judge(resume)) {
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
        if let Some(resume) = &resume
            && resume.owner != self.owner
        {
            self.dismiss(resume.owner, turn);
        }
        self.line = None;
        let Some(mut line) = Line::open(link, transport, (relayed, dialled), self.collector.board(), turn)
        else {
            return self.link_lost(LinkLost::Connection("it is gone already".into()), turn);
        };
        line.welcome = peer.welcome;
        self.line = Some(line);
        self.attachments += 1;
        let meters = self.collector.board().meters();
        meters.resumptions.fetch_add(1, Ordering::Relaxed);
        match resume {
            Some(resume) => self.take_up(*resume, turn),
            None => self.ask_to_go_on(turn),
        }
        self.beat(turn);
        for incoming in &early {
            self.message(incoming, (read, Tick::now()), turn);
        }
        self.wake();
    }

    /// Whether a client may go on with the session, or take it over.
    fn judge(&self, resume: &Resume) -> Result<(), ResumeRefused> {
        let refuse = |error, owner| Err(ResumeRefused { error, owner });
        if resume.owner == self.owner && resume.link > self.links {
            return Ok(());
        }
        if Some(resume.owner) != self.owner.checked_add(1) {
            return refuse(superseded(self.owner), self.owner);
        }
        self.upper
            .may_take_over()
            .or_else(|error| refuse(error, self.owner))
    }

    /// Whoever has the session, if anybody is there, hears inside the seal that it has another owner.
    fn dismiss(&mut self, owner: u64, turn: &Turn<'_, Self>) {
        self.say(Wire::ResumeRefused(ResumeRefused {
            error: superseded(owner),
            owner,
        }));
        self.part(turn);
    }

    /// The executor's part: the client says what it has, and hears what we have.
    fn take_up(&mut self, resume: Resume, turn: &mut Turn<'_, Self>) {
        let taken = resume.owner != self.owner;
        if taken {
            // What the earlier owner was still to hear is nobody's, and what it never got through never comes.
            self.replay.forget();
            self.received.take_over();
            self.taken_at = self.attachments;
        } else if let Err(error) = self.replay.acknowledge(resume.received, drop) {
            return self.over(LinkLost::Protocol(error.to_string()), turn);
        }
        self.count_unacknowledged();
        (self.owner, self.links) = (resume.owner, resume.link);
        let (requests, processes) = self.highest;
        let resumed = Resumed {
            owner: self.owner,
            received: self.received.state(),
            from: self.replay.first_kept(),
            anew: false,
            requests,
            processes,
        };
        self.say(Wire::Resumed(resumed));
        self.send_again(turn);
        let taken = taken.then_some(RequestId(requests));
        self.upper.resumed(self.attachments, Some(resume), taken, turn);
    }

    /// The harness's part, first half.
    fn ask_to_go_on(&mut self, turn: &mut Turn<'_, Self>) {
        let Some(resume) = self.upper.resume() else {
            return self.over(LinkLost::NotResumed("this side resumes nothing".into()), turn);
        };
        // What is said here need not be said again.
        self.released.clear();
        self.links += 1;
        let resume = Resume {
            owner: self.owner,
            link: self.links,
            received: self.received.state(),
            ..resume
        };
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
        let counts = [
            resumed.received,
            resumed.from,
            resumed.requests,
            resumed.processes,
            resumed.owner,
        ];
        if counts.iter().any(|count| *count > COUNT_MAX) {
            let why = "it counts further than any session gets";
            return self.over(LinkLost::Protocol(why.into()), turn);
        }
        if std::mem::take(&mut self.taking) {
            if resumed.anew || resumed.owner != self.owner {
                let why = "it takes another session up than it was asked for";
                return self.over(LinkLost::Protocol(why.into()), turn);
            }
            self.replay = Replay::beginning_at(resumed.received.saturating_add(1));
            self.received.skip_to(resumed.from);
            return self.upper.taken_up(resumed, turn);
        }
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
        self.upper.resumed(self.attachments, None, None, turn);
        self.say_what_waited(turn);
    }

    /// Between a link's first words and their answer nothing was said: what has no place in the order is said now.
    fn say_what_waited(&mut self, turn: &Turn<'_, Self>) {
        for message in self.upper.granted_since() {
            self.say(message);
        }
        if !self.released.is_empty() {
            self.ack
                .get_or_insert_with(|| turn.timer(ACK_DELAY, FramerControl::Ack));
        }
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
                Ok(Beat::Wait(_)) => return,
                Ok(Beat::Ping) => self.ping(),
                Ok(Beat::Dead) => return self.link_lost(LinkLost::Silent, turn),
                Err(error) => return self.link_lost(LinkLost::Failed(chain(&error)), turn),
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
        self.part(turn);
    }

    /// Ends this side and leaves the session where it is, for whoever takes it up.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        self.acknowledge();
        self.part(turn);
        self.over(LinkLost::Ended, turn);
    }

    /// Lets the link go when what was said over it has left.
    fn part(&mut self, turn: &Turn<'_, Self>) {
        if let Some(line) = self.line.take() {
            line.uplink.flush(line.stream);
            // The last word leaves with the next write; the reset behind it drops what was not cut.
            turn.spawn(async move {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                drop(line);
            })
            .detach();
        }
    }
}

fn superseded(owner: u64) -> WireError {
    let text = format!("the session was taken over: its owner is number {owner} now");
    WireError::new(ErrorCode::Superseded, text)
}

/// What everybody hears of a session that is not there or not theirs.
pub(crate) fn unknown() -> ResumeRefused {
    let text = "there is no such session: the executor was restarted, or it was away for too long";
    ResumeRefused {
        error: WireError::new(ErrorCode::UnknownSession, text),
        owner: 0,
    }
}

/// Ends a link that nobody has room for just now: its client dials again at once, instead of when its pings find out.
pub(crate) fn put_off(attachment: Attachment) {
    let Attachment {
        mut link, transport, ..
    } = attachment;
    link.close(&Reset::new(ResetCode::Overloaded));
    // A connection of its own ends with the attachment.
    if let Transport::Shared(id) = transport
        && let Some(uplink) = Uplink::local(id)
    {
        let mut out = BytesMut::new();
        drop(link.poll_transmit(Instant::now(), &mut out, usize::MAX));
        uplink.say(|clear| clear.extend_from_slice(&out));
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
            token: Sent::default(),
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
