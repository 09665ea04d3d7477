//! What is known of the place before the model is asked: it travels with the first record, and is here by then.

use std::time::Duration;

use dwell_actors::workspace::WorkspaceLoaded;
use dwell_messages::session::EnvironmentInfo;

/// Skills that are told of by name.
const SKILLS_TOLD_MAX: usize = 100;

/// What was learned.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// What the model is told.
    pub(super) instructions: String,
    /// How many files of instructions, and skills.
    pub(super) counts: [usize; 2],
    /// How long it was waited for, once the link was up.
    pub(super) took: Duration,
    /// Why nothing is known of the workspace.
    pub(super) problem: Option<String>,
}

impl Learned {
    pub(super) fn of(place: &EnvironmentInfo, loaded: Option<&WorkspaceLoaded>) -> Self {
        let mut text = format!(
            "You work on another machine: {} on {}, through the function `shell`, which runs one program with its \
             arguments and no shell between. Answer in a few sentences.\n",
            place.os, place.arch
        );
        let mut counts = [0; 2];
        if let Some(loaded) = loaded {
            counts = [loaded.agents.files.len(), loaded.skills.found.len()];
            tell(loaded, &mut text);
        }
        Self {
            instructions: text,
            counts,
            ..Self::default()
        }
    }

    /// In a line for people.
    pub(super) fn said(&self) -> String {
        let [files, skills] = self.counts;
        match &self.problem {
            Some(problem) => format!("nothing is known of the workspace: {problem}"),
            None => format!("{files} files of instructions, {skills} skills"),
        }
    }
}

fn tell(loaded: &WorkspaceLoaded, text: &mut String) {
    let path = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text.push_str(&format!("The working directory is {}.\n", path(&loaded.cwd)));
    if let Some(repository) = &loaded.repository {
        let head = repository.head.as_ref();
        let branch = head
            .and_then(|head| head.branch.as_deref())
            .unwrap_or("no branch");
        text.push_str(&format!(
            "It is in a repository at {}, on {branch}.\n",
            path(&repository.root)
        ));
    }
    for file in &loaded.agents.files {
        text.push_str(&format!(
            "\nInstructions from {}:\n\n{}\n",
            path(&file.path),
            file.text
        ));
    }
    if !loaded.skills.found.is_empty() {
        text.push_str("\nSkills; read a skill's file before using it:\n");
    }
    for skill in loaded.skills.found.iter().take(SKILLS_TOLD_MAX) {
        text.push_str(&format!(
            "- {}: {} ({})\n",
            skill.name,
            skill.description,
            path(&skill.path)
        ));
    }
}
