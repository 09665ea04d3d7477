//! Whether what is there to confine commands does so on this machine: a command that is confined, and tries.

use std::path::PathBuf;
use std::time::Duration;

use dwell_messages::confinement::{ConfinedPath, Confinement, Reach};
use tokio::sync::oneshot;

use super::Confiner;
use crate::spawn::{Environment, ExitStatus, SpawnRequest, Spawner};

/// How long the trial may take; a machine that needs longer for one command confines none.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Succeeds where nothing can be written, and fails where something can.
const TRIES_TO_WRITE: &str = "! touch /dwell-was-not-confined-$$ 2>/dev/null";

/// Gives a spawner what confines commands, if a trial shows that it does. What it says else is why not.
pub(crate) async fn equip(spawner: &Spawner, own: Option<PathBuf>) -> Result<(), String> {
    let own = own.ok_or("no program of ours can be started inside of bubblewrap")?;
    let confiner = Confiner::find(own).ok_or("bubblewrap is not installed")?;
    spawner.confine_by(Some(confiner));
    let outcome = match tokio::time::timeout(TRIAL_TIMEOUT, attempt(spawner)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("a trial took longer than {} s", TRIAL_TIMEOUT.as_secs())),
    };
    if outcome.is_err() {
        spawner.confine_by(None);
    }
    outcome
}

async fn attempt(spawner: &Spawner) -> Result<(), String> {
    let root = ConfinedPath {
        path: b"/".to_vec().into(),
        access: Reach::Read,
        optional: false,
    };
    let request = SpawnRequest {
        argv: ["/bin/sh", "-c", TRIES_TO_WRITE]
            .map(|word| word.as_bytes().to_vec())
            .into(),
        cwd: Some(b"/".to_vec()),
        env: Environment::exact([(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())]),
        confinement: Some(Confinement {
            network: false,
            paths: vec![root],
        }),
        ..SpawnRequest::default()
    };
    let (tell, outcome) = oneshot::channel();
    let reply = Box::new(move |outcome| drop(tell.send(outcome)));
    if let Err(rejected) = spawner.try_submit(request, reply) {
        return Err(rejected.reason.to_string());
    }
    let outcome = outcome.await.map_err(|_| "the spawner ended")?;
    let spawned = outcome.result.map_err(|error| error.to_string())?;
    let mut watcher = spawned.process.watch().map_err(|error| error.to_string())?;
    let exit = watcher.wait().await.map_err(|error| error.to_string())?;
    match exit.status {
        ExitStatus::Code(0) => Ok(()),
        ExitStatus::Code(code) => Err(format!(
            "a trial ended with {code}: are user namespaces allowed here?"
        )),
        ExitStatus::Signal(signal) => Err(format!("a trial was ended by signal {signal}")),
    }
}
