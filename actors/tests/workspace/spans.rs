//! What a trace says of a load: its stages on whichever machine read the files, and nothing that lies in them.

use std::sync::{Arc, Mutex};

use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell_messages::{Role, Span};

use crate::world::{World, bounded, options, project};

/// Spans that are made one after the other are put on the wall clock by rates that may differ.
const CLOCK_NS: u64 = 5_000_000;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Role, Span)>>>);

impl SpanSink for Kept {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap()
            .extend(spans.iter().map(|span| (role, span.clone())));
        Ok(())
    }
}

impl Kept {
    fn one(&self, role: Role, name: &str) -> Span {
        let spans = self.0.lock().unwrap();
        let mut named = spans.iter().filter(|(by, span)| *by == role && span.name == name);
        let found = named.next().unwrap_or_else(|| {
            let names: Vec<_> = spans.iter().map(|(by, span)| (by, &span.name)).collect();
            panic!("no {name} of {role:?} in {names:?}")
        });
        found.1.clone()
    }
}

fn stages(kept: &Kept, by: Role, parent: &Span) -> [Span; 4] {
    let names = ["root walk", "agents load", "skills load", "repository discovery"];
    names.map(|name| {
        let stage = kept.one(by, name);
        assert_eq!(
            (stage.trace_id, stage.parent),
            (parent.trace_id, parent.span_id),
            "{name}"
        );
        stage
    })
}

#[tokio::test]
async fn the_trace_shows_the_stages_on_both_machines_and_no_path_in_it() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 3, 3);
    let kept = Kept::default();
    let builder = world
        .builder()
        .sampled(true)
        .sink(kept.clone())
        .workspace(options(&cwd, dir.path()));
    let harness = world.harness(builder).await;
    bounded("loading", harness.first_workspace())
        .await
        .unwrap()
        .unwrap();
    bounded("flushing", harness.flush_traces()).await;
    let load = kept.one(Role::Harness, "workspace load");
    let asked = kept.one(Role::Harness, "Workspace/Load");
    let served = kept.one(Role::Executor, "Workspace/Load");
    assert_eq!(load.parent, [0; 8]);
    assert_eq!((asked.trace_id, asked.parent), (load.trace_id, load.span_id));
    assert_eq!((served.trace_id, served.parent), (load.trace_id, asked.span_id));
    let [walk, agents, skills, _] = stages(&kept, Role::Executor, &served);
    for stage in [&agents, &skills] {
        assert!(stage.start_unix_ns + CLOCK_NS >= walk.end_unix_ns, "{stage:?}");
    }
    let told = format!("{:?}", kept.0.lock().unwrap());
    assert!(!told.contains("project") && !told.contains("instructions") && !told.contains("what it does"));
    bounded("shutting down", harness.shutdown()).await;
}

/// Where each question is a round trip the parts overlap: instructions and skills, and the repository with both.
#[tokio::test]
async fn file_by_file_the_stages_overlap() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 6, 30);
    let kept = Kept::default();
    let harness = world
        .harness(world.builder().sampled(true).sink(kept.clone()))
        .await;
    let asks = options(&cwd, dir.path()).from_here(true);
    let loaded = bounded("loading", harness.workspace(&asks)).await.unwrap();
    bounded("flushing", harness.flush_traces()).await;
    let load = kept.one(Role::Harness, "workspace load");
    let [walk, agents, skills, repository] = stages(&kept, Role::Harness, &load);
    let overlap = |a: &Span, b: &Span| a.start_unix_ns < b.end_unix_ns && b.start_unix_ns < a.end_unix_ns;
    assert!(overlap(&agents, &skills) && overlap(&walk, &repository));
    assert!(skills.start_unix_ns + CLOCK_NS >= walk.end_unix_ns);
    let times = loaded.timings.stages;
    assert!(
        times.skills.at_us >= times.root_walk.took_us && times.repository.at_us < times.root_walk.took_us
    );
    bounded("shutting down", harness.shutdown()).await;
}
