//! Large files, in blocks of which several are under way.
//!
//! Both ends are driven by their owner: nothing goes on that nobody polls, and dropping one closes its file.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use dwell_messages::files::{
    Access, BLOCK_MAX_BYTES, Close, FileReply, FileRequest, Handle, Links, Metadata, Open, ReadBlock,
    WriteBlock, WriteHow,
};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

use super::serve::{Server, strange};
use super::system::FileAnswer;

/// Blocks of one file under way at a time: 2 MiB, which fills a link of 160 Mbit/s at a round trip of 100 ms.
pub const BLOCKS_IN_FLIGHT_MAX: usize = 8;

/// Answers on their way, taken in the order of their questions.
#[derive(Default)]
pub(super) struct InFlight(VecDeque<Question>);

enum Question {
    Asked(FileAnswer<'static, FileReply>),
    Answered(Result<FileReply, WireError>),
}

impl InFlight {
    pub(super) fn ask(&mut self, answer: FileAnswer<'static, FileReply>) {
        self.0.push_back(Question::Asked(answer));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Nobody wants these answers: what is not begun is withdrawn.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Polls all, so that each is under way, and takes the first.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Result<FileReply, WireError>> {
        for question in &mut self.0 {
            if let Question::Asked(answer) = question
                && let Poll::Ready(answer) = answer.as_mut().poll(context)
            {
                *question = Question::Answered(answer);
            }
        }
        match self.0.pop_front() {
            Some(Question::Answered(answer)) => Poll::Ready(answer),
            Some(asked @ Question::Asked(_)) => {
                self.0.push_front(asked);
                Poll::Pending
            }
            None => Poll::Ready(Err(strange())),
        }
    }

    pub(super) async fn first(&mut self) -> Result<FileReply, WireError> {
        poll_fn(|context| self.poll_first(context)).await
    }

    /// Sends what was not sent yet, and waits for nothing.
    async fn send(&mut self) {
        poll_fn(|context| {
            for question in &mut self.0 {
                if let Question::Asked(answer) = question
                    && let Poll::Ready(answer) = answer.as_mut().poll(context)
                {
                    *question = Question::Answered(answer);
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// A file that is read from its beginning to its end, whatever becomes of its name meanwhile.
///
/// At most [`BLOCKS_IN_FLIGHT_MAX`] blocks are under way and in memory. Dropping it closes the file.
#[must_use = "nothing is read until `next` is awaited"]
pub struct FileReader {
    server: Server,
    handle: Handle,
    in_flight: InFlight,
    state: Reading,
    metadata: Option<Metadata>,
    /// How long the file is, as far as that is known: not more is asked for at once.
    size: Option<u64>,
    /// The first byte that was not asked for.
    asked: u64,
    /// The first byte that has not come.
    come: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    /// Blocks are asked for.
    Blocks,
    /// The file's closing is asked for; the number says how many blocks come before its answer.
    Closing,
    /// It is closed, or failed.
    Over,
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("come", &self.come)
            .finish_non_exhaustive()
    }
}

impl FileReader {
    pub(super) fn open(server: Server, path: &[u8], links: Links, size: Option<u64>) -> Self {
        let handle = server.handle();
        let mut in_flight = InFlight::default();
        in_flight.ask(server.ask(FileRequest::Open(Open {
            handle,
            path: ByteBuf::from(path),
            access: Access::Read,
            permissions: None,
            atomic: false,
            sync: false,
            links,
        })));
        Self {
            server,
            handle,
            in_flight,
            state: Reading::Blocks,
            metadata: None,
            size,
            asked: 0,
            come: 0,
        }
    }

    /// The next bytes, never none; `None` at the file's end. Cancellation safe: what had come comes with the next call.
    ///
    /// # Errors
    /// `FileChanged` when the file was written while it was read, which is known at its end; `NotFound` and the others
    /// that concern files; `OutcomeUnknown` and `Disconnected` when the link is gone for good. Nothing comes after an
    /// error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        if self.state == Reading::Over {
            return Ok(None);
        }
        let next = self.advance().await;
        if !matches!(next, Ok(Some(_))) {
            self.over();
        }
        next
    }

    /// What was said of the file when it was opened; known once the first bytes have come.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            self.fill();
            match self.in_flight.first().await? {
                FileReply::Opened(opened) => {
                    self.size = Some(opened.metadata.size);
                    self.metadata = Some(opened.metadata);
                }
                FileReply::Block(block) => {
                    let is_short = block.data.len() < BLOCK_MAX_BYTES;
                    self.come += block.data.len() as u64;
                    if block.end {
                        self.close();
                    } else if self.state == Reading::Closing && self.come == self.asked {
                        return Err(changed());
                    } else if is_short && self.come != self.asked {
                        // What was asked behind it is not what follows it.
                        self.in_flight.clear();
                        self.asked = self.come;
                        self.state = Reading::Blocks;
                    }
                    if !block.data.is_empty() {
                        return Ok(Some(block.data));
                    }
                }
                FileReply::Closed(closed) => {
                    self.state = Reading::Over;
                    let same = closed.metadata.is_none() || closed.metadata == self.metadata;
                    return if same { Ok(None) } else { Err(changed()) };
                }
                _ => return Err(strange()),
            }
        }
    }

    /// Asks for as much as may be under way, and behind the last of a file whose size is known for its closing.
    fn fill(&mut self) {
        while self.state == Reading::Blocks && self.in_flight.len() < BLOCKS_IN_FLIGHT_MAX {
            let is_known = self.size.is_some_and(|size| size > 0);
            let is_all = self.size.is_some_and(|size| self.asked >= size);
            if is_known && is_all && self.metadata.is_some() {
                return self.close();
            }
            // Of a file of which nothing is known one block is asked for, and then one after another.
            if (is_all || self.size.is_none()) && self.asked > self.come {
                return;
            }
            let request = FileRequest::ReadBlock(ReadBlock {
                handle: self.handle,
                offset: self.asked,
                max_bytes: u32::try_from(BLOCK_MAX_BYTES).unwrap_or(u32::MAX),
            });
            self.in_flight.ask(self.server.ask(request));
            self.asked += BLOCK_MAX_BYTES as u64;
        }
    }

    fn close(&mut self) {
        if self.state == Reading::Blocks {
            self.state = Reading::Closing;
            let request = FileRequest::Close(Close {
                handle: self.handle,
                discard: false,
            });
            self.in_flight.ask(self.server.ask(request));
        }
    }

    fn over(&mut self) {
        if self.state != Reading::Over {
            self.state = Reading::Over;
            self.in_flight.clear();
            self.server.close(self.handle, true);
        }
    }
}

impl Drop for FileReader {
    fn drop(&mut self) {
        self.over();
    }
}

fn changed() -> WireError {
    WireError::new(ErrorCode::FileChanged, "the file was written while it was read")
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteOptions {
    /// In place of what is there, behind it, or only where there is nothing.
    pub how: WriteHow,
    /// Permission bits; see [`dwell_messages::files::WriteFile::permissions`].
    pub permissions: Option<u32>,
    /// Whether the name leads to the old file or to the whole new one, whatever happens.
    pub atomic: bool,
    /// Whether it has to be on the disk when it is finished. An atomic one always is.
    pub sync: bool,
    /// What becomes of links.
    pub links: Links,
}

impl WriteOptions {
    /// In place of what is there, at once or not at all.
    pub fn atomic() -> Self {
        Self {
            atomic: true,
            ..Self::default()
        }
    }
}

/// A file that is written from its beginning.
///
/// Dropping it before [`FileWriter::finish`] gives it up: an atomic one never was, another is as far as it came.
#[must_use = "what was written is given up unless `finish` is awaited"]
pub struct FileWriter {
    server: Server,
    handle: Handle,
    in_flight: InFlight,
    buffer: BytesMut,
    offset: u64,
    is_over: bool,
}

impl fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWriter")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl FileWriter {
    pub(super) fn create(server: Server, path: &[u8], options: WriteOptions) -> Self {
        let handle = server.handle();
        let mut in_flight = InFlight::default();
        in_flight.ask(server.ask(FileRequest::Open(Open {
            handle,
            path: ByteBuf::from(path),
            access: Access::Write(options.how),
            permissions: options.permissions,
            atomic: options.atomic,
            sync: options.sync,
            links: options.links,
        })));
        Self {
            server,
            handle,
            in_flight,
            buffer: BytesMut::new(),
            offset: 0,
            is_over: false,
        }
    }

    /// Takes all of `data`; waits while too many blocks are under way. What went wrong with a block is told by a later
    /// call, at the latest by `finish`. Not cancellation safe: how much was taken is not known then, so drop the writer.
    ///
    /// # Errors
    /// As [`FileWriter::finish`]. The file is given up.
    pub async fn write(&mut self, mut data: &[u8]) -> Result<(), WireError> {
        while !data.is_empty() {
            let taken = data.len().min(BLOCK_MAX_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if self.buffer.len() == BLOCK_MAX_BYTES {
                self.block().await?;
            }
        }
        Ok(())
    }

    /// Writes what is left and closes the file, which then has its name, and is on the disk where that was asked.
    ///
    /// # Errors
    /// `NoSpace`, `AccessDenied` and the others that concern files; `OutcomeUnknown` when the link is gone for good while
    /// it was closed: look before trying again.
    pub async fn finish(mut self) -> Result<Metadata, WireError> {
        if !self.buffer.is_empty() {
            self.block().await?;
        }
        let close = FileRequest::Close(Close {
            handle: self.handle,
            discard: false,
        });
        self.in_flight.ask(self.server.ask(close));
        loop {
            match self.answer().await? {
                FileReply::Closed(closed) => {
                    self.is_over = true;
                    return closed.metadata.ok_or_else(strange);
                }
                FileReply::Opened(_) | FileReply::BlockWritten(_) => {}
                _ => return Err(strange()),
            }
        }
    }

    async fn block(&mut self) -> Result<(), WireError> {
        while self.in_flight.len() >= BLOCKS_IN_FLIGHT_MAX {
            self.answer().await?;
        }
        let data = self.buffer.split().freeze();
        let offset = self.offset;
        self.offset += data.len() as u64;
        let request = FileRequest::WriteBlock(WriteBlock {
            handle: self.handle,
            offset,
            data,
        });
        self.in_flight.ask(self.server.ask(request));
        self.in_flight.send().await;
        Ok(())
    }

    async fn answer(&mut self) -> Result<FileReply, WireError> {
        let answer = self.in_flight.first().await;
        if answer.is_err() {
            self.give_up();
        }
        answer
    }

    fn give_up(&mut self) {
        if !self.is_over {
            self.is_over = true;
            self.in_flight.clear();
            self.server.close(self.handle, true);
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
