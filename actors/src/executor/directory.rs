//! What one client's session may find of the client's other sessions.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dwell_messages::session::{LISTED_PROCESSES_MAX, LISTED_SESSIONS_MAX};
use dwell_messages::{Cursor, ProcessEntry, PublicKey, SessionEntry, SessionList, TraceContext};
use serde_bytes::ByteBuf;

use super::{SessionId, Shared};
use crate::mailbox::{AskError, Mailbox};
use crate::process_supervisor::{ProcessSupervisor, SupervisorMessage};
use crate::telemetry::wall_unix_ms;

/// How long a session may take to say what it runs before it is listed as silent.
pub const LIST_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of a session without asking it. Written on its own thread, read on others.
#[derive(Debug)]
pub(crate) struct Facts {
    owner: AtomicU64,
    connected: AtomicBool,
    since_unix_ms: AtomicU64,
    begun_unix_ms: u64,
    /// Set once the session has begun.
    supervisor: OnceLock<Mailbox<ProcessSupervisor>>,
}

impl Facts {
    pub(super) fn new() -> Arc<Self> {
        let now = wall_unix_ms();
        Arc::new(Self {
            owner: AtomicU64::new(1),
            connected: AtomicBool::new(true),
            since_unix_ms: AtomicU64::new(now),
            begun_unix_ms: now,
            supervisor: OnceLock::new(),
        })
    }

    /// Whom to ask what runs there; in room of its own.
    pub(super) fn begun(&self, supervisor: Mailbox<ProcessSupervisor>) {
        // A session begins once.
        self.supervisor.set(supervisor).ok();
    }

    pub(super) fn connected(&self, connected: bool) {
        if self.connected.swap(connected, Ordering::Relaxed) != connected {
            self.since_unix_ms.store(wall_unix_ms(), Ordering::Relaxed);
        }
    }

