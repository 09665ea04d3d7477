//! `dwell executor`.

use dwell_actors::config::{EXECUTOR_PORT_DEFAULT, Home, RELAY_PORT_DEFAULT};
use dwell_actors::keys::AuthorizedClients;
use dwell_messages::{PublicKey, Role};
use dwell_relay::{StaticKeypair, fingerprint};

use super::address::{as_dialled, to_listen, with_port};
use super::args::Executor;
use super::exit;
use super::failure::Failure;
use super::identity::{self, Own};
use super::output;
use super::relay::until_stopped;
use super::roles::{ExecutorSpec, ServingExecutor};
use super::signals::Stop;

pub(crate) async fn serve(ask: Executor, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let json = json || ask.ready_json;
    let home = identity::home()?;
    let Own { pair, created, .. } = identity::load_or_make(&home, Role::Executor)?;
    let public = pair.public();
    let spec = spec(&ask, pair, &home)?;
    let clients =
        AuthorizedClients::load(&spec.authorized_clients).map_err(|error| Failure::of("key", &error))?;
    if !json {
        output::print(&introduction(&public, created, &spec, clients.keys().len()));
    }
    let relay = spec.relay.clone();
    let executor = stop.or(ServingExecutor::start(spec)).await?;
    if let Some(relay) = &relay {
        stop.or(executor.registered()).await?;
        if !json {
            output::print(&format!("registered at {relay}\n"));
        }
    }
    let ready = executor.ready();
    if json {
        output::print_json(&ready.to_json());
    } else {
        output::print(&usage(&public, relay.as_deref(), ready.address.as_deref()));
    }
    until_stopped(&mut stop, ask.ready_json).await?;
    let orderly = stop.orderly(executor.shutdown()).await;
    Ok(if orderly { 0 } else { exit::INTERRUPTED })
}

fn spec(ask: &Executor, identity: StaticKeypair, home: &Home) -> Result<ExecutorSpec, Failure> {
    let certificate = ask.proving.certificate()?;
    let listen = ask
        .listen
        .as_deref()
        .map(|address| to_listen(address, EXECUTOR_PORT_DEFAULT, certificate.is_some()))
        .transpose()?;
    if certificate.is_some() && listen.is_none() {
        return Err(
            Failure::new("tls", "a certificate is for a listener, and there is none")
                .advise("add --listen ADDR, or leave --tls-cert and --tls-key out"),
        );
    }
    let relay = match (&ask.relay, &listen) {
        (Some(address), _) => Some(with_port(address, RELAY_PORT_DEFAULT)?),
        (None, Some(_)) => None,
        (None, None) => Some(with_port("127.0.0.1", RELAY_PORT_DEFAULT)?),
    };
    Ok(ExecutorSpec {
        identity,
        authorized_clients: ask
            .authorized_clients
            .clone()
            .unwrap_or_else(|| home.authorized_clients()),
        relay,
        trust: ask.trusting.trust()?,
        listen,
        certificate,
        traces: home.traces_dir(),
    })
}

fn introduction(public: &PublicKey, created: bool, spec: &ExecutorSpec, clients: usize) -> String {
    let made = if created { " (made just now)" } else { "" };
    let list = spec.authorized_clients.display();
    let served = match clients {
        0 => format!(
            "serves nobody yet: put the key that `dwell key` prints on the harness's machine into {list}"
        ),
        1 => format!("serves 1 client, listed in {list}"),
        clients => format!("serves {clients} clients, listed in {list}"),
    };
    format!(
        "executor {public}{made}\nfingerprint {}\n{served}\n",
        fingerprint(public)
    )
}

/// The command line that the other side needs.
fn usage(public: &PublicKey, relay: Option<&str>, listens: Option<&str>) -> String {
    let ways = [
        ("--relay", relay.map(str::to_owned)),
        ("--direct", listens.map(as_dialled)),
    ];
    ways.iter()
        .filter_map(|(flag, address)| address.as_ref().map(|address| (flag, address)))
        .map(|(flag, address)| format!("  dwell run {flag} {address} --executor {public} -- CMD\n"))
        .fold("where the agent is:\n".to_owned(), |text, line| text + &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_gets_a_line_it_can_copy_for_every_way() {
        let key = PublicKey([1; 32]);
        let both = usage(&key, Some("relay:1"), Some("0.0.0.0:2"));
        assert!(both.contains(&format!("dwell run --relay relay:1 --executor {key} -- CMD\n")));
        assert!(both.contains(&format!(
            "dwell run --direct THIS_HOST:2 --executor {key} -- CMD\n"
        )));
        assert!(!usage(&key, Some("relay:1"), None).contains("--direct"));
    }
}
