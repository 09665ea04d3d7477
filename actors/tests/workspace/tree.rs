//! A file system in memory that counts, delays, denies, and loses directories while somebody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::files::{FileAnswer, FileSystem, Front};
use dwell_messages::files::{DirectoryEntry, FileKind, Metadata};
use dwell_messages::workspace::WorkspaceLoad;
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

const LINKS_MAX: usize = 40;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Node {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// What it was asked.
#[derive(Clone, Default, Debug)]
pub(crate) struct Asked {
    pub(crate) metadata: Vec<Vec<u8>>,
    pub(crate) read: Vec<Vec<u8>>,
    pub(crate) listed: Vec<Vec<u8>>,
    pub(crate) in_flight: usize,
    pub(crate) in_flight_max: usize,
}

type Delay = Box<dyn Fn(&[u8]) -> Duration + Send + Sync>;

pub(crate) struct Tree {
    identity: String,
    nodes: Mutex<BTreeMap<Vec<u8>, Node>>,
    /// Directories in which nothing can be looked up.
    denied: BTreeSet<Vec<u8>>,
    /// What is gone from that metadata call on.
    vanishing: Vec<(usize, Vec<u8>)>,
    delay: Option<Delay>,
    asked: Mutex<Asked>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self {
            identity: "here".into(),
            nodes: Mutex::new(BTreeMap::from([(b"/".to_vec(), Node::Directory)])),
            denied: BTreeSet::new(),
            vanishing: Vec::new(),
            delay: None,
            asked: Mutex::default(),
        }
    }

    pub(crate) fn called(mut self, identity: &str) -> Self {
        self.identity = identity.into();
        self
    }

    /// Each answer takes as long as this says.
    pub(crate) fn delayed(mut self, delay: impl Fn(&[u8]) -> Duration + Send + Sync + 'static) -> Self {
        self.delay = Some(Box::new(delay));
        self
    }

    pub(crate) fn deny(mut self, directory: &[u8]) -> Self {
        self.denied.insert(directory.to_vec());
        self
    }

    pub(crate) fn vanish(mut self, from_call: usize, path: &[u8]) -> Self {
        self.vanishing.push((from_call, path.to_vec()));
        self
    }

    fn put(&self, path: &[u8], node: Node) {
        let mut nodes = self.nodes.lock().unwrap();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').skip(1) {
            nodes.entry(path[..at].to_vec()).or_insert(Node::Directory);
        }
        nodes.insert(path.to_vec(), node);
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.put(path.as_bytes(), Node::Directory);
        self
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content);
        self
    }

    pub(crate) fn link(self, path: &str, to: &str) -> Self {
        self.put(path.as_bytes(), Node::Link(to.as_bytes().to_vec()));
        self
    }

    /// One of git's, with a commit checked out and no branch.
    pub(crate) fn repository(self, path: &str) -> Self {
        self.file(&format!("{path}/.git/HEAD"), "0".repeat(40))
    }

    /// Also while others look.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.put(path.as_bytes(), Node::File(content.as_ref().to_vec()));
    }

    pub(crate) fn asked(&self) -> Asked {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        *self.asked.lock().unwrap() = Asked::default();
    }

    /// Probes for that name.
    pub(crate) fn probes_of(&self, name: &str) -> usize {
        let asked = self.asked();
        let end = format!("/{name}");
        asked
            .metadata
            .iter()
            .filter(|path| path.ends_with(end.as_bytes()))
            .count()
    }

    /// Where a path leads, links followed.
    fn resolve(&self, path: &[u8]) -> Result<(Vec<u8>, Node), WireError> {
        let nodes = self.nodes.lock().unwrap();
        let mut links = 0;
        let mut at = Vec::new();
        let mut rest: Vec<Vec<u8>> = split(path);
        rest.reverse();
        while let Some(name) = rest.pop() {
            let here = if at.is_empty() { b"/".to_vec() } else { at.clone() };
            match nodes.get(&here) {
                Some(Node::Directory) => {}
                Some(_) => return Err(error(ErrorCode::NotADirectory)),
                None => return Err(error(ErrorCode::NotFound)),
            }
            if self.denied.contains(&here) {
                return Err(error(ErrorCode::AccessDenied));
            }
            if name == b".." {
                at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let mut next = at.clone();
            next.push(b'/');
            next.extend_from_slice(&name);
            match nodes.get(&next) {
                None => return Err(error(ErrorCode::NotFound)),
                Some(Node::Link(to)) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(error(ErrorCode::SymlinkLoop));
                    }
                    if to.first() == Some(&b'/') {
                        at.clear();
                    }
                    rest.extend(split(to).into_iter().rev());
                }
                Some(Node::Directory | Node::File(_)) => at = next,
            }
        }
        if at.is_empty() {
            at.push(b'/');
        }
        let node = nodes
            .get(&at)
            .cloned()
            .ok_or_else(|| error(ErrorCode::NotFound))?;
        Ok((at, node))
    }

    /// What the next metadata call says, without a delay.
    pub(crate) fn look(&self, path: &[u8]) -> Result<Metadata, WireError> {
        let call = {
            let mut asked = self.asked.lock().unwrap();
            asked.metadata.push(path.to_vec());
            asked.metadata.len() - 1
        };
        for (_, gone) in self.vanishing.iter().filter(|(from, _)| *from <= call) {
            let mut below = gone.clone();
            below.push(b'/');
            let mut nodes = self.nodes.lock().unwrap();
            nodes.retain(|path, _| path != gone && !path.starts_with(&below));
        }
        let (_, node) = self.resolve(path)?;
        let (kind, size) = match node {
            Node::Directory => (FileKind::Directory, 0),
            Node::File(content) => (FileKind::File, content.len() as u64),
            Node::Link(_) => (FileKind::Symlink, 0),
        };
        Ok(Metadata {
            kind,
            size,
            mode: 0o755,
            modified_unix_ns: 0,
            device: 1,
            inode: 1,
        })
    }

    fn content(&self, path: &[u8]) -> Result<Bytes, WireError> {
        self.asked.lock().unwrap().read.push(path.to_vec());
        match self.resolve(path)?.1 {
            Node::File(content) => Ok(content.into()),
            Node::Directory | Node::Link(_) => Err(error(ErrorCode::IsADirectory)),
        }
    }

    fn entries(&self, path: &[u8], max: usize) -> Result<Vec<DirectoryEntry>, WireError> {
        self.asked.lock().unwrap().listed.push(path.to_vec());
        let (at, node) = self.resolve(path)?;
        if node != Node::Directory {
            return Err(error(ErrorCode::NotADirectory));
        }
        if self.denied.contains(&at) {
            return Err(error(ErrorCode::AccessDenied));
        }
        let mut under = at;
        if under.last() != Some(&b'/') {
            under.push(b'/');
        }
        let nodes = self.nodes.lock().unwrap();
        let entries: Vec<_> = nodes
            .iter()
            .filter_map(|(path, node)| Some((path.strip_prefix(&under[..])?, node)))
            .filter(|(name, _)| !name.is_empty() && !name.contains(&b'/'))
            .map(|(name, node)| DirectoryEntry {
                name: ByteBuf::from(name.to_vec()),
                kind: match node {
                    Node::Directory => FileKind::Directory,
                    Node::File(_) => FileKind::File,
                    Node::Link(_) => FileKind::Symlink,
                },
            })
            .collect();
        if entries.len() > max {
            return Err(error(ErrorCode::TooLarge));
        }
        Ok(entries)
    }

    fn answer<'a, T: Send + 'a>(&'a self, path: &'a [u8], answer: Result<T, WireError>) -> FileAnswer<'a, T> {
        let under_way = UnderWay::new(&self.asked);
        let delay = self.delay.as_ref().map(|delay| delay(path));
        Box::pin(async move {
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            drop(under_way);
            answer
        })
    }
}

