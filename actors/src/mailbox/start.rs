//! How an actor gets its mailbox and its host.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::AsyncContext as _;
use actix_rt::ArbiterHandle;

use super::actor::Actor;
use super::bound::Bound;
use super::handle::Mailbox;
use super::host::{Escalate, Host};
use super::options::HostOptions;
use super::shared::{Life, Shared};
use crate::telemetry::thread_tag;

/// Starts an actor on another arbiter's thread. The factory runs there.
pub fn start_on<A: Actor>(
    arbiter: &ArbiterHandle,
    options: HostOptions,
    factory: impl FnMut() -> A + Send + 'static,
) -> Mailbox<A> {
    let seed = Seed::new(A::NAME, <A::Message as super::Message>::NAMES, options.capacity);
    let (room, capacity, shared) = (Arc::clone(&seed.room), seed.capacity, Arc::clone(&seed.shared));
    let addr = <Host<A> as actix::Actor>::start_in_arbiter(arbiter, move |ctx| {
        Host::new(
            seed,
            options.restart,
            options.escalate.map(|escalate| escalate as Escalate),
            Box::new(factory),
            Arc::new(ctx.address()),
        )
    });
    Mailbox {
        addr: Arc::new(addr),
        room,
        capacity,
        is_port: false,
        shared,
    }
}

/// Starts an actor on this arbiter's thread.
///
/// # Panics
/// Outside an actix arbiter.
pub fn start_here<A: Actor>(options: HostOptions, factory: impl FnMut() -> A + 'static) -> Mailbox<A> {
    let seed = Seed::new(A::NAME, <A::Message as super::Message>::NAMES, options.capacity);
    let (room, capacity, shared) = (Arc::clone(&seed.room), seed.capacity, Arc::clone(&seed.shared));
    shared.thread.store(thread_tag().0, Ordering::Relaxed);
    // The host's own is everybody's.
    let own = Rc::new(OnceCell::new());
    let told = Rc::clone(&own);
    let addr = <Host<A> as actix::Actor>::create(move |ctx| {
        let addr = told.get_or_init(|| Arc::new(ctx.address()));
        Host::new(
            seed,
            options.restart,
            options.escalate.map(|escalate| escalate as Escalate),
            Box::new(factory),
            Arc::clone(addr),
        )
    });
    let addr = own.get().map_or_else(|| Arc::new(addr), Arc::clone);
    Mailbox {
        addr,
        room,
        capacity,
        is_port: false,
        shared,
    }
}

/// What a mailbox's handles and its host share, before there is either.
pub(super) struct Seed<C> {
    pub(super) room: Arc<Bound>,
    pub(super) capacity: u32,
    pub(super) shared: Arc<Shared<C>>,
    pub(super) life: Life<C>,
}

impl<C> Seed<C> {
    fn new(name: &'static str, messages: &'static [&'static str], capacity: usize) -> Self {
        let shared = Arc::new(Shared::new(name, messages));
        let (room, capacity) = shared.room(capacity);
        Self {
            room,
            capacity,
            life: Life(Arc::clone(&shared)),
            shared,
        }
    }
}
