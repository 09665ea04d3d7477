use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dwell_messages::files::{Block, BlockWritten, Closed, FileKind, Opened};
use tokio::sync::oneshot;

use super::*;
use crate::files::serve::Serve;

type Answer = oneshot::Sender<Result<FileReply, WireError>>;

/// Somebody who answers when the test says so.
#[derive(Default)]
struct Slow {
    asked: Mutex<Vec<(FileRequest, Answer)>>,
    closed: Mutex<Vec<Handle>>,
}

impl Serve for Slow {
    fn ask(&self, request: FileRequest) -> FileAnswer<'static, FileReply> {
        let (answer, wait) = oneshot::channel();
        self.asked.lock().unwrap().push((request, answer));
        Box::pin(async move { wait.await.unwrap() })
    }

    fn handle(&self) -> Handle {
        Handle(1)
    }

    fn close(&self, handle: Handle, _: bool) {
        self.closed.lock().unwrap().push(handle);
    }
}

impl Slow {
    fn take(&self) -> Vec<(FileRequest, Answer)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn metadata(size: u64) -> Metadata {
    Metadata {
        kind: FileKind::File,
        size,
        mode: 0o644,
        modified_unix_ns: 1,
        device: 2,
        inode: 3,
    }
}

const BLOCK: u64 = BLOCK_MAX_BYTES as u64;

/// Answers like a file of so many bytes.
fn answer(size: u64, (request, answer): (FileRequest, Answer)) {
    let reply = match request {
        FileRequest::Open(_) => FileReply::Opened(Opened {
            metadata: metadata(size),
        }),
        FileRequest::ReadBlock(read) => {
            let length = size.saturating_sub(read.offset).min(u64::from(read.max_bytes));
            FileReply::Block(Block {
                data: vec![u8::try_from(read.offset / BLOCK).unwrap(); usize::try_from(length).unwrap()]
                    .into(),
                end: read.offset + length >= size,
            })
        }
        FileRequest::WriteBlock(write) => FileReply::BlockWritten(BlockWritten {
            offset: write.offset + write.data.len() as u64,
        }),
        FileRequest::Close(_) => FileReply::Closed(Closed {
            metadata: Some(metadata(size)),
        }),
        other => panic!("{other:?}"),
    };
    assert!(answer.send(Ok(reply)).is_ok());
}

/// One poll, which is as far as it comes without an answer.
async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_reader_has_as_many_blocks_under_way_as_it_may_and_asks_for_its_closing_with_the_last() {
    let slow = Arc::new(Slow::default());
    let size = 20 * BLOCK + 5;
    let mut reader = FileReader::open(slow.clone(), b"/f", Links::Follow, None);
    assert!(poll_once(&mut Box::pin(reader.next())).await.is_none());
    let mut asked = slow.take();
    assert_eq!(
        asked.len(),
        2,
        "of a file of which nothing is known, its opening and one block"
    );
    let mut longest = 0;
    let mut read = Vec::new();
    loop {
        // The answers come one by one, in whatever order: here the last first.
        while let Some(last) = asked.pop() {
            answer(size, last);
        }
        let next = poll_once(&mut Box::pin(reader.next())).await;
        asked.extend(slow.take());
        longest = longest.max(asked.len());
        match next {
            Some(Ok(Some(block))) => read.extend_from_slice(&block),
            Some(Ok(None)) => break,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    assert_eq!(read.len() as u64, size);
    let mut blocks = read.chunks(BLOCK_MAX_BYTES).zip(0_u8..);
    assert!(
        blocks.all(|(block, number)| block.iter().all(|byte| *byte == number)),
        "in order"
    );
    assert!(
        (BLOCKS_IN_FLIGHT_MAX - 1..=BLOCKS_IN_FLIGHT_MAX).contains(&longest),
        "{longest}"
    );
    drop(reader);
    assert!(slow.closed.lock().unwrap().is_empty(), "it was closed in order");
}

#[tokio::test]
async fn a_reader_that_is_dropped_closes_its_file() {
    let slow = Arc::new(Slow::default());
    let mut reader = FileReader::open(slow.clone(), b"/f", Links::Follow, Some(9 * BLOCK));
    assert!(poll_once(&mut Box::pin(reader.next())).await.is_none());
    assert_eq!(
        slow.take().len(),
        BLOCKS_IN_FLIGHT_MAX,
        "in one flight with its opening"
    );
    drop(reader);
    assert_eq!(*slow.closed.lock().unwrap(), [Handle(1)]);
}

#[tokio::test]
async fn a_file_that_is_another_when_it_is_closed_has_changed() {
    let slow = Arc::new(Slow::default());
    let mut reader = FileReader::open(slow.clone(), b"/f", Links::Follow, Some(3));
    let mut next = Box::pin(reader.next());
    assert!(poll_once(&mut next).await.is_none());
    for (request, answers) in slow.take() {
        let size = if matches!(request, FileRequest::Close(_)) {
            4
        } else {
            3
        };
        answer(size, (request, answers));
    }
    assert_eq!(poll_once(&mut next).await.unwrap().unwrap().unwrap().len(), 3);
    drop(next);
    let mut next = Box::pin(reader.next());
    let outcome = loop {
        for question in slow.take() {
            answer(4, question);
        }
        if let Some(outcome) = poll_once(&mut next).await {
            break outcome;
        }
    };
    assert_eq!(outcome.unwrap_err().code, ErrorCode::FileChanged);
}

#[tokio::test]
async fn a_writer_has_only_so_many_blocks_under_way_and_reports_the_first_failure() {
    let slow = Arc::new(Slow::default());
    let mut writer = FileWriter::create(slow.clone(), b"/f", WriteOptions::atomic());
    let data = vec![7; 20 * BLOCK_MAX_BYTES];
    let mut write = Box::pin(writer.write(&data));
    assert!(poll_once(&mut write).await.is_none(), "it waits");
    let mut asked: BTreeMap<usize, _> = slow.take().into_iter().enumerate().collect();
    assert_eq!(asked.len(), BLOCKS_IN_FLIGHT_MAX);
    answer(0, asked.remove(&0).unwrap());
    assert!(poll_once(&mut write).await.is_none());
    let next = slow.take();
    assert_eq!(next.len(), 1, "one for one");
    let (_, second) = asked.remove(&1).unwrap();
    let full = WireError::new(ErrorCode::NoSpace, "no space");
    second.send(Err(full.clone())).unwrap();
    assert_eq!(poll_once(&mut write).await, Some(Err(full)));
    drop(write);
    assert_eq!(*slow.closed.lock().unwrap(), [Handle(1)], "and gives the file up");
}
