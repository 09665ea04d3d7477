//! The methods, and the parameters of each.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::capabilities::{DiscoverCapabilities, DiscoverRoots, ReadEnvironmentConfig};
use super::fault::Fault;
use super::files::{
    Canonicalize, CloseFile, Copy, CreateDirectory, GetMetadata, OpenFile, ReadBlock, ReadDirectory,
    ReadFile, Remove, Walk, WatchMissing, WriteBlock, WriteFile,
};
use super::http::HttpRequest;
use super::process::{Read, Signal, Start, Terminate, Write};
use super::session::Initialize;

/// What a client says once it has the answer to `initialize`. The only notification it may send.
pub const INITIALIZED: &str = "initialized";

/// Names of what an executor tells unasked.
pub mod notification {
    /// A process wrote.
    pub const OUTPUT: &str = "process/output";
    /// A process ended.
    pub const EXITED: &str = "process/exited";
    /// Nothing follows of a process.
    pub const CLOSED: &str = "process/closed";
    /// A path that was missing may be there.
    pub const MISSING_CHANGED: &str = "fs/missingChanged";
    /// A piece of an HTTP body.
    pub const BODY_DELTA: &str = "http/request/bodyDelta";
}

/// What a method is about, as refusals name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// The session itself.
    Session,
    /// The environment.
    EnvironmentInfo,
    /// Whether it is ready.
    EnvironmentStatus,
    /// Processes.
    Exec,
    /// Files.
    Filesystem,
    /// HTTP.
    Http,
    /// Configuration.
    Configuration,
    /// Plugins and skills.
    Capabilities,
}

impl Group {
    /// Its name in refusals.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::EnvironmentInfo => "environment info",
            Self::EnvironmentStatus => "environment status",
            Self::Exec => "exec",
            Self::Filesystem => "filesystem",
            Self::Http => "http",
            Self::Configuration => "environment config",
            Self::Capabilities => "capability discovery",
        }
    }
}

