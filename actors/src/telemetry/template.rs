//! Names of actors and their messages, interned once per actor type so that a record holds two bytes instead.

use std::collections::HashMap;
use std::sync::{OnceLock, RwLock};

/// Most (actor, message) pairs a process may have. Past it records share the last entry, `(other)`.
pub const TEMPLATES_MAX: usize = 4_096;

/// The names one record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The actor's type.
    pub actor: &'static str,
    /// The message's type.
    pub message: &'static str,
    /// Name of the residence span.
    pub mailbox: &'static str,
    /// Name of the turn span.
    pub turn: &'static str,
}

const OTHER: Names = Names {
    actor: "(other)",
    message: "(other)",
    mailbox: "mailbox (other)",
    turn: "turn (other)",
};

#[derive(Default)]
struct Registry {
    names: Vec<Names>,
    bases: HashMap<(&'static str, &'static [&'static str]), u16>,
}

fn registry() -> &'static RwLock<Registry> {
    static REGISTRY: OnceLock<RwLock<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(RwLock::default)
}

/// Interns an actor's messages and returns the number of the first; the others follow in order.
///
/// Called once per started actor, never per message. The names live as long as the process.
pub fn intern(actor: &'static str, messages: &'static [&'static str]) -> u16 {
    let key = (actor, messages);
    let mut registry = registry()
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(base) = registry.bases.get(&key) {
        return *base;
    }
    if registry.names.len() + messages.len() >= TEMPLATES_MAX {
        return u16::MAX;
    }
    let base = u16::try_from(registry.names.len()).unwrap_or(u16::MAX);
    let mailbox: &'static str = Box::leak(format!("mailbox {actor}").into_boxed_str());
    let turn: &'static str = Box::leak(format!("turn {actor}").into_boxed_str());
    registry.names.extend(messages.iter().map(|message| Names {
        actor,
        message,
        mailbox,
        turn,
    }));
    registry.bases.insert(key, base);
    base
}

/// The names behind a number.
pub fn names(template: u16) -> Names {
    let registry = registry().read().unwrap_or_else(|poisoned| poisoned.into_inner());
    registry
        .names
        .get(usize::from(template))
        .copied()
        .unwrap_or(OTHER)
}
