//! `dwell relay`.

use std::path::Path;

use dwell_actors::config::RELAY_PORT_DEFAULT;
use dwell_actors::relay_server::{AllowError, load_allow_file};
use dwell_messages::Role;
use dwell_relay::fingerprint;
use dwell_relay::rendezvous::Admission;

use super::address::{as_dialled, is_loopback, to_listen};
use super::args::Relay;
use super::exit;
use super::failure::Failure;
use super::identity::{self, Own};
use super::output;
use super::ready::Ready;
use super::roles::{RelaySpec, ServingRelay};
use super::signals::Stop;
use super::stdin;

pub(crate) async fn serve(ask: Relay, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let certificate = ask.proving.certificate()?;
    let has_tls = certificate.is_some();
    let listen = ask.listen.as_deref().unwrap_or("127.0.0.1");
    let listen = to_listen(listen, RELAY_PORT_DEFAULT, has_tls)?;
    let admission = admission(ask.allow.as_deref(), &listen)?;
    let home = identity::home()?;
    let Own { pair: identity, .. } = identity::load_or_make(&home, Role::Relay)?;
    let relay = stop
        .or(ServingRelay::start(RelaySpec {
            listen,
            identity,
            admission,
            certificate,
            oversight: ask.overseen.oversight(&home),
        }))
        .await?;
    let ready = relay.ready();
    announce(&ready, json || ask.ready_json, has_tls);
    until_stopped(&mut stop, ask.ready_json).await?;
    let orderly = stop.orderly(relay.shutdown()).await;
    Ok(if orderly { 0 } else { exit::INTERRUPTED })
}

/// Waits until this process is asked to end, or the parent that holds its standard input is gone.
pub(crate) async fn until_stopped(stop: &mut Stop, has_parent: bool) -> Result<(), Failure> {
    if !has_parent {
        stop.recv().await;
        return Ok(());
    }
    let mut input = stdin::read()?;
    let orphaned = async { while input.recv().await.is_some() {} };
    tokio::select! {
        () = stop.recv() => {}
        () = orphaned => {}
    }
    Ok(())
}

fn announce(ready: &Ready, json: bool, has_tls: bool) {
    if json {
        output::print_json(&ready.to_json());
        return;
    }
    let address = ready.address.as_deref().unwrap_or("?");
    let scheme = if has_tls { "wss://" } else { "" };
    output::print(&format!(
        "relay on {address}\nkey {}\nfingerprint {}\non the machine with the code:\n  dwell executor --relay {scheme}{}\n",
        ready.public_key,
        fingerprint(&ready.public_key),
        as_dialled(address),
    ));
}

/// Everyone on loopback when there is no file; on another address only those in the file.
fn admission(allow: Option<&Path>, listen: &str) -> Result<Admission, Failure> {
    let Some(path) = allow else {
        if is_loopback(listen) {
            return Ok(Admission::Open);
        }
        return Err(
            Failure::new("allow", format!("a relay on {listen} could be used by anyone"))
                .advise("name who may use it with --allow FILE: lines of `executor KEY` and `token TEXT`")
                .advise("or listen on loopback only: --listen 127.0.0.1"),
        );
    };
    load_allow_file(path).map_err(|error| match &error {
        AllowError::Read { source, .. } => {
            Failure::because("allow", &format!("{} cannot be read", path.display()), source)
        }
        AllowError::Writable { .. } => Failure::of("allow", &error),
        AllowError::NotAList | AllowError::Line { .. } | AllowError::TooMany { .. } => {
            Failure::new("allow", format!("{}: {error}", path.display())).advise(
                "lines are `executor KEY`, `token TEXT` and `harness HASH` (of a token); # begins a comment",
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_list_only_loopback_is_served() {
        assert!(matches!(admission(None, "127.0.0.1:7433"), Ok(Admission::Open)));
        assert!(admission(None, "0.0.0.0:7433").is_err());
        assert!(admission(None, "[::]:7433").is_err());
        assert!(admission(None, "relay.example.org:7433").is_err());
    }

    #[test]
    fn a_bad_line_is_named_and_its_token_is_not() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = dir.path().join("allow");
        drop(std::fs::write(&path, "# who\ntoken short\n"));
        let Err(failure) = admission(Some(&path), "0.0.0.0:7433") else {
            panic!("a short token is refused")
        };
        let text = format!("{failure:?}");
        assert!(text.contains("line 2") && !text.contains("short"), "{text}");
    }
}
