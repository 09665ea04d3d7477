//! The one place that knows an executor's clients, its open pairing and its live sessions.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use dwell_messages::PublicKey;

use super::audit::What;
use super::pairing::PairingOffer;
use super::pass::{Pass, SessionPass};
use super::writer::AuditLog;
use crate::keys::{AuthorizedClients, Grant, KeyError, Reload};

/// Sessions of one client whose line says nothing about it: an eighth of what an executor has for all.
pub(crate) const SESSIONS_PER_CLIENT_MAX: usize = 128;

/// Sessions of the client in this process: those of the JSON dialect, and the one that all of them rest on.
pub(crate) const INSIDE_SESSIONS_MAX: u32 = 768;

/// Who may be served.
pub(crate) enum Clients {
    /// Nobody, until a file is named.
    Nobody,
    /// Those in a file, read again when it changes.
    File(Box<AuthorizedClients>),
    /// These, for tests and embedding.
    Keys(Vec<(PublicKey, Grant)>),
}

/// The answer to a client that asks to be served. The client hears only whether.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is.
    Serve,
    /// It is not.
    Refuse,
}

/// How a live session is ended, with a sentence for its client.
pub(super) type EndSession = Box<dyn Fn(&str) + Send + Sync>;

struct Live {
    pass: Arc<Pass>,
    end: EndSession,
    /// It was told to end.
    revoked: bool,
}

struct Inner {
    clients: Clients,
    /// A client in this very process, whose key nobody else has.
    insider: Option<PublicKey>,
    pairing: Option<PairingOffer>,
    live: HashMap<u64, Live>,
    /// Processes of each client, as long as anything of it is here.
    processes: HashMap<PublicKey, Weak<AtomicU32>>,
    next: u64,
    /// What was wrong with the list at the last look, so that it is told once.
    problem: Option<String>,
}

/// See the module.
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    audit: AuditLog,
}

impl Gate {
    pub(crate) fn new(clients: Clients, pairing: Option<PairingOffer>, audit: AuditLog) -> Self {
        Self {
            inner: Mutex::new(Inner {
                clients,
                insider: None,
                pairing,
                live: HashMap::new(),
                processes: HashMap::new(),
                next: 1,
                problem: None,
            }),
            audit,
        }
    }

    /// Serves this client as well, which is part of this process: it may do everything but administer.
    pub(crate) fn with_insider(self, client: PublicKey) -> Self {
        self.lock().insider = Some(client);
        self
    }

