//! Repository facts: the nearest `.git` above the directory, and what is checked out, read from git's own files.
//!
//! No git is run and no library of git's is used: they read a local disk, and this reads any environment's. Whether
//! anything is changed is not looked for here, since that takes a look at every file.

use dwell_messages::workspace::{Head, LoadCounts, OnError, Repository};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

use super::git::{self, Reference, SYMBOLIC_DEPTH_MAX};
use super::hint::HintCounts;
use super::loader::{Loader, Notes, Span};
use crate::find_up::{is_absence, path};

/// What marks a repository: a directory, or a file that points to one.
const GIT: &[u8] = b".git";
/// Most bytes of `HEAD`, of a pointer and of a loose reference.
const SMALL_MAX_BYTES: usize = 8 * 1024;
/// Most bytes of `packed-refs`: some thousand references.
const PACKED_MAX_BYTES: usize = dwell_messages::files::BLOCK_MAX_BYTES;

/// The repository, as it was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepositoryLoaded {
    /// The facts, where there is one.
    pub repository: Option<Repository>,
    pub(super) notes: Notes,
    pub(super) counts: LoadCounts,
}

/// Why it is not known what is checked out.
enum Unknown {
    Failed(Vec<u8>, WireError),
    Odd(Vec<u8>, &'static str),
}

impl Loader<'_> {
    /// Looks for it, and when that was.
    pub async fn repository(&self) -> (RepositoryLoaded, Span) {
        let (mut loaded, span) = self.timed(self.repository_facts()).await;
        loaded.counts = self.counts(HintCounts::default());
        (loaded, span)
    }

    async fn repository_facts(&self) -> RepositoryLoaded {
        let mut loaded = RepositoryLoaded::default();
        let found = match self.search(&[GIT], OnError::Ignore).await {
            Ok(found) => found,
            Err(error) => {
                loaded.notes.failed(&self.plan.cwd, &error);
                return loaded;
            }
        };
        let Some(root) = found.root else {
            return loaded;
        };
        let head = match self.head(&root).await {
            Ok(head) => Some(head),
            Err(Unknown::Failed(path, error)) => {
                loaded.notes.failed(&path, &error);
                None
            }
            Err(Unknown::Odd(path, problem)) => {
                loaded.notes.note(ErrorCode::BadRequest, &path, problem);
                None
            }
        };
        loaded.repository = Some(Repository {
            root: ByteBuf::from(root),
            head,
            dirty: None,
        });
        loaded
    }

    async fn head(&self, root: &[u8]) -> Result<Head, Unknown> {
        let git = path::join(root, GIT);
        let inside = path::join(&git, b"HEAD");
        // Nearly always a directory: its `HEAD` is asked for along with it.
        let (pointer, head) = tokio::join!(self.small(&git), self.small(&inside));
        match pointer {
            Ok(bytes) => {
                let to = git::pointer(&bytes);
                let to = to.ok_or_else(|| Unknown::Odd(git.clone(), "the file `.git` points nowhere"))?;
                self.linked_head(&path::join(root, to)).await
            }
            // Whether it is a directory is said by whether there is something in it.
            Err(_) => {
                let head = head.map_err(|error| Unknown::Failed(inside.clone(), error))?;
                self.resolve(&git, &inside, &head).await
            }
        }
    }

    /// Of a worktree or a submodule: its own `HEAD`, and references that it may share with others.
    async fn linked_head(&self, git: &[u8]) -> Result<Head, Unknown> {
        let (inside, common) = (path::join(git, b"HEAD"), path::join(git, b"commondir"));
        let (head, shared) = tokio::join!(self.small(&inside), self.small(&common));
        let head = head.map_err(|error| Unknown::Failed(inside.clone(), error))?;
        let shared = match &shared {
            Ok(bytes) => path::join(git, bytes.trim_ascii()),
            Err(_) => git.to_vec(),
        };
        self.resolve(&shared, &inside, &head).await
    }

    /// Follows what `HEAD` says to a commit.
    async fn resolve(&self, git: &[u8], from: &[u8], head: &[u8]) -> Result<Head, Unknown> {
        let odd = |path: &[u8], problem| Unknown::Odd(path.to_vec(), problem);
        let mut at = from.to_vec();
        let mut holds = git::reference(head);
        let mut branch = None;
        for _ in 0..SYMBOLIC_DEPTH_MAX {
            let name = match holds {
                Some(Reference::Commit(commit)) => {
                    return Ok(Head {
                        branch,
                        commit: Some(commit),
                    });
                }
                Some(Reference::Symbolic(name)) => name,
                None => return Err(odd(&at, "this is neither a commit nor a reference")),
            };
            // Where references are kept in another format, this stands in for them.
            if name == "refs/heads/.invalid" {
                return Err(odd(
                    &at,
                    "the references are kept in a format that is not read here",
                ));
            }
            branch.get_or_insert_with(|| git::branch(&name).to_owned());
            let (loose, packed) = (path::join(git, name.as_bytes()), path::join(git, b"packed-refs"));
            let (read, table) = tokio::join!(self.small(&loose), self.front(&packed, PACKED_MAX_BYTES));
            holds = match read {
                Ok(bytes) => git::reference(&bytes),
                Err(error) if is_absence(error.code) || error.code == ErrorCode::IsADirectory => {
                    return match table {
                        Ok(front) => match git::packed(&front.bytes, &name) {
                            None if !front.whole => Err(odd(&packed, "there are too many packed references")),
                            commit => Ok(Head { branch, commit }),
                        },
                        Err(error) if is_absence(error.code) => Ok(Head { branch, commit: None }),
                        Err(error) => Err(Unknown::Failed(packed, error)),
                    };
                }
                Err(error) => return Err(Unknown::Failed(loose, error)),
            };
            at = loose;
        }
        Err(odd(&at, "references lead to each other"))
    }

    async fn small(&self, path: &[u8]) -> Result<bytes::Bytes, WireError> {
        self.front(path, SMALL_MAX_BYTES).await.map(|front| front.bytes)
    }
}
