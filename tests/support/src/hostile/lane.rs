//! What happens to the frames of one direction of one connection. Pure: bytes in, steps out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::rules::{FrameRule, Hostility, RuleKind};
use crate::proxy::{Direction, next_random};

/// Bytes of a frame's header; its length stands in front, its kind behind that, its stream at byte 8.
const HEADER_BYTES: usize = 28;
const STREAM: std::ops::Range<usize> = 8..24;
/// Bytes of a dialler's preamble; the last byte but 48 says how much token follows.
const PREAMBLE_BYTES: usize = 64;
const TOKEN_LENGTH_AT: usize = 15;
/// No frame of ours is longer; what claims to be is passed on as bytes.
const FRAME_MAX_BYTES: usize = 64 * 1024;
/// Frames kept for replay.
const HISTORY_MAX: usize = 64;
/// Streams of which the id is kept for splicing.
const STREAMS_MAX: usize = 64;
/// Frames that a throttle holds for.
const THROTTLED_FRAMES: u32 = 16;

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameStep {
    /// Write these bytes.
    Write(Bytes),
    /// Wait.
    Pause(Duration),
    /// Do nothing until the proxy heals.
    Stall,
    /// End this way, and read on for nothing.
    HalfClose,
    /// Reset both ends; nothing follows.
    Reset,
    /// Reset every connection.
    Restart,
    /// Collect for so long what comes behind these bytes; then reset who dialled; as much later write it all to the
    /// other end.
    Orphan(Duration, Bytes),
}

/// A rule that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Which.
    pub rule: FrameRule,
    /// Which way the frame went.
    pub direction: Direction,
    /// Its connection, counted from 0.
    pub connection: u64,
    /// Its number in its direction, counted from 0.
    pub frame: u64,
    /// Its kind, as it stands on the wire.
    pub kind: u8,
    /// Its bytes, header included.
    pub bytes: usize,
}

/// What the lanes of a proxy share: the streams that were seen, newest last, and the kinds of rules whose turn is to come.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    streams: VecDeque<[u8; 16]>,
    deck: Vec<RuleKind>,
}

impl Seen {
    fn note(&mut self, stream: [u8; 16]) {
        if self.streams.contains(&stream) {
            return;
        }
        if self.streams.len() >= STREAMS_MAX {
            self.streams.pop_front();
        }
        self.streams.push_back(stream);
    }

    fn another(&self, than: [u8; 16], random: &mut u64) -> Option<[u8; 16]> {
        let others: Vec<_> = self.streams.iter().filter(|stream| **stream != than).collect();
        let at = usize::try_from(next_random(random)).unwrap_or(0) % others.len().max(1);
        others.get(at).map(|stream| **stream)
    }
}

/// The frames of one direction of one connection.
#[derive(Debug)]
pub struct FrameLane {
    direction: Direction,
    connection: u64,
    hostility: Hostility,
    /// Rules for frames by their number, instead of drawn ones.
    script: Vec<(u64, FrameRule)>,
    random: u64,
    buffer: BytesMut,
    preamble_due: bool,
    opaque: bool,
    frames: u64,
    history: VecDeque<Bytes>,
    held: Option<(u32, Bytes)>,
    throttle: (u32, u32),
    over: bool,
    applied: Vec<Applied>,
}

impl FrameLane {
    /// A lane at its first byte. A dialler's bytes begin with a preamble.
    #[must_use]
    pub fn new(direction: Direction, connection: u64, hostility: Hostility, seed: u64) -> Self {
        Self {
            direction,
            connection,
            hostility,
            script: Vec::new(),
            random: seed,
            buffer: BytesMut::new(),
            preamble_due: direction == Direction::ToUpstream,
            opaque: false,
            frames: 0,
            history: VecDeque::new(),
            held: None,
            throttle: (0, 0),
            over: false,
            applied: Vec::new(),
        }
    }

    /// The frame of this number is subject to this rule, whatever is drawn.
    #[must_use]
    pub fn scripted(mut self, script: impl IntoIterator<Item = (u64, FrameRule)>) -> Self {
        self.script.extend(script);
        self
    }

    /// From now on everything passes. What a reorder held back is lost: it is too late for it.
    pub fn heal(&mut self) {
        self.hostility = Hostility::none();
        self.script.clear();
        self.held = None;
        self.throttle = (0, 0);
    }

    /// Rules applied since the last call.
    pub fn take_applied(&mut self) -> Vec<Applied> {
        std::mem::take(&mut self.applied)
    }

    /// What to do with the next bytes.
    pub fn push(&mut self, input: &[u8], seen: &mut Seen) -> Vec<FrameStep> {
        let mut steps = Vec::new();
        self.buffer.extend_from_slice(input);
        while !self.over {
            if self.opaque {
                if !self.buffer.is_empty() {
                    steps.push(FrameStep::Write(self.buffer.split().freeze()));
                }
                break;
            }
            let Some(piece) = self.next_piece() else { break };
            match piece {
                Piece::Preamble(bytes) => steps.push(FrameStep::Write(bytes)),
                Piece::Frame(frame) => self.frame(frame, seen, &mut steps),
            }
        }
        steps
    }

    fn next_piece(&mut self) -> Option<Piece> {
        if self.preamble_due {
            let token = usize::from(*self.buffer.get(TOKEN_LENGTH_AT)?);
            if self.buffer.len() < PREAMBLE_BYTES + token {
                return None;
            }
            self.preamble_due = false;
            return Some(Piece::Preamble(
                self.buffer.split_to(PREAMBLE_BYTES + token).freeze(),
            ));
        }
        let length = u32::from_be_bytes(*self.buffer.first_chunk::<4>()?);
        let whole = HEADER_BYTES.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if whole > FRAME_MAX_BYTES {
            self.opaque = true;
            let rest = self.buffer.split().freeze();
            return Some(Piece::Preamble(rest));
        }
        if self.buffer.len() < whole {
            return None;
        }
        Some(Piece::Frame(self.buffer.split_to(whole).freeze()))
    }

