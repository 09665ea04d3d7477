//! One session's share of what its client may do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use dwell_messages::{ErrorCode, PublicKey, WireError};

use super::audit::{What, program_name};
use super::gate::Gate;
use crate::keys::{Grant, ScopeSet};

/// No cap.
const UNCAPPED: u32 = u32::MAX;

/// What the client of a session may do now; shared with whoever asks, changed by the review alone.
pub(crate) struct Pass {
    pub(super) client: PublicKey,
    pub(super) handshake: [u8; 32],
    gate: Arc<Gate>,
    scopes: AtomicU8,
    processes_max: AtomicU32,
    /// Of all this client's sessions together.
    processes: Arc<AtomicU32>,
}

impl Pass {
    pub(super) fn new(
        gate: Arc<Gate>,
        client: PublicKey,
        handshake: [u8; 32],
        processes: Arc<AtomicU32>,
        grant: &Grant,
    ) -> Self {
        let pass = Self {
            client,
            handshake,
            gate,
            scopes: AtomicU8::new(0),
            processes_max: AtomicU32::new(0),
            processes,
        };
        pass.set(grant);
        pass
    }

    pub(super) fn set(&self, grant: &Grant) {
        self.scopes.store(grant.scopes.bits(), Ordering::Relaxed);
        self.processes_max
            .store(grant.processes_max.unwrap_or(UNCAPPED), Ordering::Relaxed);
    }

    fn scopes(&self) -> ScopeSet {
        ScopeSet::from_bits(self.scopes.load(Ordering::Relaxed))
    }

    /// Whether a call that needs these scopes may run. A refusal is written down.
    pub(crate) fn check(
        &self,
        needed: ScopeSet,
        method: &'static str,
        argv0: Option<&[u8]>,
    ) -> Result<(), WireError> {
        let missing = self.scopes().missing(needed);
        if missing.is_empty() {
            return Ok(());
        }
        let word = if missing.iter().count() == 1 {
            "scope"
        } else {
            "scopes"
        };
        let why = format!("this key lacks the {word} {missing}");
        self.refused(method, argv0, why.clone());
        Err(WireError::new(ErrorCode::PermissionDenied, why))
    }

    /// Room for one more process of this client, given back on drop. A refusal is written down.
    pub(crate) fn take_process(
        &self,
        method: &'static str,
        argv0: Option<&[u8]>,
    ) -> Result<ProcessSlot, WireError> {
        let most = self.processes_max.load(Ordering::Relaxed);
        let taken = self
            .processes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
                (running < most).then_some(running + 1)
            });
        match taken {
            Ok(_) => Ok(ProcessSlot(Arc::clone(&self.processes))),
            Err(running) => {
                let why = format!("this key may run {most} processes at a time");
                self.refused(method, argv0, why.clone());
                let error = WireError::new(ErrorCode::PermissionDenied, why);
                Err(error.with_limit(u64::from(most), u64::from(running) + 1))
            }
        }
    }

    fn refused(&self, method: &'static str, argv0: Option<&[u8]>, why: String) {
        let program = argv0.map(program_name);
        tracing::warn!(client = %self.client, method, %why, "a call was refused");
        let what = What::Refused { method, program, why };
        self.gate
            .audit()
            .write(Some(&self.client), Some(&self.handshake), what);
    }
}

/// One process's place under its client's cap.
#[derive(Debug)]
pub(crate) struct ProcessSlot(Arc<AtomicU32>);

impl Drop for ProcessSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A live session's entry in the gate's table. Dropping it ends the entry and is written down.
pub(crate) struct SessionPass {
    pub(super) number: u64,
    pub(super) pass: Arc<Pass>,
    pub(super) why: &'static str,
}

impl SessionPass {
    /// To be asked before each call.
    pub(crate) fn pass(&self) -> Arc<Pass> {
        Arc::clone(&self.pass)
    }

    /// Another client with the same key has taken the session over; it is written down.
    pub(crate) fn taken_over(&self) {
        let what = What::Take { ok: true, why: "" };
        let pass = &self.pass;
        pass.gate
            .audit()
            .write(Some(&pass.client), Some(&pass.handshake), what);
    }

    /// Why the session ended, in a word or two of ours.
    pub(crate) fn ended(&mut self, why: &'static str) {
        self.why = why;
    }
}

impl Drop for SessionPass {
    fn drop(&mut self) {
        let gate = Arc::clone(&self.pass.gate);
        let revoked = gate.leave(self.number);
        let why = if revoked { "revoked" } else { self.why };
        gate.audit().write(
            Some(&self.pass.client),
            Some(&self.pass.handshake),
            What::End { why },
        );
    }
}
