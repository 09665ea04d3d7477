//! An executor, who may ask it, and a project for it to have.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Harness, HarnessBuilder, Target};
use dwell_actors::keys::Grant;
use dwell_actors::workspace::{WorkspaceLoaded, WorkspaceOptions};
use dwell_relay::{OsRandomness, StaticKeypair};
use zeroize::Zeroizing;

use crate::gate::Gate;

const BOUND: Duration = Duration::from_secs(60);

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

pub(crate) struct World {
    pub(crate) executor: ExecutorHandle,
    client: StaticKeypair,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    pub(crate) async fn with(options: &str) -> Self {
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize_with(client.public(), Grant::parse(options).unwrap())
            .serve()
            .await
            .unwrap();
        Self { executor, client }
    }

    pub(crate) fn builder(&self) -> HarnessBuilder {
        let client = StaticKeypair::from_private(Zeroizing::new(*self.client.expose_private()));
        Harness::builder()
            .identity(client)
            .sampled(false)
            .resume_for(Duration::ZERO)
    }

    pub(crate) async fn gate(&self, pieces: usize) -> Gate {
        Gate::before(self.executor.local_addr().unwrap().parse().unwrap(), pieces).await
    }

    pub(crate) async fn through(&self, gate: &Gate, builder: HarnessBuilder) -> Harness {
        let target = Target::direct(gate.address.to_string(), self.executor.public_key());
        bounded("connecting", builder.connect(target)).await.unwrap()
    }

    pub(crate) async fn harness(&self, builder: HarnessBuilder) -> Harness {
        let target = Target::direct(self.executor.local_addr().unwrap(), self.executor.public_key());
        bounded("connecting", builder.connect(target)).await.unwrap()
    }
}

/// A project with instructions at every level, and so many skills at its root.
pub(crate) fn project(at: &Path, depth: usize, skills: usize) -> PathBuf {
    let root = at.join("project");
    std::fs::create_dir_all(root.join(".git")).unwrap();
    std::fs::write(
        root.join(".git/HEAD"),
        "0123456789012345678901234567890123456789\n",
    )
    .unwrap();
    let mut cwd = root.clone();
    std::fs::write(cwd.join("AGENTS.md"), "instructions 0").unwrap();
    for level in 1..depth {
        cwd = cwd.join(format!("d{level}"));
        std::fs::create_dir(&cwd).unwrap();
        std::fs::write(cwd.join("AGENTS.md"), format!("instructions {level}")).unwrap();
    }
    for skill in 0..skills {
        let directory = root.join(format!(".agents/skills/skill-{skill:03}"));
        std::fs::create_dir_all(&directory).unwrap();
        let text = format!("---\nname: skill-{skill:03}\ndescription: what it does\n---\nbody\n");
        std::fs::write(directory.join("SKILL.md"), text).unwrap();
    }
    cwd
}

pub(crate) fn options(cwd: &Path, home: &Path) -> WorkspaceOptions {
    WorkspaceOptions::new().cwd(cwd).home(home)
}

pub(crate) fn check(loaded: &WorkspaceLoaded, depth: usize, skills: usize) {
    assert_eq!(loaded.agents.files.len(), depth, "{:?}", loaded.agents);
    assert_eq!(loaded.skills.found.len(), skills);
    assert_eq!(loaded.warnings, []);
    let head = loaded.repository.clone().unwrap().head.unwrap();
    assert_eq!(
        head.commit.as_deref(),
        Some("0123456789012345678901234567890123456789")
    );
    assert!(!loaded.agents.truncated && !loaded.skills.truncated);
}
