//! What is to be loaded, once it is known to make sense.

use dwell_messages::workspace::{NAMES_MAX, OnError, TEXT_MAX_BYTES, WorkspaceLoad};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

use crate::find_up::{Query, path};

/// A load that can be made: paths are absolute and normal, names are names, counts are bounded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub(super) cwd: Vec<u8>,
    pub(super) markers: Vec<Vec<u8>>,
    pub(super) agents: Vec<Vec<u8>>,
    pub(super) skills: Vec<Vec<u8>>,
    /// Absolute.
    pub(super) user_skills: Vec<Vec<u8>>,
    pub(super) text_max_bytes: usize,
}

impl Plan {
    /// From a request, with what it leaves to the environment. Without a home directory there are no skills of the user's
    /// own.
    ///
    /// # Errors
    /// `BadPath` and `BadRequest`, which name the field's problem.
    pub fn new(load: &WorkspaceLoad, cwd: &[u8], home: Option<&[u8]>) -> Result<Self, WireError> {
        let cwd = path::normal(load.cwd.as_ref().map_or(cwd, |cwd| cwd.as_slice()))?;
        // Whatever else a search needs of markers is checked by it.
        let search = Query::new(&cwd, &load.markers, OnError::Propagate)?;
        bounded("names of instruction files", &load.agents)?;
        bounded("directories of skills", &load.skills)?;
        bounded("directories of the user's skills", &load.user_skills)?;
        for name in &load.agents {
            crate::find_up::check_name(name)?;
        }
        if load.text_max_bytes > TEXT_MAX_BYTES {
            let error = WireError::new(ErrorCode::BadRequest, "too much text is asked for");
            return Err(error.with_limit(u64::from(TEXT_MAX_BYTES), u64::from(load.text_max_bytes)));
        }
        let relative = |names: &[ByteBuf]| -> Result<Vec<Vec<u8>>, WireError> {
            names.iter().map(|name| relative(name)).collect()
        };
        let home = load.home.as_ref().map(|home| home.as_slice()).or(home);
        let user_skills = match home {
            Some(home) => {
                let home = path::normal(home)?;
                let below = relative(&load.user_skills)?;
                below.iter().map(|name| path::join(&home, name)).collect()
            }
            None => Vec::new(),
        };
        Ok(Self {
            markers: search.markers().to_vec(),
            cwd,
            agents: load.agents.iter().map(|name| name.to_vec()).collect(),
            skills: relative(&load.skills)?,
            user_skills,
            text_max_bytes: load.text_max_bytes as usize,
        })
    }

    /// The directory that is worked in.
    pub fn cwd(&self) -> &[u8] {
        &self.cwd
    }
}

fn bounded(what: &str, names: &[ByteBuf]) -> Result<(), WireError> {
    if names.len() > NAMES_MAX {
        let error = WireError::new(ErrorCode::BadRequest, format!("too many {what}"));
        return Err(error.with_limit(NAMES_MAX as u64, names.len() as u64));
    }
    Ok(())
}

/// Names with `/` between them, which lead downwards and nowhere else.
fn relative(name: &[u8]) -> Result<Vec<u8>, WireError> {
    if name.first() == Some(&b'/') {
        let why = "a directory of skills begins with `/`, and is looked for below others";
        return Err(WireError::new(ErrorCode::BadPath, why));
    }
    let below = path::normal(&path::join(b"/", name))?;
    Ok(below[1..].to_vec())
}