    pub(crate) fn audit(&self) -> &AuditLog {
        &self.audit
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client with a proven key asks, by the list as it is now. Nothing is done for it yet: message 1 may be a
    /// replay.
    pub(crate) fn admit(
        &self,
        now: Instant,
        now_unix_s: u64,
        client: &PublicKey,
        authorization: &[u8],
        handshake: &[u8; 32],
    ) -> Verdict {
        let mut inner = self.lock();
        inner.reload(&self.audit, |file| file.reload_if_changed());
        let listed = match inner.grant(client) {
            Some(grant) if grant.is_expired(now_unix_s) => Err("the key has expired"),
            Some(_) => Ok("the key is listed"),
            None => Err("the key is not listed"),
        };
        let (verdict, what) = match listed {
            Ok(why) => (Verdict::Serve, What::Authorize { ok: true, why }),
            Err(why) => {
                let claim = inner
                    .pairing
                    .as_mut()
                    .filter(|_| why == "the key is not listed")
                    .and_then(|offer| offer.claim(now, client, authorization));
                match claim {
                    None => (Verdict::Refuse, What::Authorize { ok: false, why }),
                    Some(Ok(())) => (
                        Verdict::Serve,
                        What::Authorize {
                            ok: true,
                            why: "the one-time code is right",
                        },
                    ),
                    Some(Err(refused)) => (
                        Verdict::Refuse,
                        What::Pair {
                            ok: false,
                            why: refused.in_words(),
                        },
                    ),
                }
            }
        };
        drop(inner);
        self.audit.write(Some(client), Some(handshake), what);
        verdict
    }

    /// A client whose hello could not be read was turned away.
    pub(crate) fn not_understood(&self, client: &PublicKey, handshake: &[u8; 32]) {
        let why = "the hello is not understood";
        self.audit
            .write(Some(client), Some(handshake), What::Authorize { ok: false, why });
    }

    /// A client asked for a session that it may not have, or that is not there.
    pub(crate) fn not_taken_up(&self, client: &PublicKey, handshake: &[u8; 32], why: &'static str) {
        let what = What::Take { ok: false, why };
        self.audit.write(Some(client), Some(handshake), what);
    }

    /// A client's first record has opened: it is real. Lists it if it came with the code, and gives it its pass.
    ///
    /// # Errors
    /// A sentence for the client, which is known by now: its key was taken off the list meanwhile, it has as many
    /// sessions as it may, or it could not be listed.
    pub(crate) fn begin(
        self: &Arc<Self>,
        now_unix_s: u64,
        client: &PublicKey,
        handshake: &[u8; 32],
        end: EndSession,
    ) -> Result<SessionPass, String> {
        let begun = self.begin_locked(now_unix_s, client, handshake, end);
        match &begun {
            Ok(_) => self.audit.write(Some(client), Some(handshake), What::Begin),
            Err((why, _)) => {
                let what = What::Authorize { ok: false, why };
                self.audit.write(Some(client), Some(handshake), what);
            }
        }
        begun.map_err(|(_, sentence)| sentence)
    }

    fn begin_locked(
        self: &Arc<Self>,
        now_unix_s: u64,
        client: &PublicKey,
        handshake: &[u8; 32],
        end: EndSession,
    ) -> Result<SessionPass, (&'static str, String)> {
        let mut inner = self.lock();
        if let Some(grant) = inner.pairing.as_ref().and_then(|offer| offer.claimed(client)) {
            let listed = inner.clients.list(client, &grant);
            let why = match &listed {
                Ok(()) => "listed by the one-time code",
                Err(_) => "the list could not be written",
            };
            let ok = listed.is_ok();
            self.audit
                .write(Some(client), Some(handshake), What::Pair { ok, why });
            if let Err(error) = listed {
                tracing::error!(%error, "a client with the right code could not be listed");
                return Err((why, "the executor cannot write its list of clients".into()));
            }
            tracing::info!(%client, "a client was listed by the one-time code");
            if let Some(offer) = &mut inner.pairing {
                offer.use_up();
            }
        }
        let grant = inner
            .grant(client)
            .filter(|grant| !grant.is_expired(now_unix_s))
            .ok_or(("the key was revoked", REVOKED.to_owned()))?;
        let open = inner.live.values().filter(|live| live.pass.client == *client);
        let most = grant
            .sessions_max
            .map_or(SESSIONS_PER_CLIENT_MAX, |most| most as usize);
        if open.count() >= most {
            let sentence = format!("this key may have {most} sessions at a time: end another one first");
            return Err(("too many sessions", sentence));
        }
        let processes = inner.processes_of(client);
        let pass = Pass::new(Arc::clone(self), *client, *handshake, processes, &grant);
        let pass = Arc::new(pass);
        let number = inner.next;
        inner.next += 1;
        let live = Live {
            pass: Arc::clone(&pass),
            end,
            revoked: false,
        };
        inner.live.insert(number, live);
        Ok(SessionPass {
            number,
            pass,
            why: "ended",
        })
    }

    /// Looks at the list and at the clock, and ends sessions that are no longer allowed.
    pub(crate) fn review(&self, now_unix_s: u64) {
        let mut inner = self.lock();
        inner.reload(&self.audit, |file| file.reload_if_touched(now_unix_s));
        let Inner {
            clients,
            insider,
            live,
            ..
        } = &mut *inner;
        for session in live.values_mut() {
            let client = &session.pass.client;
            match insiders(*insider, client).or_else(|| clients.grant(client)) {
                Some(grant) if !grant.is_expired(now_unix_s) => session.pass.set(&grant),
                Some(_) | None if session.revoked => {}
                grant @ (Some(_) | None) => {
                    session.revoked = true;
                    session.pass.set(&Grant::scopes(crate::keys::ScopeSet::NONE));
                    let expired = grant.is_some();
                    tracing::warn!(%client, expired, "a session is ended: its key is no longer authorized");
                    (session.end)(if expired { EXPIRED } else { REVOKED });
                }
            }
        }
    }

    /// A session is over. Whether it was because its key was revoked.
    pub(super) fn leave(&self, number: u64) -> bool {
        let mut inner = self.lock();
        let left = inner.live.remove(&number);
        inner.processes.retain(|_, count| count.strong_count() > 0);
        left.is_some_and(|live| live.revoked)
    }
}

const REVOKED: &str = "this key is no longer authorized here";
const EXPIRED: &str = "this key's time is over";

/// What the client may do that is part of this process.
fn insiders(insider: Option<PublicKey>, client: &PublicKey) -> Option<Grant> {
    insider
        .filter(|key| dwell_relay::keys::keys_match(key, client))
        .map(|_| Grant {
            sessions_max: Some(INSIDE_SESSIONS_MAX),
            ..Grant::default()
        })
}

impl Inner {
    fn grant(&self, client: &PublicKey) -> Option<Grant> {
        insiders(self.insider, client).or_else(|| self.clients.grant(client))
    }

    fn reload(
        &mut self,
        audit: &AuditLog,
        look: impl FnOnce(&mut AuthorizedClients) -> Result<Reload, KeyError>,
    ) {
        let Clients::File(file) = &mut self.clients else {
            return;
        };
        match look(file) {
            Ok(Reload::Changed) => {
                self.problem = None;
                tracing::info!(clients = file.keys().len(), "authorized_clients has changed");
                let why = format!("{} clients are listed", file.keys().len());
                audit.write(None, None, What::List { ok: true, why });
            }
            Ok(Reload::Unchanged) => self.problem = None,
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() == Some(&problem) {
                    return;
                }
                tracing::error!(%error, "authorized_clients cannot be read again: the last good list holds");
                let why = error.in_short();
                audit.write(None, None, What::List { ok: false, why });
                self.problem = Some(problem);
            }
        }
    }

    fn processes_of(&mut self, client: &PublicKey) -> Arc<AtomicU32> {
        if let Some(count) = self.processes.get(client).and_then(Weak::upgrade) {
            return count;
        }
        let count = Arc::new(AtomicU32::new(0));
        self.processes.insert(*client, Arc::downgrade(&count));
        count
    }
}

impl Clients {
    /// What a client may do, whether or not that is over.
    fn grant(&self, client: &PublicKey) -> Option<Grant> {
        match self {
            Self::Nobody => None,
            Self::File(file) => file.grant(client),
            Self::Keys(keys) => keys
                .iter()
                .find(|(key, _)| dwell_relay::keys::keys_match(key, client))
                .map(|(_, grant)| *grant),
        }
    }

    /// Adds a client, in the file if there is one.
    fn list(&mut self, client: &PublicKey, grant: &Grant) -> Result<(), KeyError> {
        match self {
            Self::File(file) => {
                AuthorizedClients::add_with(file.path(), client, grant, "paired")?;
                file.reload_if_changed().map(drop)
            }
            Self::Keys(keys) => {
                keys.push((*client, *grant));
                Ok(())
            }
            Self::Nobody => {
                *self = Self::Keys(vec![(*client, *grant)]);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
