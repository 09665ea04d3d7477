//! `dwell key`.

use dwell_actors::config::Home;
use dwell_messages::Role;
use dwell_relay::fingerprint;
use serde_json::{Value, json};

use super::args::{Key, KeyAction};
use super::failure::Failure;
use super::identity::{self, Own};
use super::output;
use super::ready::role_name;

pub(crate) fn key(ask: &Key, json: bool) -> Result<u8, Failure> {
    let home = identity::home()?;
    let role = ask.role.role();
    let own = match ask.action {
        KeyAction::Make => identity::load_or_make(&home, role)?,
        KeyAction::Show => identity::load(&home, role)?,
    };
    if json {
        output::print_json(&to_json(&own, role));
    } else {
        output::print(&to_text(&own, role, &home));
    }
    Ok(0)
}

fn to_json(own: &Own, role: Role) -> Value {
    let public = own.pair.public();
    json!({
        "role": role_name(role),
        "public_key": public.to_string(),
        "fingerprint": fingerprint(&public),
        "path": own.path.to_string_lossy(),
        "created": own.created,
    })
}

fn to_text(own: &Own, role: Role, home: &Home) -> String {
    let public = own.pair.public();
    let made = if own.created { "  (made just now)" } else { "" };
    let next = match role {
        Role::Harness => format!(
            "to let this key run commands, start the executor with it:\ndwell executor --authorize {public}\nor add \
             it as a line to the executor's authorized_clients (here that is {})\n",
            home.authorized_clients().display()
        ),
        Role::Executor => {
            format!("harnesses name this executor by its key:\ndwell run --executor {public} -- CMD\n")
        }
        Role::Relay => String::new(),
    };
    format!(
        "{} key {public}\nfingerprint {}\nfile {}{made}\n{next}",
        role_name(role),
        fingerprint(&public),
        own.path.display(),
    )
}
