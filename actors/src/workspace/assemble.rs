//! One answer out of a load's parts, within its bounds. What is cut is said.

use dwell_messages::workspace::{
    AGENTS_MAX, AgentsFile, PATHS_MAX_BYTES, Skill, WARNINGS_MAX, Warning, WorkspaceReply,
};
use serde_bytes::ByteBuf;

use super::agents::Instruction;
use super::loader::{Instructions, Notes};
use super::plan::Plan;
use super::repository::RepositoryLoaded;

/// What there is still room for.
struct Budget {
    text: usize,
    paths: usize,
}

impl Budget {
    fn path(&mut self, bytes: usize) -> bool {
        let left = self.paths.checked_sub(bytes);
        self.paths = left.unwrap_or(self.paths);
        left.is_some()
    }

    fn text(&mut self, bytes: usize) -> bool {
        let left = self.text.checked_sub(bytes);
        self.text = left.unwrap_or(self.text);
        left.is_some()
    }
}

/// Instructions first, in their order, then skills: what has no room is left out from where there is none, so that what is
/// there is a beginning.
pub(super) fn assemble(plan: &Plan, parts: Instructions, repository: RepositoryLoaded) -> WorkspaceReply {
    let Instructions {
        look,
        agents,
        skills,
        spans: _,
        counts: _,
    } = parts;
    let mut budget = Budget {
        text: plan.text_max_bytes,
        paths: PATHS_MAX_BYTES,
    };
    let (files, agents_truncated) = instructions(agents.files, &mut budget);
    let found = skills.skills.len();
    let kept: Vec<Skill> = skills
        .skills
        .into_iter()
        .take_while(|skill| budget.path(skill.path.len()) && budget.text(words(skill)))
        .collect();
    let skills_truncated = skills.more || kept.len() < found;
    let mut notes = Notes::default();
    for part in [agents.notes, skills.notes, repository.notes] {
        notes.append(part);
    }
    let (warnings, without_room) = warnings(notes.warnings, &mut budget);
    WorkspaceReply {
        cwd: ByteBuf::from(plan.cwd.clone()),
        root: look.root.map(ByteBuf::from),
        agents: files,
        agents_truncated,
        agents_error: look.error,
        skills: kept,
        skills_truncated,
        repository: repository.repository,
        warnings,
        warnings_dropped: notes.dropped.saturating_add(without_room),
        stages: dwell_messages::workspace::LoadStages::default(),
        counts: dwell_messages::workspace::LoadCounts::default(),
    }
}

fn instructions(read: Vec<Instruction>, budget: &mut Budget) -> (Vec<AgentsFile>, bool) {
    let mut files = Vec::new();
    let mut truncated = false;
    for Instruction {
        path,
        mut text,
        whole,
    } in read
    {
        if files.len() >= AGENTS_MAX || budget.text == 0 || !budget.path(path.len()) {
            return (files, true);
        }
        let cut = text.len() > budget.text;
        if cut {
            text.truncate(text.floor_char_boundary(budget.text));
            budget.text = 0;
        } else {
            budget.text -= text.len();
        }
        truncated |= cut || !whole;
        files.push(AgentsFile {
            path: ByteBuf::from(path),
            text,
            truncated: cut || !whole,
        });
    }
    (files, truncated)
}

fn words(skill: &Skill) -> usize {
    let metadata = skill.metadata.iter();
    let metadata: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
    skill.name.len() + skill.description.len() + metadata
}

fn warnings(all: Vec<Warning>, budget: &mut Budget) -> (Vec<Warning>, u32) {
    let found = all.len();
    let kept: Vec<_> = all
        .into_iter()
        .take(WARNINGS_MAX)
        .filter(|warning| budget.path(warning.path.len() + warning.message.len()))
        .collect();
    let dropped = u32::try_from(found - kept.len()).unwrap_or(u32::MAX);
    (kept, dropped)
}
