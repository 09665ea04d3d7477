//! A session's way to its `HttpService`, which begins with the first request that is for it: most sessions make none.
//! Without the feature `http` there is none, and every request is of a method that is not known.

use std::rc::Rc;

use dwell_messages::TraceContext;
#[cfg(not(feature = "http"))]
use dwell_messages::{ErrorCode, WireError};
use dwell_relay::driver::tls::Trust;

use crate::mailbox::{Actor, Mailbox, Turn};
use crate::relay_framer::{RelayFramer, Unacknowledged};
use crate::rpc_queue::server::Call;
use crate::telemetry::Collector;

#[cfg(feature = "http")]
use self::begun::Begun;

/// See the module. Of one session, and cheap to clone.
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "nothing is begun"))]
#[derive(Clone)]
pub(crate) struct HttpDoor(Rc<Inner>);

#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "nothing is begun"))]
struct Inner {
    trust: Trust,
    framer: Mailbox<RelayFramer>,
    collector: Collector,
    unacknowledged: Rc<Unacknowledged>,
    #[cfg(feature = "http")]
    begun: Begun,
}

impl HttpDoor {
    pub(crate) fn new(
        trust: Trust,
        framer: Mailbox<RelayFramer>,
        collector: Collector,
        unacknowledged: Rc<Unacknowledged>,
    ) -> Self {
        Self(Rc::new(Inner {
            trust,
            framer,
            collector,
            unacknowledged,
            #[cfg(feature = "http")]
            begun: Begun::default(),
        }))
    }

    /// Nobody can make such a request.
    #[cfg(not(feature = "http"))]
    pub(crate) fn serve<A: Actor>(&self, context: TraceContext, call: Call, turn: &mut Turn<'_, A>) {
        let text = "this executor makes no HTTP requests";
        let error = WireError::new(ErrorCode::UnknownMethod, text);
        call.responder.answer(turn, context, Err(error), call.account);
    }

    /// Nothing is there that could be anybody's.
    #[cfg(not(feature = "http"))]
    pub(crate) fn taken_over<A: Actor>(&self, _: &mut Turn<'_, A>) {}

    /// Nothing is there that could end.
    #[cfg(not(feature = "http"))]
    pub(crate) fn end(&self) {}
}

#[cfg(feature = "http")]
mod begun {
    use std::cell::OnceCell;
    use std::rc::Rc;

    use super::{Actor, Call, HttpDoor, Mailbox, TraceContext, Turn};
    use crate::http_client::service::{HttpMessage, HttpService};
    use crate::mailbox::{HostOptions, start_here};
    use crate::relay_framer::ends_link;
    use crate::rpc_queue::ADMITTED_MAX;

    /// The service, once there is one.
    pub(super) type Begun = OnceCell<Mailbox<HttpService>>;

    /// Calls that may lie in its mailbox.
    const HTTP_MAILBOX_MAX: usize = ADMITTED_MAX;

    impl HttpDoor {
        /// Hands a request on.
        pub(crate) fn serve<A: Actor>(&self, context: TraceContext, call: Call, turn: &mut Turn<'_, A>) {
            let inner = &self.0;
            let service = inner.begun.get_or_init(|| {
                let options = HostOptions::new(HTTP_MAILBOX_MAX).escalating(ends_link(&inner.framer));
                let (trust, collector) = (inner.trust.clone(), inner.collector.clone());
                let unacknowledged = Rc::clone(&inner.unacknowledged);
                start_here(options, move || {
                    HttpService::new(trust.clone(), collector.clone(), Rc::clone(&unacknowledged))
                })
            });
            turn.tell(service, context, HttpMessage::Call(Box::new(call)));
        }

        /// The session has another owner.
        pub(crate) fn taken_over<A: Actor>(&self, turn: &mut Turn<'_, A>) {
            if let Some(service) = self.0.begun.get() {
                turn.tell(service, TraceContext::default(), HttpMessage::TakenOver);
            }
        }

        /// The session is over.
        pub(crate) fn end(&self) {
            if let Some(service) = self.0.begun.get() {
                service.begin_drain();
            }
        }
    }
}
