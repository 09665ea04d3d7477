//! `dwell bridge`.

use dwell_messages::Role;

use super::args::Bridge;
use super::dialect;
use super::exit;
use super::failure::Failure;
use super::identity;
use super::output;
use super::roles::{BridgeSpec, ServingBridge};
use super::run::target;
use super::signals::Stop;

pub(crate) async fn serve(ask: Bridge) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let home = identity::home()?;
    let (executor, route) = target(&ask.reach, &home)?;
    let Some(endpoint) = dialect::endpoint(&ask.listen)? else {
        return Err(Failure::new(
            "address",
            format!("`{}` does not say where a Codex CLI is served", ask.listen),
        )
        .advise("write ws://IP:PORT, such as ws://127.0.0.1:0, or stdio"));
    };
    let options = ask.dialect.options(endpoint, ask.detached_life)?;
    if ask.dialect.sandbox.is_some() {
        tracing::warn!("--sandbox=off: what a client asks to be confined runs unconfined");
    }
    let spec = BridgeSpec {
        identity: identity::load_or_make(&home, Role::Harness)?.pair,
        executor,
        route,
        trust: ask.reach.trusting.trust()?,
        token: ask.reach.relay_token.clone().map(String::into_bytes),
        dialect: options.traces(home.traces_dir()),
    };
    let bridge = stop.or(ServingBridge::start(spec)).await?;
    if let Some(url) = bridge.url() {
        output::print(&format!("{url}\n"));
    }
    tokio::select! {
        () = stop.recv() => {}
        () = bridge.over() => {}
    }
    let orderly = stop.orderly(bridge.shutdown()).await;
    Ok(if orderly { 0 } else { exit::INTERRUPTED })
}
