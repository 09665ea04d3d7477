//! One client's session: its processes, and the session of the harness behind them. It outlives its connections for a
//! while.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use dwell_messages::TraceContext;
use dwell_messages::dialect::{EnvironmentInfo, Fault, Start, Started};
use tokio::sync::oneshot;

use super::command::{Wish, command};
use super::line::Line;
use super::process::{Facts, Process, Silence};
use super::task::Task;
use crate::harness::Harness;

/// Ended processes of a session that can still be read, the newest.
pub const ENDED_KEPT_MAX: usize = 4_096;
/// Bytes of output kept of all of them.
pub const ENDED_KEPT_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What every session of a gateway is told.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) retention_bytes: u64,
    pub(super) wish: Wish,
}

/// See the module.
pub(super) struct Session {
    id: String,
    harness: Harness,
    environment: Rc<EnvironmentInfo>,
    rules: Rules,
    line: Rc<Line>,
    processes: RefCell<HashMap<String, Rc<Process>>>,
    ended: RefCell<VecDeque<(String, Rc<Process>)>>,
    expiry: RefCell<Option<Task>>,
}

impl Session {
    pub(super) fn new(
        id: String,
        harness: Harness,
        environment: Rc<EnvironmentInfo>,
        rules: Rules,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            harness,
            environment,
            rules,
            line: Rc::default(),
            processes: RefCell::default(),
            ended: RefCell::default(),
            expiry: RefCell::default(),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn line(&self) -> Rc<Line> {
        Rc::clone(&self.line)
    }

    pub(super) fn harness(&self) -> &Harness {
        &self.harness
    }

    /// What becomes of a wish to be confined.
    pub(super) fn wish(&self) -> Wish {
        self.rules.wish
    }

    pub(super) fn environment(&self) -> &EnvironmentInfo {
        &self.environment
    }

    /// What ends the session when nobody comes, or nothing of that any more.
    pub(super) fn expires(&self, expiry: Option<Task>) {
        *self.expiry.borrow_mut() = expiry;
    }

    /// A process of this name.
    pub(super) fn process(&self, name: &str) -> Option<Rc<Process>> {
        self.processes.borrow().get(name).cloned()
    }

    /// Begins a process: its name is taken from now on. Whoever waits for the answer hears it from there.
    pub(super) fn start(
        self: &Rc<Self>,
        start: &Start,
        parent: Option<TraceContext>,
    ) -> Result<oneshot::Receiver<Result<Silence, Fault>>, Fault> {
        let name = start.process_id.clone();
        if self.processes.borrow().contains_key(&name) {
            return Err(Fault::invalid_request(format!("process {name} already exists")));
        }
        let command = command(start, self.rules.wish, parent)?;
        let (tell, started) = oneshot::channel();
        let facts = Facts {
            name: name.clone(),
            tty: start.tty,
            has_input: start.tty || start.pipe_stdin,
            is_confined: command.confinement.is_some(),
            retention_bytes: self.rules.retention_bytes,
        };
        let process = Process::begin(facts, self.harness.exec(command), self, tell);
        self.processes.borrow_mut().insert(name, process);
        Ok(started)
    }

    /// What is answered to a start that runs.
    pub(super) fn started(&self, name: String) -> Started {
        let is_confined = self.process(&name).is_some_and(|process| process.is_confined());
        Started {
            process_id: name,
            sandbox_type: Some(if is_confined { "linuxSeccomp" } else { "none" }.into()),
            sandbox: (self.rules.wish == Wish::PassedOver).then(|| "off".into()),
        }
    }

    /// Nothing follows of a process. It can still be read, unless too many can.
    pub(super) fn ended(&self, name: &str, process: &Rc<Process>) {
        let mut ended = self.ended.borrow_mut();
        ended.push_back((name.to_owned(), Rc::clone(process)));
        let mut bytes: u64 = ended.iter().map(|(_, process)| process.kept_bytes()).sum();
        // The newest stays in any case.
        while ended.len() > 1 && (ended.len() > ENDED_KEPT_MAX || bytes > ENDED_KEPT_MAX_BYTES) {
            let Some((name, oldest)) = ended.pop_front() else {
                break;
            };
            bytes -= oldest.kept_bytes();
            self.remove(&name, &oldest);
        }
    }

    /// Nothing is kept of a process any more: its name is free.
    pub(super) fn forget(&self, name: &str, process: &Rc<Process>) {
        self.ended
            .borrow_mut()
            .retain(|(_, kept)| !Rc::ptr_eq(kept, process));
        self.remove(name, process);
    }

    fn remove(&self, name: &str, process: &Rc<Process>) {
        let mut processes = self.processes.borrow_mut();
        if processes
            .get(name)
            .is_some_and(|known| Rc::ptr_eq(known, process))
        {
            processes.remove(name);
        }
        process.end();
    }

    /// Everything ends: the processes with their runs, and the session behind with its link.
    pub(super) fn end(&self) {
        self.expires(None);
        self.ended.borrow_mut().clear();
        for (_, process) in self.processes.borrow_mut().drain() {
            process.end();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}
