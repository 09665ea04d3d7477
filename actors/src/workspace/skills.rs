//! Skills: the project's, between its root and the directory that is worked in, and the user's own. Only what they say of
//! themselves is read.

use std::collections::HashSet;

use dwell_messages::ErrorCode;
use dwell_messages::files::FileKind;
use dwell_messages::workspace::{OnError, SKILLS_MAX, Skill, SkillOwner};
use serde_bytes::ByteBuf;

use super::front_matter::{self, FRONT_MATTER_MAX_BYTES};
use super::hint::{HintCounts, RootHint};
use super::loader::{Loader, Notes};
use super::pipeline::in_order;
use crate::find_up::{is_absence, path};

/// Most names in one directory of skills; one with more is passed over.
pub const SKILL_ENTRIES_MAX: usize = 1_024;
/// What a skill's file is called.
pub const SKILL_FILE: &[u8] = b"SKILL.md";

/// Skills as they were read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SkillsLoaded {
    /// The project's from the root down, then the user's own.
    pub skills: Vec<Skill>,
    /// Whether there are more than `SKILLS_MAX`.
    pub more: bool,
    /// What became of the hint.
    pub hints: HintCounts,
    pub(super) notes: Notes,
}

impl Loader<'_> {
    /// Reads them. The hint, where there is one that fits, saves looking for the root; the directories below it are read in
    /// any case.
    pub async fn skills(&self, hint: Option<RootHint>) -> SkillsLoaded {
        let mut loaded = SkillsLoaded::default();
        let root = self.skills_root(hint, &mut loaded).await;
        let directories = self.skill_directories(root.as_deref());
        let listing = directories
            .into_iter()
            .map(|(directory, owner)| self.names_in(directory, owner));
        let mut places = Vec::new();
        for (found, notes) in in_order(self.in_flight, listing).await {
            places.extend(found);
            loaded.notes.append(notes);
        }
        loaded.more = places.len() > SKILLS_MAX;
        places.truncate(SKILLS_MAX);
        let reading = places.into_iter().map(|place| self.skill(place));
        for (skill, notes) in in_order(self.in_flight, reading).await {
            loaded.skills.extend(skill);
            loaded.notes.append(notes);
        }
        loaded
    }

    async fn skills_root(&self, hint: Option<RootHint>, loaded: &mut SkillsLoaded) -> Option<Vec<u8>> {
        let plan = self.plan;
        if let Some(hint) = hint {
            let root = hint.accept(self.files.identity(), &plan.cwd, &plan.markers);
            let counts = &mut loaded.hints;
            if root.is_some() {
                counts.used += 1;
                return root;
            }
            counts.rejected += 1;
        }
        match self.search(&plan.markers, OnError::Ignore).await {
            Ok(found) => {
                if found.ignored > 0 {
                    let problem = "looking for the root above it, some markers could not be told";
                    loaded.notes.note(ErrorCode::FileFailed, &plan.cwd, problem);
                }
                found.root
            }
            // Failed probes are ignored, and the plan's markers are sound.
            Err(error) => {
                loaded.notes.failed(&plan.cwd, &error);
                None
            }
        }
    }

    /// Each once, though two names may lead to one.
    fn skill_directories(&self, root: Option<&[u8]>) -> Vec<(Vec<u8>, SkillOwner)> {
        let plan = self.plan;
        let project = path::between(root.unwrap_or(&plan.cwd), &plan.cwd)
            .into_iter()
            .flat_map(|directory| {
                let below = plan.skills.iter();
                below.map(move |name| (path::join(&directory, name), SkillOwner::Project))
            });
        let user = plan
            .user_skills
            .iter()
            .map(|path| (path.clone(), SkillOwner::User));
        let mut seen = HashSet::new();
        project
            .chain(user)
            .filter(|(directory, _)| seen.insert(directory.clone()))
            .collect()
    }

    async fn names_in(&self, directory: Vec<u8>, owner: SkillOwner) -> (Vec<Place>, Notes) {
        let mut notes = Notes::default();
        let entries = match self.list(&directory, SKILL_ENTRIES_MAX).await {
            Ok(entries) => entries,
            Err(error) => {
                if !is_absence(error.code) {
                    notes.failed(&directory, &error);
                }
                return (Vec::new(), notes);
            }
        };
        let places = entries
            .into_iter()
            .filter(|entry| match entry.kind {
                FileKind::Directory | FileKind::Symlink => entry.name.first() != Some(&b'.'),
                FileKind::File | FileKind::Other => false,
            })
            .map(|entry| Place {
                directory: path::join(&directory, &entry.name),
                name: entry.name.into_vec(),
                owner,
            })
            .collect();
        (places, notes)
    }

    /// A directory without the file is none of a skill, and no problem.
    async fn skill(&self, place: Place) -> (Option<Skill>, Notes) {
        let mut notes = Notes::default();
        let path = path::join(&place.directory, SKILL_FILE);
        let front = match self.front(&path, FRONT_MATTER_MAX_BYTES).await {
            Ok(front) => front,
            Err(error) => {
                if !is_absence(error.code) {
                    notes.failed(&path, &error);
                }
                return (None, notes);
            }
        };
        let read = match front_matter::parse(&front.bytes, front.whole) {
            Ok(read) => read,
            Err(problem) => {
                notes.note(ErrorCode::BadRequest, &path, problem);
                return (None, notes);
            }
        };
        for problem in &read.problems {
            notes.note(ErrorCode::BadRequest, &path, *problem);
        }
        let name = read.name.unwrap_or_else(|| {
            notes.note(
                ErrorCode::BadRequest,
                &path,
                "the skill has no name: its directory's is taken",
            );
            String::from_utf8_lossy(&place.name).into_owned()
        });
        let description = read.description.unwrap_or_else(|| {
            notes.note(ErrorCode::BadRequest, &path, "the skill has no description");
            String::new()
        });
        let skill = Skill {
            path: ByteBuf::from(path),
            name,
            description,
            metadata: read.metadata,
            owner: place.owner,
        };
        (Some(skill), notes)
    }
}

/// Where a skill may be.
struct Place {
    directory: Vec<u8>,
    name: Vec<u8>,
    owner: SkillOwner,
}
