//! The gateway's sessions, on one arbiter: whoever connects gets one here, or one of those that wait for their client.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::dialect::{Capabilities, EnvironmentInfo, Fault, ShellInfo, uri_of};
use dwell_relay::{OsRandomness, Randomness as _, StaticKeypair};

use super::connection::OPENING_TIMEOUT;
use super::session::{Rules, Session};
use super::task::Task;
use crate::files::WATCHES;
use crate::harness::{Harness, Target};
use crate::http_client::HTTP;

/// Sessions of a gateway, those that wait for their client included.
pub const SESSIONS_MAX: usize = 512;

/// What is behind every session.
pub(super) struct Behind {
    /// Whose threads, traces and store all sessions share.
    pub(super) base: Harness,
    pub(super) identity: Arc<StaticKeypair>,
    pub(super) target: Target,
    pub(super) environment: Rc<EnvironmentInfo>,
}

/// See the module.
pub(super) struct Gateway {
    behind: Behind,
    rules: Rules,
    detached_life: Duration,
    sessions: RefCell<HashMap<String, Rc<Session>>>,
}

impl Gateway {
    pub(super) fn new(behind: Behind, rules: Rules, detached_life: Duration) -> Rc<Self> {
        Rc::new(Self {
            behind,
            rules,
            detached_life,
            sessions: RefCell::default(),
        })
    }

    /// A new session.
    pub(super) async fn begin(self: &Rc<Self>) -> Result<Rc<Session>, Fault> {
        let full = || {
            Fault::failed(format!(
                "there are {SESSIONS_MAX} sessions already: end one, or wait"
            ))
        };
        if self.sessions.borrow().len() >= SESSIONS_MAX {
            return Err(full());
        }
        let (identity, target) = (Arc::clone(&self.behind.identity), self.behind.target.clone());
        let harness = self
            .behind
            .base
            .another(identity, target)
            .await
            .map_err(|error| Fault::failed(format!("the executor gives no session: {error}")))?;
        // Others came meanwhile.
        if self.sessions.borrow().len() >= SESSIONS_MAX {
            return Err(full());
        }
        let id = drawn_id()?;
        let session = Session::new(
            id.clone(),
            harness,
            Rc::clone(&self.behind.environment),
            self.rules.clone(),
        );
        self.sessions.borrow_mut().insert(id, Rc::clone(&session));
        // Whoever asked may be gone before it is told.
        self.expire_after(&session, self.detached_life.max(OPENING_TIMEOUT));
        Ok(session)
    }

    /// A session that is there.
    pub(super) fn session(&self, id: &str) -> Option<Rc<Session>> {
        self.sessions.borrow().get(id).cloned()
    }

    /// A session has lost its connection: it ends unless its client is back in time.
    pub(super) fn detached(self: &Rc<Self>, session: &Rc<Session>) {
        self.expire_after(session, self.detached_life);
    }

    fn expire_after(self: &Rc<Self>, session: &Rc<Session>, life: Duration) {
        let (gateway, weak) = (Rc::downgrade(self), Rc::downgrade(session));
        let before = session.line().connections();
        session.expires(Some(Task::spawn(async move {
            tokio::time::sleep(life).await;
            expire(&gateway, &weak, before);
        })));
    }

    /// Waits until the spans of what ended are with whoever keeps them.
    pub(super) async fn flush(&self) {
        self.behind.base.flush_own_traces().await;
    }

    /// Everything ends.
    pub(super) fn end(&self) {
        for (_, session) in self.sessions.borrow_mut().drain() {
            session.end();
        }
    }
}

fn expire(gateway: &Weak<Gateway>, session: &Weak<Session>, connections: u64) {
    let (Some(gateway), Some(session)) = (gateway.upgrade(), session.upgrade()) else {
        return;
    };
    if session.line().connections() == connections && !session.line().is_attached() {
        tracing::info!("a session of the JSON dialect is over: its client did not come back");
        gateway.sessions.borrow_mut().remove(session.id());
        session.end();
    }
}

/// A random UUID. Whoever knows it has the session.
fn drawn_id() -> Result<String, Fault> {
    let mut bytes = [0; 16];
    OsRandomness::new()
        .fill(&mut bytes)
        .map_err(|error| Fault::failed(error.to_string()))?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut id = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        write!(id, "{byte:02x}").ok();
    }
    Ok(id)
}

/// What the environment is, as the dialect has it. `home` and `temporary` are known where the executor is this process's.
pub(super) fn environment(
    native: &dwell_messages::EnvironmentInfo,
    provider: &str,
    home: Option<&[u8]>,
    temporary: Option<&[u8]>,
) -> EnvironmentInfo {
    let path = native.shell.clone().unwrap_or_else(|| "/bin/sh".into());
    let can = |ability: &str| native.capabilities.iter().any(|capability| capability == ability);
    let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
    EnvironmentInfo {
        shell: ShellInfo { name, path },
        executor_version: native.version.clone(),
        provider_id: Some(provider.to_owned()),
        cwd: (!native.cwd.is_empty()).then(|| uri_of(&native.cwd)),
        user_home_dir: home.map(uri_of),
        platform_os: Some(native.os.clone()),
        prepend_path_dirs: Vec::new(),
        temporary_directories: temporary.map(uri_of).into_iter().collect(),
        temp_dir: home.is_some().then(|| uri_of(temporary.unwrap_or(b"/tmp"))),
        capabilities: Capabilities {
            fs_watch_missing: can(WATCHES),
            http_header_env_vars: can(HTTP),
            ..Capabilities::default()
        },
    }
}
