//! Several questions at once, their answers in order.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The outputs of all futures in their order, at most `in_flight` of them begun and not ended.
pub(super) async fn in_order<F: Future>(
    in_flight: usize,
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    let mut rest = futures.into_iter();
    let mut under_way: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut outputs: Vec<Option<F::Output>> = Vec::new();
    loop {
        while under_way.len() < in_flight.max(1) {
            let Some(next) = rest.next() else { break };
            under_way.push((outputs.len(), Box::pin(next)));
            outputs.push(None);
        }
        if under_way.is_empty() {
            return outputs.into_iter().flatten().collect();
        }
        poll_fn(|cx| {
            let before = under_way.len();
            under_way.retain_mut(|(at, future)| match future.as_mut().poll(cx) {
                Poll::Ready(output) => {
                    outputs[*at] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            if under_way.len() < before {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// The output of a future that waits for nothing, as on a file system that answers at once. `None`: it waits.
pub(super) fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future)
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