macro_rules! methods {
    ($($name:ident = $word:literal in $group:ident,)*) => {
        /// A method.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Method {
            $(
                #[doc = concat!("`", $word, "`.")]
                $name,
            )*
        }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// By its name.
            pub fn of(name: &str) -> Option<Self> {
                match name {
                    $($word => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// What it is about.
            pub fn group(self) -> Group {
                match self {
                    $(Self::$name => Group::$group,)*
                }
            }
        }
    };
}

methods! {
    Initialize = "initialize" in Session,
    EnvironmentInfo = "environment/info" in EnvironmentInfo,
    EnvironmentStatus = "environment/status" in EnvironmentStatus,
    ReadEnvironmentConfig = "environmentConfig/read" in Configuration,
    DiscoverRoots = "capabilityRoots/discoverV1" in Capabilities,
    DiscoverCapabilities = "capabilities/discoverV2" in Capabilities,
    Start = "process/start" in Exec,
    Read = "process/read" in Exec,
    Write = "process/write" in Exec,
    Signal = "process/signal" in Exec,
    Terminate = "process/terminate" in Exec,
    ReadFile = "fs/readFile" in Filesystem,
    WriteFile = "fs/writeFile" in Filesystem,
    CreateDirectory = "fs/createDirectory" in Filesystem,
    GetMetadata = "fs/getMetadata" in Filesystem,
    Canonicalize = "fs/canonicalize" in Filesystem,
    ReadDirectory = "fs/readDirectory" in Filesystem,
    Walk = "fs/walk" in Filesystem,
    Remove = "fs/remove" in Filesystem,
    Copy = "fs/copy" in Filesystem,
    OpenFile = "fs/open" in Filesystem,
    ReadBlock = "fs/readBlock" in Filesystem,
    WriteBlock = "fs/writeBlock" in Filesystem,
    CloseFile = "fs/close" in Filesystem,
    WatchMissing = "fs/watchMissing" in Filesystem,
    Http = "http/request" in Http,
}

/// A request with its parameters.
#[derive(Clone, PartialEq, Debug)]
pub enum Call {
    /// Begins a session.
    Initialize(Initialize),
    /// What the environment is.
    EnvironmentInfo,
    /// Whether it is ready.
    EnvironmentStatus,
    /// Parts of configuration files.
    ReadEnvironmentConfig(ReadEnvironmentConfig),
    /// What is below some directories.
    DiscoverRoots(DiscoverRoots),
    /// What is there for a directory.
    DiscoverCapabilities(DiscoverCapabilities),
    /// Starts a process.
    Start(Box<Start>),
    /// What a process has told.
    Read(Read),
    /// Writes to it.
    Write(Write),
    /// Signals it.
    Signal(Signal),
    /// Ends it.
    Terminate(Terminate),
    /// Reads a file.
    ReadFile(ReadFile),
    /// Writes one.
    WriteFile(WriteFile),
    /// Makes a directory.
    CreateDirectory(CreateDirectory),
    /// What a path leads to.
    GetMetadata(GetMetadata),
    /// A path without links.
    Canonicalize(Canonicalize),
    /// Names in a directory.
    ReadDirectory(ReadDirectory),
    /// Names in a tree.
    Walk(Walk),
    /// Removes something.
    Remove(Remove),
    /// Copies something.
    Copy(Copy),
    /// Opens a file.
    OpenFile(OpenFile),
    /// Reads from it.
    ReadBlock(ReadBlock),
    /// Writes to it.
    WriteBlock(WriteBlock),
    /// Closes it.
    CloseFile(CloseFile),
    /// Watches for what is missing.
    WatchMissing(WatchMissing),
    /// An HTTP request.
    Http(Box<HttpRequest>),
}

impl Call {
    /// The parameters of a method: an object, or an array with all of them in their order. Of a few the last may be
    /// missing there too.
    ///
    /// # Errors
    /// They are not those of that method.
    pub fn decode(method: Method, params: Value) -> Result<Self, Fault> {
        Ok(match method {
            Method::Initialize => Self::Initialize(read(filled(params, 2), 2)?),
            Method::EnvironmentInfo => nothing(&params).map(|()| Self::EnvironmentInfo)?,
            Method::EnvironmentStatus => nothing(&params).map(|()| Self::EnvironmentStatus)?,
            Method::ReadEnvironmentConfig => Self::ReadEnvironmentConfig(read(params, 3)?),
            Method::DiscoverRoots => Self::DiscoverRoots(read(params, 1)?),
            Method::DiscoverCapabilities => Self::DiscoverCapabilities(read(filled(params, 2), 2)?),
            Method::Start => Self::Start(Box::new(start(params)?)),
            Method::Read => Self::Read(read(params, 4)?),
            Method::Write => Self::Write(write(params)?),
            Method::Signal => Self::Signal(read(params, 2)?),
            Method::Terminate => Self::Terminate(read(params, 1)?),
            Method::ReadFile => Self::ReadFile(read(params, 3)?),
            Method::WriteFile => Self::WriteFile(read(params, 4)?),
            Method::CreateDirectory => Self::CreateDirectory(read(params, 4)?),
            Method::GetMetadata => Self::GetMetadata(read(params, 3)?),
            Method::Canonicalize => Self::Canonicalize(read(params, 2)?),
            Method::ReadDirectory => Self::ReadDirectory(read(params, 2)?),
            Method::Walk => Self::Walk(read(params, 3)?),
            Method::Remove => Self::Remove(read(params, 5)?),
            Method::Copy => Self::Copy(read(params, 4)?),
            Method::OpenFile => Self::OpenFile(read(params, 4)?),
            Method::ReadBlock => Self::ReadBlock(read(params, 3)?),
            Method::WriteBlock => Self::WriteBlock(read(params, 3)?),
            Method::CloseFile => Self::CloseFile(read(params, 1)?),
            Method::WatchMissing => Self::WatchMissing(read(params, 3)?),
            Method::Http => Self::Http(Box::new(http(params)?)),
        })
    }

    /// Its method.
    pub fn method(&self) -> Method {
        match self {
            Self::Initialize(_) => Method::Initialize,
            Self::EnvironmentInfo => Method::EnvironmentInfo,
            Self::EnvironmentStatus => Method::EnvironmentStatus,
            Self::ReadEnvironmentConfig(_) => Method::ReadEnvironmentConfig,
            Self::DiscoverRoots(_) => Method::DiscoverRoots,
            Self::DiscoverCapabilities(_) => Method::DiscoverCapabilities,
            Self::Start(_) => Method::Start,
            Self::Read(_) => Method::Read,
            Self::Write(_) => Method::Write,
            Self::Signal(_) => Method::Signal,
            Self::Terminate(_) => Method::Terminate,
            Self::ReadFile(_) => Method::ReadFile,
            Self::WriteFile(_) => Method::WriteFile,
            Self::CreateDirectory(_) => Method::CreateDirectory,
            Self::GetMetadata(_) => Method::GetMetadata,
            Self::Canonicalize(_) => Method::Canonicalize,
            Self::ReadDirectory(_) => Method::ReadDirectory,
            Self::Walk(_) => Method::Walk,
            Self::Remove(_) => Method::Remove,
            Self::Copy(_) => Method::Copy,
            Self::OpenFile(_) => Method::OpenFile,
            Self::ReadBlock(_) => Method::ReadBlock,
            Self::WriteBlock(_) => Method::WriteBlock,
            Self::CloseFile(_) => Method::CloseFile,
            Self::WatchMissing(_) => Method::WatchMissing,
            Self::Http(_) => Method::Http,
        }
    }
}

/// The longest name that a client may give to a process, a write, an HTTP request, or a request as such.
pub const ID_MAX_BYTES: usize = 1_024;

/// A name of a client's, which is kept as long as what it names.
fn named(what: &str, id: &str) -> Result<(), Fault> {
    if id.len() <= ID_MAX_BYTES {
        return Ok(());
    }
    let text = format!("{what} has at most {ID_MAX_BYTES} bytes, not {}", id.len());
    Err(Fault::invalid_params(text))
}

/// Parameters with so many fields.
fn read<T: DeserializeOwned>(params: Value, fields: usize) -> Result<T, Fault> {
    if let Value::Array(array) = &params
        && array.len() != fields
    {
        let text = format!("invalid length {}, expected {fields} elements", array.len());
        return Err(Fault::invalid_params(text));
    }
    serde_json::from_value(params).map_err(|error| Fault::invalid_params(error.to_string()))
}

/// Parameters whose last one may be missing where they are an array, too.
fn filled(mut params: Value, fields: usize) -> Value {
    if let Value::Array(array) = &mut params
        && array.len() + 1 == fields
    {
        array.push(Value::Null);
    }
    params
}

/// Parameters of a method that has none.
fn nothing(params: &Value) -> Result<(), Fault> {
    match params {
        Value::Null => Ok(()),
        Value::Object(members) if members.is_empty() => Ok(()),
        Value::Object(_) => Err(Fault::invalid_params("invalid type: map, expected unit")),
        Value::Array(_) => Err(Fault::invalid_params("invalid type: sequence, expected unit")),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(Fault::invalid_params("invalid type, expected unit"))
        }
    }
}

fn start(params: Value) -> Result<Start, Fault> {
    let start: Start = read(params, 14)?;
    if start.argv.is_empty() {
        return Err(Fault::invalid_params("argv must not be empty"));
    }
    named("processId", &start.process_id)?;
    Ok(start)
}

/// Its last field may be missing where it is an array, too.
fn http(mut params: Value) -> Result<HttpRequest, Fault> {
    if let Value::Array(array) = &mut params
        && array.len() == 7
    {
        array.push(Value::Bool(false));
    }
    let request: HttpRequest = read(params, 8)?;
    named("requestId", &request.request_id)?;
    Ok(request)
}

fn write(params: Value) -> Result<Write, Fault> {
    let write: Write = read(params, 3)?;
    if write.write_id.is_empty() {
        return Err(Fault::invalid_params("writeId must not be empty"));
    }
    named("writeId", &write.write_id)?;
    Ok(write)
}