    fn frame(&mut self, frame: Bytes, seen: &mut Seen, steps: &mut Vec<FrameStep>) {
        let number = self.frames;
        self.frames += 1;
        let mut stream = [0; 16];
        stream.copy_from_slice(&frame[STREAM]);
        seen.note(stream);
        let scripted = self.script.iter().find(|(at, _)| *at == number);
        let rule = match scripted {
            Some((_, rule)) => Some(*rule),
            None => self.hostility.draw(&mut self.random, &mut seen.deck),
        };
        let another = seen.another(stream, &mut self.random);
        let rule = rule.filter(|rule| {
            let applies = self.applies(rule.kind(), another.is_some());
            if !applies {
                // Its turn comes again.
                seen.deck.insert(0, rule.kind());
            }
            applies
        });
        if let Some(rule) = rule {
            self.applied.push(Applied {
                rule,
                direction: self.direction,
                connection: self.connection,
                frame: number,
                kind: frame[4],
                bytes: frame.len(),
            });
        }
        self.apply(rule, &frame, another, steps);
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(frame);
    }

    /// There may be nothing yet that a rule needs.
    fn applies(&self, kind: RuleKind, another: bool) -> bool {
        match kind {
            RuleKind::Splice => another,
            RuleKind::Replay => !self.history.is_empty(),
            RuleKind::Orphan => self.direction == Direction::ToUpstream,
            RuleKind::Drop
            | RuleKind::Delay
            | RuleKind::Duplicate
            | RuleKind::Reorder
            | RuleKind::Truncate
            | RuleKind::Flip
            | RuleKind::Stall
            | RuleKind::Throttle
            | RuleKind::HalfClose
            | RuleKind::Reset
            | RuleKind::Restart => true,
        }
    }

    fn apply(
        &mut self,
        rule: Option<FrameRule>,
        frame: &Bytes,
        another: Option<[u8; 16]>,
        steps: &mut Vec<FrameStep>,
    ) {
        let Some(rule) = rule else {
            return self.pass(frame.clone(), steps);
        };
        match rule {
            FrameRule::Drop => {}
            FrameRule::Delay { by } => {
                steps.push(FrameStep::Pause(by));
                self.pass(frame.clone(), steps);
            }
            FrameRule::Duplicate { copies } => {
                for _ in 0..=copies {
                    self.pass(frame.clone(), steps);
                }
            }
            // One at a time: what is held already goes first.
            FrameRule::Reorder { behind } => {
                if let Some((_, held)) = self.held.replace((behind.max(1), frame.clone())) {
                    steps.push(FrameStep::Write(held));
                }
            }
            FrameRule::Truncate { at_byte } => {
                let at = usize::try_from(at_byte).unwrap_or(0) % frame.len();
                self.pass(frame.slice(..at), steps);
            }
            FrameRule::Flip { bit } => {
                let bit = usize::try_from(bit).unwrap_or(0) % (8 * frame.len());
                let mut changed = BytesMut::from(&frame[..]);
                changed[bit / 8] ^= 1 << (bit % 8);
                self.pass(changed.freeze(), steps);
            }
            FrameRule::Stall => {
                steps.push(FrameStep::Stall);
                self.pass(frame.clone(), steps);
            }
            FrameRule::Throttle { bytes_per_second } => {
                self.throttle = (bytes_per_second.max(1), THROTTLED_FRAMES);
                self.pass(frame.clone(), steps);
            }
            FrameRule::HalfClose => self.end(FrameStep::HalfClose, steps),
            FrameRule::Reset => self.end(FrameStep::Reset, steps),
            FrameRule::Restart => self.end(FrameStep::Restart, steps),
            FrameRule::Orphan { by } => {
                let late = [&frame[..], &self.buffer.split()].concat();
                self.end(FrameStep::Orphan(by, late.into()), steps);
            }
            FrameRule::Splice => {
                let mut changed = BytesMut::from(&frame[..]);
                if let Some(stream) = another {
                    changed[STREAM].copy_from_slice(&stream);
                }
                self.pass(changed.freeze(), steps);
            }
            FrameRule::Replay { back } => {
                self.pass(frame.clone(), steps);
                let kept = self.history.len();
                let back = usize::try_from(back).unwrap_or(0) % kept.max(1);
                if let Some(earlier) = self.history.get(kept - 1 - back).cloned() {
                    self.pass(earlier, steps);
                }
            }
        }
    }

    fn end(&mut self, step: FrameStep, steps: &mut Vec<FrameStep>) {
        self.over = true;
        steps.push(step);
    }

    /// A frame leaves, and with it one that was held back for it.
    fn pass(&mut self, frame: Bytes, steps: &mut Vec<FrameStep>) {
        let (bytes_per_second, left) = self.throttle;
        if left > 0 {
            self.throttle.1 -= 1;
            let seconds = frame.len() as f64 / f64::from(bytes_per_second);
            steps.push(FrameStep::Pause(Duration::from_secs_f64(seconds)));
        }
        if !frame.is_empty() {
            steps.push(FrameStep::Write(frame));
        }
        if let Some((behind, held)) = self.held.take() {
            if behind <= 1 {
                steps.push(FrameStep::Write(held));
            } else {
                self.held = Some((behind - 1, held));
            }
        }
    }
}

enum Piece {
    Preamble(Bytes),
    Frame(Bytes),
}