struct UnderWay<'a>(&'a Mutex<Asked>);

impl<'a> UnderWay<'a> {
    fn new(asked: &'a Mutex<Asked>) -> Self {
        let mut guard = asked.lock().unwrap();
        guard.in_flight += 1;
        guard.in_flight_max = guard.in_flight_max.max(guard.in_flight);
        drop(guard);
        Self(asked)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().in_flight -= 1;
    }
}

fn split(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

pub(crate) fn error(code: ErrorCode) -> WireError {
    WireError::new(code, "as the test has it")
}

impl FileSystem for Tree {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        let answer = self.look(path);
        self.answer(path, answer)
    }

    fn read<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Bytes> {
        let answer = self.content(path).and_then(|content| {
            let fits = content.len() as u64 <= max_bytes;
            fits.then_some(content).ok_or_else(|| error(ErrorCode::TooLarge))
        });
        self.answer(path, answer)
    }

    fn front<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Front> {
        let answer = self.content(path).map(|mut bytes| {
            let whole = bytes.len() as u64 <= max_bytes;
            bytes.truncate(max_bytes as usize);
            Front { bytes, whole }
        });
        self.answer(path, answer)
    }

    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        let answer = self.entries(path, max_entries);
        self.answer(path, answer)
    }
}

/// What most tests load.
pub(crate) fn usual(cwd: &str) -> WorkspaceLoad {
    let names = |names: &[&str]| names.iter().map(|name| ByteBuf::from(name.as_bytes())).collect();
    WorkspaceLoad {
        cwd: Some(ByteBuf::from(cwd.as_bytes())),
        markers: names(&[".git"]),
        agents: names(&["AGENTS.override.md", "AGENTS.md"]),
        skills: names(&[".agents/skills"]),
        user_skills: names(&[".agents/skills"]),
        home: Some(ByteBuf::from(&b"/home/user"[..])),
        text_max_bytes: 128 * 1024,
    }
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
