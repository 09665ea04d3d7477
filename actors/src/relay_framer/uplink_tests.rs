//! Tests of a connection's reader.

use std::pin::Pin;
use std::task::{Context, Poll};

use dwell_messages::kinds::OuterKind;
use dwell_relay::encode_outer;
use tokio::io::ReadBuf;

use super::*;

/// Bytes that come piece by piece, and how many each read would have taken.
struct Pieces {
    left: VecDeque<Vec<u8>>,
    rooms: Rc<RefCell<Vec<usize>>>,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.rooms.borrow_mut().push(buffer.remaining());
        if let Some(mut piece) = self.left.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.left.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: OuterKind, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_outer(&mut out, kind, StreamId([7; 16]), 0, payload);
    out.to_vec()
}

/// The frames that were read, and the room that each read had.
async fn read(pieces: Vec<Vec<u8>>) -> (usize, Vec<usize>) {
    let rooms = Rc::<RefCell<Vec<usize>>>::default();
    let reader = Pieces {
        left: pieces.into(),
        rooms: Rc::clone(&rooms),
    };
    let frames = Rc::<Cell<usize>>::default();
    let counted = Rc::clone(&frames);
    let over = read_loop(reader, (OuterDecoder::default(), Arc::default()), |_, _| {
        counted.set(counted.get() + 1);
        std::future::ready(true)
    })
    .await;
    assert!(matches!(over, ConnectionError::Closed), "{over}");
    let rooms = rooms.borrow().clone();
    (frames.get(), rooms)
}

/// An idle session took 450 KiB: each connection had room for all that it might ever read and write at once.
#[tokio::test]
async fn a_connection_on_which_little_comes_has_little_room_and_one_that_much_comes_on_has_much() {
    let small = || frame(OuterKind::Ping, &[0; 8]);
    let (frames, rooms) = read((0..500).map(|_| small()).collect()).await;
    assert_eq!(frames, 500);
    assert!(rooms.iter().all(|room| *room <= READ_BUFFER_BYTES), "{rooms:?}");
    // A frame that has begun has room for its rest at once.
    let record = frame(OuterKind::Data, &[1; 16 * 1024]);
    let cut = vec![record[..100].to_vec(), record[100..].to_vec()];
    let (frames, rooms) = read(cut).await;
    assert_eq!((frames, rooms.len()), (1, 3), "{rooms:?}");
    let (frames, rooms) = read(vec![small(), record.repeat(32)]).await;
    assert_eq!(frames, 33);
    assert!(
        rooms.last().is_some_and(|room| *room >= READ_BYTES / 2),
        "{rooms:?}"
    );
}

#[tokio::test]
async fn a_connection_that_was_busy_has_little_room_again_after_a_few_pings() {
    let much = frame(OuterKind::Data, &[1; 16 * 1024]).repeat(32);
    let pings = (0..2 * SMALL_IN_A_ROW).map(|_| frame(OuterKind::Ping, &[0; 8]));
    let (_, rooms) = read(std::iter::once(much).chain(pings).collect()).await;
    let most = rooms.iter().max().unwrap();
    assert!(*most >= READ_BYTES / 2, "{rooms:?}");
    assert!(
        rooms.last().is_some_and(|room| *room <= READ_BUFFER_BYTES),
        "{rooms:?}"
    );
}

#[test]
fn few_bytes_now_and_then_do_not_take_the_room_of_a_busy_connection() {
    let mut appetite = Appetite::default();
    for _ in 0..4 {
        assert!(!appetite.passed(READ_BYTES));
    }
    assert_eq!(appetite.room, READ_BYTES);
    for _ in 0..100 {
        for _ in 1..SMALL_IN_A_ROW {
            assert!(!appetite.passed(60));
        }
        assert!(!appetite.passed(32 * 1024));
        assert_eq!(appetite.room, READ_BYTES);
    }
    let given_back = (0..SMALL_IN_A_ROW).filter(|_| appetite.passed(60)).count();
    assert_eq!((given_back, appetite.room), (1, READ_BUFFER_BYTES));
}
