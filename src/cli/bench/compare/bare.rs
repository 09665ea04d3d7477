//! The least there is: this process's own children. They show what the machine takes for itself.

use std::rc::Rc;
use std::time::Duration;

use super::child::{self, LocalChild};
use super::peer::{Client, Live, Name, Peer, Ran, Soon, Stands};
use super::task::Task;

#[derive(Debug)]
pub(crate) struct Bare;

impl Peer for Bare {
    fn name(&self) -> Name {
        Name::Bare
    }

    /// There is no path: it is as long as any.
    fn connect(&self, _: Duration) -> Soon<'_, Rc<dyn Client>> {
        Box::pin(async { Ok(Rc::new(Self) as Rc<dyn Client>) })
    }

    fn servers(&self) -> Vec<u32> {
        Vec::new()
    }
}

impl Client for Bare {
    fn round_trip(&self) -> Option<Soon<'_, ()>> {
        None
    }

    fn run<'a>(&'a self, task: &'a Task) -> Soon<'a, Ran> {
        Box::pin(child::run(child::command(&task.argv), task))
    }

    fn open(&self, stands: Stands, argv: Vec<String>) -> Option<Soon<'_, Box<dyn Live>>> {
        match stands {
            Stands::Pipes => Some(Box::pin(async move { LocalChild::start(child::command(&argv)) })),
            Stands::Terminal => None,
        }
    }

    fn close(self: Rc<Self>) -> Soon<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}