    /// Another client has the session.
    pub(super) fn taken_over(&self, owner: u64) {
        self.owner.store(owner, Ordering::Relaxed);
        self.connected.store(true, Ordering::Relaxed);
        self.since_unix_ms.store(wall_unix_ms(), Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Directory {
    shared: Arc<Shared>,
    client: PublicKey,
    session: SessionId,
}

impl Directory {
    pub(super) fn new(shared: Arc<Shared>, client: PublicKey, session: SessionId) -> Self {
        Self {
            shared,
            client,
            session,
        }
    }

    /// The session that asks.
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    /// Who answers for another session of this client.
    pub(crate) fn elsewhere(&self, session: SessionId) -> Option<Mailbox<ProcessSupervisor>> {
        let facts = self.shared.facts_of(session, &self.client)?;
        facts.supervisor.get().cloned()
    }

    /// A page of this client's sessions. They live on several threads: each is asked by its mailbox, all at once, and one
    /// that does not answer within `LIST_TIMEOUT` is listed as silent.
    pub(crate) fn list(&self, after: Cursor) -> impl Future<Output = SessionList> + use<> {
        let mut sessions = self.shared.sessions_of(&self.client);
        sessions.retain(|(number, facts)| {
            let told = *number < after.session || (*number == after.session && after.process == u64::MAX);
            !told && facts.supervisor.get().is_some()
        });
        sessions.sort_unstable_by_key(|(number, _)| *number);
        let more = sessions.len() > LISTED_SESSIONS_MAX;
        sessions.truncate(LISTED_SESSIONS_MAX);
        let asked: Vec<_> = sessions
            .into_iter()
            .map(|(number, facts)| {
                let behind = if number == after.session { after.process } else { 0 };
                let asking = tokio::task::spawn_local(ask(Arc::clone(&facts), behind));
                (self.entry(number, &facts), asking)
            })
            .collect();
        async move {
            let mut told = Vec::new();
            for (entry, asking) in asked {
                let answer = asking.await.unwrap_or(Err(AskError::ActorFailed));
                told.push((entry, answer.ok()));
            }
            page(told, more)
        }
    }

    fn entry(&self, session: SessionId, facts: &Facts) -> SessionEntry {
        SessionEntry {
            session,
            grant: ByteBuf::from(self.shared.grant(session, &self.client).to_vec()),
            owner: facts.owner.load(Ordering::Relaxed),
            connected: facts.connected.load(Ordering::Relaxed),
            since_unix_ms: facts.since_unix_ms.load(Ordering::Relaxed),
            begun_unix_ms: facts.begun_unix_ms,
            silent: false,
            processes: Vec::new(),
        }
    }
}

type Told = (Vec<ProcessEntry>, bool);

async fn ask(facts: Arc<Facts>, after: u64) -> Result<Told, AskError> {
    let supervisor = facts.supervisor.get().ok_or(AskError::Stopped)?;
    let max = LISTED_PROCESSES_MAX;
    supervisor
        .ask_within(LIST_TIMEOUT, TraceContext::default(), |reply| {
            SupervisorMessage::List { after, max, reply }
        })
        .await
}

/// Puts a page together: whole sessions as long as their processes have room, then a part of one.
fn page(told: Vec<(SessionEntry, Option<Told>)>, more: bool) -> SessionList {
    let mut list = SessionList {
        now_unix_ms: wall_unix_ms(),
        ..SessionList::default()
    };
    let mut room = LISTED_PROCESSES_MAX;
    for (mut entry, answer) in told {
        let Some((mut processes, mut left)) = answer else {
            entry.silent = true;
            list.sessions.push(entry);
            continue;
        };
        if room == 0 && !processes.is_empty() {
            list.next = list.sessions.last().map(whole);
            return list;
        }
        left |= processes.len() > room;
        processes.truncate(room);
        room -= processes.len();
        let last = processes.last().map_or(0, |process| process.process);
        let session = entry.session;
        entry.processes = processes;
        list.sessions.push(entry);
        if left {
            list.next = Some(Cursor {
                session,
                process: last,
            });
            return list;
        }
    }
    if more {
        list.next = list.sessions.last().map(whole);
    }
    list
}

fn whole(entry: &SessionEntry) -> Cursor {
    Cursor {
        session: entry.session,
        process: u64::MAX,
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(session: u64) -> SessionEntry {
        SessionEntry {
            session,
            grant: ByteBuf::new(),
            owner: 1,
            connected: false,
            since_unix_ms: 0,
            begun_unix_ms: 0,
            silent: false,
            processes: Vec::new(),
        }
    }

    fn processes(from: u64, count: usize) -> Vec<ProcessEntry> {
        (from..)
            .take(count)
            .map(|process| ProcessEntry {
                process,
                program: String::new(),
                pid: 1,
                started_unix_ms: 0,
                status: None,
                closed: false,
                written: [0; 2],
                kept: [0; 2],
                tty: false,
                stdin: false,
            })
            .collect()
    }

    /// Reads every page of some sessions, as a supervisor and a registry would give them.
    fn pages(sessions: &[(u64, usize)]) -> (Vec<(u64, u64)>, usize) {
        let (mut seen, mut after, mut count) = (Vec::new(), Cursor::default(), 0);
        loop {
            count += 1;
            let told: Vec<_> = sessions
                .iter()
                .filter(|(session, _)| {
                    *session > after.session || (*session == after.session && after.process != u64::MAX)
                })
                .map(|(session, total)| {
                    let first = if *session == after.session {
                        after.process + 1
                    } else {
                        1
                    };
                    let left = (*total as u64 + 1).saturating_sub(first) as usize;
                    let given = left.min(LISTED_PROCESSES_MAX);
                    (entry(*session), Some((processes(first, given), left > given)))
                })
                .collect();
            let more = told.len() > LISTED_SESSIONS_MAX;
            let list = page(told.into_iter().take(LISTED_SESSIONS_MAX).collect(), more);
            let listed: usize = list.sessions.iter().map(|entry| entry.processes.len()).sum();
            assert!(listed <= LISTED_PROCESSES_MAX && list.sessions.len() <= LISTED_SESSIONS_MAX);
            for entry in &list.sessions {
                seen.extend(
                    entry
                        .processes
                        .iter()
                        .map(|process| (entry.session, process.process)),
                );
            }
            match list.next {
                Some(next) => {
                    assert!(next > after, "the cursor only grows");
                    after = next;
                }
                None => return (seen, count),
            }
        }
    }

    #[test]
    fn pages_together_are_every_process_once_and_in_order() {
        let cases: [&[(u64, usize)]; 5] = [
            &[],
            &[(3, 1)],
            &[(1, 512), (2, 1)],
            &[(1, 0), (4, 1_024), (5, 0), (9, 3)],
            &[(2, 511), (3, 2), (4, 600)],
        ];
        for sessions in cases {
            let expected: Vec<_> = sessions
                .iter()
                .flat_map(|(session, total)| (1..=*total as u64).map(|process| (*session, process)))
                .collect();
            assert_eq!(pages(sessions).0, expected);
        }
        let many: Vec<_> = (1..=200).map(|session| (session, 1)).collect();
        let (seen, count) = pages(&many);
        assert_eq!((seen.len(), count), (200, 4));
    }

    #[test]
    fn a_session_that_does_not_answer_is_listed_as_silent_beside_the_others() {
        let told = vec![(entry(1), None), (entry(2), Some((processes(1, 1), false)))];
        let list = page(told, false);
        assert_eq!(
            list.sessions
                .iter()
                .map(|entry| (entry.silent, entry.processes.len()))
                .collect::<Vec<_>>(),
            [(true, 0), (false, 1)]
        );
    }
}
