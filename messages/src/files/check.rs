//! What no request about files may hold.

use super::{
    Access, BLOCK_MAX_BYTES, FileReply, FileRequest, Handle, PATH_MAX_BYTES, WALK_MAX_DEPTH,
    WALK_MAX_DIRECTORIES, WALK_MAX_ENTRIES, WATCH_MAX_PATHS, Watch, WriteHow,
};

/// What is wrong with a request about files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Flaw {
    /// A path that no file can have.
    #[error("{field} {problem}")]
    Path {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another field.
    #[error("{field} {problem}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More content than one message carries.
    #[error("{actual} bytes in one block, and {BLOCK_MAX_BYTES} are the most")]
    TooLarge {
        /// How much it is.
        actual: usize,
    },
}

fn path(field: &'static str, path: &[u8]) -> Result<(), Flaw> {
    let flaw = |problem| Err(Flaw::Path { field, problem });
    match path {
        [] => flaw("is empty"),
        [b'/', ..] if path.len() > PATH_MAX_BYTES => flaw("has more than 4,096 bytes"),
        [b'/', ..] if path.contains(&0) => flaw("holds a NUL byte"),
        [b'/', ..] => Ok(()),
        _ => flaw("is not absolute"),
    }
}

fn handle(handle: Handle) -> Result<(), Flaw> {
    if handle.0 == 0 {
        return Err(Flaw::Field {
            field: "handle",
            problem: "is 0",
        });
    }
    Ok(())
}

fn block(actual: usize) -> Result<(), Flaw> {
    if actual > BLOCK_MAX_BYTES {
        return Err(Flaw::TooLarge { actual });
    }
    Ok(())
}

fn at_least_one(field: &'static str, value: u32) -> Result<(), Flaw> {
    if value == 0 {
        return Err(Flaw::Field {
            field,
            problem: "is 0",
        });
    }
    Ok(())
}

fn at_most(field: &'static str, value: u32, most: u32, problem: &'static str) -> Result<(), Flaw> {
    if value > most {
        return Err(Flaw::Field { field, problem });
    }
    Ok(())
}

fn how(how: WriteHow, atomic: bool) -> Result<(), Flaw> {
    if atomic && how == WriteHow::Append {
        return Err(Flaw::Field {
            field: "atomic",
            problem: "cannot be had of what is appended to",
        });
    }
    Ok(())
}

fn watch(watch: &Watch) -> Result<(), Flaw> {
    let flaw = |problem| {
        let field = "missing";
        Err(Flaw::Field { field, problem })
    };
    handle(watch.handle)?;
    match watch.missing.len() {
        0 => return flaw("is empty"),
        1..=WATCH_MAX_PATHS => {}
        _ => return flaw("has more than 64 elements"),
    }
    for one in &watch.missing {
        path("missing", one)?;
    }
    watch.present.as_ref().map_or(Ok(()), |one| path("present", one))
}

impl FileRequest {
    /// Looks for what the decoder refuses, and the encoder does not write.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self) -> Result<(), Flaw> {
        match self {
            Self::Metadata(ask) => path("path", &ask.path),
            Self::Read(read) => path("path", &read.path),
            Self::Write(write) => {
                path("path", &write.path)?;
                how(write.how, write.atomic)?;
                block(write.data.len())
            }
            Self::List(list) => {
                path("path", &list.path)?;
                at_least_one("max_entries", list.max_entries)
            }
            Self::CreateDirectory(create) => path("path", &create.path),
            Self::Remove(remove) => path("path", &remove.path),
            Self::Copy(copy) => path("from", &copy.from).and_then(|()| path("to", &copy.to)),
            Self::Rename(rename) => path("from", &rename.from).and_then(|()| path("to", &rename.to)),
            Self::Canonicalize(ask) => path("path", &ask.path),
            Self::Walk(walk) => {
                handle(walk.handle)?;
                path("path", &walk.path)?;
                at_least_one("max_directories", walk.max_directories)?;
                at_least_one("max_entries", walk.max_entries)?;
                at_most("max_depth", walk.max_depth, WALK_MAX_DEPTH, "is more than 256")?;
                at_most(
                    "max_directories",
                    walk.max_directories,
                    WALK_MAX_DIRECTORIES,
                    "is more than 100,000",
                )?;
                at_most(
                    "max_entries",
                    walk.max_entries,
                    WALK_MAX_ENTRIES,
                    "is more than 1,000,000",
                )
            }
            Self::WalkOn(on) => handle(on.handle),
            Self::Open(open) => {
                handle(open.handle)?;
                path("path", &open.path)?;
                match open.access {
                    Access::Read => Ok(()),
                    Access::Write(write) => how(write, open.atomic),
                }
            }
            Self::ReadBlock(read) => {
                handle(read.handle)?;
                at_least_one("max_bytes", read.max_bytes)
            }
            Self::WriteBlock(write) => {
                handle(write.handle)?;
                block(write.data.len())
            }
            Self::Close(close) => handle(close.handle),
            Self::Watch(ask) => watch(ask),
            Self::Await(on) => handle(on.handle),
        }
    }
}

impl FileReply {
    /// As a request's: no answer carries more than a block.
    ///
    /// # Errors
    /// How much it carries.
    pub fn check(&self) -> Result<(), Flaw> {
        match self {
            Self::Contents(contents) => block(contents.data.len()),
            Self::Block(one) => block(one.data.len()),
            Self::Metadata(_)
            | Self::Written(_)
            | Self::Listing(_)
            | Self::DirectoryCreated(_)
            | Self::Removed(_)
            | Self::Copied(_)
            | Self::Renamed
            | Self::Canonical(_)
            | Self::Walked(_)
            | Self::WalkedOn(_)
            | Self::Opened(_)
            | Self::BlockWritten(_)
            | Self::Closed(_)
            | Self::Watching(_)
            | Self::Seen => Ok(()),
        }
    }
}
