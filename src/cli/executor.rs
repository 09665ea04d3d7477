//! `dwell executor`.

use std::time::Instant;

use dwell_actors::access::{PAIRING_LIFE, PairingOffer};
use dwell_actors::config::{EXECUTOR_PORT_DEFAULT, Home, RELAY_PORT_DEFAULT};
use dwell_actors::keys::{AuthorizedClients, ExecutorName, Grant, KnownRoute, PairingCode, TrustLine};
use dwell_messages::{PublicKey, Role};
use dwell_relay::{OsRandomness, StaticKeypair, fingerprint};

use super::address::{as_dialled, to_listen, with_port};
use super::args::Executor;
use super::dialect::{self, Sandbox};
use super::exit;
use super::failure::Failure;
use super::identity::{self, Own};
use super::output;
use super::relay::until_stopped;
use super::roles::{self, ExecutorSpec, ServingExecutor};
use super::signals::Stop;

pub(crate) async fn serve(ask: Executor, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let json = json || ask.ready_json;
    let home = identity::home()?;
    // Before the list: that one exists says that there was a key.
    let Own { pair, created, .. } = identity::load_or_make(&home, Role::Executor)?;
    let public = pair.public();
    let mut spec = spec(&ask, pair, &home)?;
    for (client, grant) in &ask.authorize {
        roles::enroll(&spec.authorized_clients, client, grant).map_err(|error| Failure::of("key", &error))?;
    }
    if spec.dialect.is_some() {
        return serve_dialect(&ask, spec, &mut stop).await;
    }
    let code = invite(&ask, &mut spec)?;
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
    let line = code.and_then(|code| {
        let route = match (&relay, &ready.address) {
            (Some(address), _) => KnownRoute::Relay(address.clone()),
            (None, Some(address)) => KnownRoute::Direct(as_dialled(address)),
            (None, None) => return None,
        };
        let name = ask.name.clone().unwrap_or_else(own_name);
        let key = public;
        Some(TrustLine {
            name,
            key,
            route,
            code,
        })
    });
    if json {
        let mut value = ready.to_json();
        if let Some(line) = &line {
            value["trust"] = line.to_string().into();
        }
        output::print_json(&value);
    } else {
        output::print(&usage(&public, relay.as_deref(), ready.address.as_deref()));
        output::print(&line.as_ref().map(invitation).unwrap_or_default());
    }
    until_stopped(&mut stop, ask.ready_json).await?;
    let orderly = stop.orderly(executor.shutdown()).await;
    Ok(if orderly { 0 } else { exit::INTERRUPTED })
}

/// Serves a Codex CLI. Standard output is the protocol's, or has the address alone: whoever started this reads it.
async fn serve_dialect(ask: &Executor, spec: ExecutorSpec, stop: &mut Stop) -> Result<u8, Failure> {
    if ask.dialect.sandbox == Some(Sandbox::Off) {
        tracing::warn!("--sandbox=off: what a client asks to be confined runs unconfined");
    }
    let has_relay = spec.relay.is_some();
    let executor = stop.or(ServingExecutor::start(spec)).await?;
    if let Some(url) = executor.dialect_url() {
        output::print(&format!("{url}\n"));
    }
    if has_relay {
        stop.or(executor.registered()).await?;
    }
    tokio::select! {
        stopped = until_stopped(stop, ask.ready_json) => stopped?,
        () = executor.dialect_over() => {}
    }
    let orderly = stop.orderly(executor.shutdown()).await;
    Ok(if orderly { 0 } else { exit::INTERRUPTED })
}

/// The one-time code, and its hash for the executor. A parent process, and whoever names clients, needs none.
fn invite(ask: &Executor, spec: &mut ExecutorSpec) -> Result<Option<PairingCode>, Failure> {
    if ask.no_pairing || ask.ready_json || !ask.authorize.is_empty() {
        return Ok(None);
    }
    let code = PairingCode::generate(&mut OsRandomness::new())
        .map_err(|error| Failure::because("randomness", "no one-time code was made", &error))?;
    let grant = Grant::scopes(ask.scopes.unwrap_or_default());
    spec.pairing = Some(PairingOffer::new(Instant::now(), &code, grant));
    Ok(Some(code))
}

fn own_name() -> ExecutorName {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    ExecutorName::from_hostname(hostname.trim())
}

fn invitation(line: &TrustLine) -> String {
    format!(
        "to let one more client in, within {} minutes, where the agent is:\n  dwell trust {line}\n",
        PAIRING_LIFE.as_secs() / 60
    )
}

fn spec(ask: &Executor, identity: StaticKeypair, home: &Home) -> Result<ExecutorSpec, Failure> {
    let certificate = ask.proving.certificate()?;
    let endpoint = ask
        .listen
        .as_deref()
        .map(dialect::endpoint)
        .transpose()?
        .flatten();
    if endpoint.is_none() && ask.dialect.says_something() {
        return Err(Failure::new(
            "usage",
            "a Codex CLI's token, sandbox or retention was given, and none is served",
        )
        .advise("add --listen ws://127.0.0.1:0 or --listen stdio, or leave them out"));
    }
    let served = endpoint
        .map(|endpoint| ask.dialect.options(endpoint, ask.detached_life))
        .transpose()?
        .map(|options| options.traces(home.traces_dir()));
    let listen = ask
        .listen
        .as_deref()
        .filter(|_| endpoint.is_none())
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
        (None, None) if served.is_some() => None,
        (None, None) => Some(with_port("127.0.0.1", RELAY_PORT_DEFAULT)?),
    };
    Ok(ExecutorSpec {
        identity,
        authorized_clients: ask
            .authorized_clients
            .clone()
            .unwrap_or_else(|| home.authorized_clients()),
        pairing: None,
        audit: home.audit_log(),
        relay,
        trust: ask.trusting.trust()?,
        listen,
        certificate,
        detached_life: ask.detached_life,
        traces: home.traces_dir(),
        oversight: ask.overseen.oversight(home),
        flight: !ask.no_flight_recorder,
        dialect: served,
    })
}

fn introduction(public: &PublicKey, created: bool, spec: &ExecutorSpec, clients: usize) -> String {
    let made = if created { " (made just now)" } else { "" };
    let list = spec.authorized_clients.display();
    let served = match clients {
        0 => format!("serves nobody yet: the line below lets one client in, and {list} lists those that are"),
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
