//! Files. Paths are URIs; `sandbox` says what confines the operation, and is looked at and never into. Fields stand in
//! their positional order.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::blob::Blob;

fn yes() -> bool {
    true
}

/// Absent and `null` are the same: links are followed.
fn follows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<bool>::deserialize(deserializer).map(|said| said.unwrap_or_else(yes))
}

/// Reads a whole file.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadFile {
    /// Which.
    pub path: String,
    /// Whether a link is followed.
    #[serde(default = "yes", deserialize_with = "follows")]
    pub follow_symlinks: bool,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// A file's bytes.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileContents {
    /// They.
    pub data_base64: Blob,
}

/// Writes a whole file.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteFile {
    /// Which.
    pub path: String,
    /// What; judged apart, because it has an error of its own.
    pub data_base64: String,
    /// Whether a link is followed.
    #[serde(default = "yes", deserialize_with = "follows")]
    pub follow_symlinks: bool,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// Contents stay out of logs.
impl std::fmt::Debug for WriteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteFile").finish_non_exhaustive()
    }
}

/// Makes a directory.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateDirectory {
    /// Which.
    pub path: String,
    /// Whether those above it are made too, and one that is there is good.
    #[serde(default)]
    pub recursive: Option<bool>,
    /// Whether links on the way are followed.
    #[serde(default = "yes", deserialize_with = "follows")]
    pub follow_symlinks: bool,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// Asks what a path leads to.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMetadata {
    /// Which.
    pub path: String,
    /// Whether links are followed.
    #[serde(default = "yes", deserialize_with = "follows")]
    pub follow_symlinks: bool,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// A directory.
    pub is_directory: bool,
    /// A regular file.
    pub is_file: bool,
    /// The path itself is a link.
    pub is_symlink: bool,
    /// Bytes.
    pub size: u64,
    /// In Unix milliseconds; 0: not known.
    pub created_at_ms: i64,
    /// In Unix milliseconds.
    pub modified_at_ms: i64,
}

/// Asks for a path without links.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Canonicalize {
    /// Which.
    pub path: String,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// A path without links.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Canonical {
    /// It.
    pub path: String,
}

/// Asks for a directory's names.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct ReadDirectory {
    /// Which.
    pub path: String,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// A directory's names, in no order.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct DirectoryEntries {
    /// They.
    pub entries: Vec<DirectoryItem>,
}

/// One name. What it is is said of what a link leads to.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryItem {
    /// The name.
    pub file_name: String,
    /// A directory.
    pub is_directory: bool,
    /// A regular file.
    pub is_file: bool,
}

/// Lists a tree.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Walk {
    /// Its root.
    pub path: String,
    /// How far.
    pub options: WalkOptions,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// How far a tree is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WalkOptions {
    /// 0: the root's children.
    pub max_depth: u64,
    /// Directories that are read.
    pub max_directories: u64,
    /// Names that are listed.
    pub max_entries: u64,
    /// Whether links to directories are followed.
    pub follow_directory_symlinks: bool,
    /// Whether directories whose name begins with a dot are not entered.
    #[serde(default)]
    pub prune_hidden_directories: bool,
}

impl WalkOptions {
    /// The most that may be asked for.
    pub const MAX_DEPTH: u64 = 64;
    /// The most that may be asked for.
    pub const MAX_DIRECTORIES: u64 = 10_000;
    /// The most that may be asked for.
    pub const MAX_ENTRIES: u64 = 50_000;
}

/// A tree.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
pub struct Walked {
    /// Names, breadth first.
    pub entries: Vec<WalkEntry>,
    /// What could not be read.
    pub errors: Vec<WalkError>,
    /// Whether there is more.
    pub truncated: bool,
}

/// One name of a tree.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct WalkEntry {
    /// Its path, as URI.
    pub path: String,
    /// What it is.
    pub kind: WalkKind,
}

/// What is listed of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WalkKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// What could not be read of a tree.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct WalkError {
    /// Its path, as URI.
    pub path: String,
    /// Why.
    pub message: String,
}

/// Removes something.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    /// What.
    pub path: String,
    /// Whether a directory goes with all that is in it; absent: yes.
    #[serde(default)]
    pub recursive: Option<bool>,
    /// Whether what is missing is no error; absent: yes.
    #[serde(default)]
    pub force: Option<bool>,
    /// Whether links on the way are followed.
    #[serde(default = "yes", deserialize_with = "follows")]
    pub follow_symlinks: bool,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// Copies something.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Copy {
    /// What.
    pub source_path: String,
    /// To where.
    pub destination_path: String,
    /// Whether a directory goes with all that is in it.
    pub recursive: bool,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenMode {
    /// To be read.
    #[default]
    Read,
    /// Made anew or emptied, to be written.
    Replace,
}

/// Opens a file.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenFile {
    /// What its client calls it.
    pub handle_id: String,
    /// Which.
    pub path: String,
    /// How.
    #[serde(default)]
    pub mode: OpenMode,
    /// What confines it.
    #[serde(default)]
    pub sandbox: Option<Value>,
}

/// It is open.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenedFile {
    /// As its client calls it.
    pub handle_id: String,
}

/// Reads a block of an open file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadBlock {
    /// Which file.
    pub handle_id: String,
    /// Where.
    pub offset: u64,
    /// How much, 1 to `BLOCK_MAX_BYTES`.
    pub len: u64,
}

/// A block of a file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct FileBlock {
    /// The bytes.
    pub chunk: Blob,
    /// Whether there were fewer than asked for.
    pub eof: bool,
}

/// Writes a block of an open file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteBlock {
    /// Which file.
    pub handle_id: String,
    /// Where.
    pub offset: u64,
    /// What, 1 to `BLOCK_MAX_BYTES`.
    pub chunk: Blob,
}

/// Closes an open file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CloseFile {
    /// Which; one that is not open is no error.
    pub handle_id: String,
}

/// Asks to be told when one of several paths appears.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchMissing {
    /// Grows with each watch of a connection.
    pub watch_id: u64,
    /// The paths, as URIs.
    pub missing: Vec<String>,
    /// A path that is there, as URI: what becomes of it is told too.
    #[serde(default)]
    pub present: Option<String>,
}

/// Whether it is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Watching {
    /// Whether it is.
    pub watching: bool,
}

/// One of the paths has appeared, or what is there has changed. It may have been something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingChanged {
    /// Of which watch.
    pub watch_id: u64,
}
