//! A message with its trace context: the same type in a mailbox and on the wire.

use crate::trace::TraceContext;

/// A message and the context it travels under. There is no way to send one without a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<M> {
    /// The span of the stage that sent this message: the parent of whatever receiving it costs.
    pub context: TraceContext,
    /// The message itself.
    pub body: M,
}

impl<M> Envelope<M> {
    /// Wraps `body` under `context`.
    pub fn new(context: TraceContext, body: M) -> Self {
        Self { context, body }
    }

    /// The same context around another body: a message passed on unchanged in ancestry.
    pub fn map<N>(self, f: impl FnOnce(M) -> N) -> Envelope<N> {
        Envelope {
            context: self.context,
            body: f(self.body),
        }
    }
}
