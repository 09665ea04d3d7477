//! One sample of every message, filled in everywhere, for the tests that need real bytes.

use bytes::Bytes;
use dwell_messages::error::{ErrorCode, WireError};
use dwell_messages::files::{
    Access, Await, Block, BlockWritten, Canonical, Canonicalize, Close, Closed as FileClosed, Contents,
    Copied, Copy, CreateDirectory, DirectoryCreated, DirectoryEntry, FileKind, FileReply, FileRequest,
    GetMetadata, Handle, Links, List, Listing, Metadata, Open, Opened, ReadBlock, ReadFile, Remove, Removed,
    Rename, Walk, WalkEntry, WalkError, WalkOn, WalkPage, Watch, Watching, WriteBlock, WriteFile, WriteHow,
    Written as FileWritten,
};
use dwell_messages::http::{self, ExchangeId, HttpReply, HttpRequest, Redirects};
use dwell_messages::ids::{ProcessId, RequestId};
use dwell_messages::kinds::MessageKind;
use dwell_messages::message::{Message, Reply, Request, TraceRecords};
use dwell_messages::process::{
    Closed, Containment, Drain, Ending, EnvironmentPolicy, Event, ExecutorDeath, ExitStatus, Exited, Gap,
    Inherit, Limits, Output, OutputStream, Overflow, Pty, Read, ReadReply, Resize, Signal, SignalTarget,
    Skipped, Start, Started, TerminalSize, Terminate, Terminated, TreeHold, Usage, Write, Written,
};
use dwell_messages::session::{
    Cursor, EnvironmentInfo, Hello, ListSessions, ProcessEntry, Progress, Resume, ResumeRefused, Resumed,
    SessionEntry, SessionList, Welcome,
};
use dwell_messages::workspace::{
    AgentsFile, FindUp, FoundUp, Head, LoadCounts, LoadStages, OnError, Repository, Skill, SkillOwner,
    StageTime, Warning, WorkspaceLoad, WorkspaceReply,
};
use dwell_messages::{
    Envelope, PackedSpans, Pong, Role, Span, SpanId, SpanKind, Timings, TraceContext, Value,
};
use serde_bytes::ByteBuf;

/// The link's sequence number in every sample.
pub(crate) const SEQUENCE: u64 = 0x0102_0304_0506_0708;

pub(crate) fn context() -> TraceContext {
    TraceContext::from_traceparent(
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        Some("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
    )
    .expect("a valid traceparent")
}

pub(crate) fn envelope(kind: MessageKind) -> Envelope<Message> {
    Envelope::new(context(), message(kind))
}

pub(crate) fn encoded(kind: MessageKind) -> Bytes {
    dwell_messages::codec::encode(&envelope(kind), SEQUENCE).expect("a sample encodes")
}

pub(crate) fn message(kind: MessageKind) -> Message {
    let process = ProcessId(0x1122_3344_5566_7788);
    let event = |event| Message::Event { process, event };
    match kind {
        MessageKind::EnvironmentInfo => Message::Request {
            id: RequestId(7),
            process: None,
            request: Request::EnvironmentInfo,
        },
        MessageKind::Start => request(Request::Start(Box::new(start()))),
        MessageKind::Write => request(Request::Write(Write {
            offset: 70_000,
            data: Bytes::from_static(b"in\0put\xff"),
            eof: true,
        })),
        MessageKind::Signal => request(Request::Signal(Signal {
            signal: 15,
            target: SignalTarget::Tree,
            session: Some(12),
        })),
        MessageKind::Terminate => request(Request::Terminate(Terminate {
            grace_ms: 5_000,
            session: Some(13),
        })),
        MessageKind::Read => request(Request::Read(Read {
            after: 3,
            max_bytes: 1 << 20,
            wait_ms: 30_000,
            session: Some(11),
        })),
        MessageKind::EnvironmentInfoReply => response(Ok(Reply::EnvironmentInfo(environment()))),
        MessageKind::Started => response(Ok(Reply::Started(Started {
            pid: 4_242,
            containment: Containment {
                executor_death: ExecutorDeath::PidNamespace,
                tree: TreeHold::Other("something new".into()),
            },
            withheld: vec!["AWS_SECRET_ACCESS_KEY".into()],
        }))),
        MessageKind::Written => response(Ok(Reply::Written(Written { offset: 70_006 }))),
        MessageKind::Signalled => response(Ok(Reply::Signalled)),
        MessageKind::Terminated => response(Ok(Reply::Terminated(Terminated {
            killed: 3,
            unkillable: 1,
        }))),
        MessageKind::Resize => request(Request::Resize(Resize { size: size() })),
        MessageKind::Resized => response(Ok(Reply::Resized)),
        MessageKind::Sessions => Message::Request {
            id: RequestId(7),
            process: None,
            request: Request::Sessions(ListSessions {
                after: Cursor {
                    session: 76,
                    process: u64::MAX,
                },
            }),
        },
        MessageKind::SessionsReply => response(Ok(Reply::Sessions(sessions()))),
        MessageKind::FileMetadata
        | MessageKind::FileRead
        | MessageKind::FileWrite
        | MessageKind::FileList
        | MessageKind::FileCreateDirectory
        | MessageKind::FileRemove
        | MessageKind::FileCopy
        | MessageKind::FileRename
        | MessageKind::FileCanonicalize
        | MessageKind::FileWalk
        | MessageKind::FileWalkOn
        | MessageKind::FileOpen
        | MessageKind::FileReadBlock
        | MessageKind::FileWriteBlock
        | MessageKind::FileClose
        | MessageKind::FileWatch
        | MessageKind::FileAwait => Message::Request {
            id: RequestId(8),
            process: None,
            request: Request::File(Box::new(sample(file_requests(), |file| file.kind() == kind))),
        },
        MessageKind::HttpOpen | MessageKind::HttpSend | MessageKind::HttpRead | MessageKind::HttpClose => {
            Message::Request {
                id: RequestId(8),
                process: None,
                request: Request::Http(Box::new(sample(http_requests(), |http| http.kind() == kind))),
            }
        }
        MessageKind::HttpHead | MessageKind::HttpSent | MessageKind::HttpBody | MessageKind::HttpClosed => {
            response(Ok(Reply::Http(sample(http_replies(), |http| {
                http.kind() == kind
            }))))
        }
        MessageKind::FindUp => request(Request::FindUp(find_up())),
        MessageKind::WorkspaceLoad => request(Request::WorkspaceLoad(Box::new(workspace_load()))),
        MessageKind::FoundUp => response(Ok(Reply::FoundUp(FoundUp {
            root: Some(bytes(b"/home/agent/project")),
            marker: Some(1),
            visited: 3,
            probed: 8,
            ignored: 1,
        }))),
        MessageKind::WorkspaceLoaded => response(Ok(Reply::Workspace(Box::new(workspace_reply())))),
        MessageKind::FileMetadataReply
        | MessageKind::FileContents
        | MessageKind::FileWritten
        | MessageKind::FileListing
        | MessageKind::FileDirectoryCreated
        | MessageKind::FileRemoved
        | MessageKind::FileCopied
        | MessageKind::FileRenamed
        | MessageKind::FileCanonical
        | MessageKind::FileWalked
        | MessageKind::FileWalkedOn
        | MessageKind::FileOpened
        | MessageKind::FileBlock
        | MessageKind::FileBlockWritten
        | MessageKind::FileClosed
        | MessageKind::FileWatching
        | MessageKind::FileSeen => response(Ok(Reply::File(sample(file_replies(), |file| {
            file.kind() == kind
        })))),
        MessageKind::ReadReply => response(Ok(Reply::Read(ReadReply {
            events: vec![output().into(), exited().into(), closed().into()],
            next: 12,
            closed: true,
            truncated: true,
            gaps: vec![Gap {
                stream: OutputStream::Stderr,
                from: 5,
                to: 70_000,
            }],
            ended: true,
        }))),
        MessageKind::Error => response(Err(WireError::new(ErrorCode::SpawnFailed, "no such program")
            .with_errno(Some(2))
            .with_limit(10, 11))),
        MessageKind::Output => event(output().into()),
        MessageKind::Exited => event(exited().into()),
        MessageKind::Closed => event(closed().into()),
        MessageKind::Cancel => Message::Cancel(RequestId(9)),
        MessageKind::Ack => Message::Ack {
            received: u64::MAX,
            released: vec![process, ProcessId(3)],
        },
        MessageKind::Gap => event(Event::Gap(Skipped {
            event: 8,
            stream: OutputStream::Stderr,
            from: 300,
            to: 1 << 33,
        })),
        MessageKind::Resume => Message::Resume(Box::new(Resume {
            session: 77,
            token: bytes(&[0x60; 32]),
            owner: 2,
            link: 3,
            received: 40,
            processes: vec![Progress {
                process: process.0,
                next: [300, 0],
                limit: [1 << 20, 1 << 21],
            }],
            whole: true,
        })),
        MessageKind::Resumed => Message::Resumed(Resumed {
            owner: 2,
            received: 17,
            from: 38,
            anew: true,
            requests: 90,
            processes: 5,
        }),
        MessageKind::ResumeRefused => Message::ResumeRefused(ResumeRefused {
            error: WireError::new(ErrorCode::Superseded, "somebody else has it"),
            owner: 3,
        }),
        MessageKind::Credit => Message::Credit {
            process,
            stream: OutputStream::Stderr,
            limit: 1 << 20,
        },
        MessageKind::Ping => Message::Ping(1),
        MessageKind::Pong => Message::Pong(Pong {
            value: 128,
            unix_ns: 1_800_000_000_000_000_000,
        }),
        MessageKind::Goodbye => Message::Goodbye("shutting down".into()),
        MessageKind::TraceRecords => Message::TraceRecords {
            process,
            records: TraceRecords {
                role: Role::Executor,
                spans: PackedSpans::pack(&[span()]).expect("one span has room"),
                dropped: 2,
                last: true,
                also: vec![91, 1 << 40],
            },
        },
    }
}

fn sample<T>(samples: Vec<T>, is_wanted: impl FnMut(&T) -> bool) -> T {
    let mut wanted = samples.into_iter().filter(is_wanted);
    wanted.next().expect("every kind has a sample")
}

fn file_requests() -> Vec<FileRequest> {
    let path = || bytes(b"/src/\xff.rs");
    let handle = Handle(9);
    vec![
        FileRequest::Metadata(GetMetadata {
            path: path(),
            links: Links::Keep,
        }),
        FileRequest::Read(ReadFile {
            path: path(),
            offset: 1 << 33,
            max_bytes: 65_536,
            links: Links::Refuse,
        }),
        FileRequest::Write(WriteFile {
            path: path(),
            data: Bytes::from_static(b"a\0\xfe"),
            how: WriteHow::Exclusive,
            permissions: Some(0o640),
            atomic: true,
            sync: true,
            links: Links::Follow,
        }),
        FileRequest::List(List {
            path: path(),
            after: bytes(b"m\xfd"),
            max_entries: 100,
            resolve: true,
        }),
        FileRequest::CreateDirectory(CreateDirectory {
            path: path(),
            parents: true,
            permissions: Some(0o700),
            links: Links::Follow,
        }),
        FileRequest::Remove(Remove {
            path: path(),
            recursive: true,
            force: true,
            links: Links::Keep,
        }),
        FileRequest::Copy(Copy {
            from: path(),
            to: bytes(b"/b"),
            recursive: true,
            overwrite: true,
            links: Links::Keep,
        }),
        FileRequest::Rename(Rename {
            from: path(),
            to: bytes(b"/c"),
            overwrite: true,
        }),
        FileRequest::Canonicalize(Canonicalize { path: path() }),
        FileRequest::Walk(Walk {
            handle,
            path: path(),
            max_depth: 6,
            max_directories: 2_000,
            max_entries: 20_000,
            follow: true,
            prune_hidden: true,
            ignore_files: true,
        }),
        FileRequest::WalkOn(WalkOn { handle }),
        FileRequest::Open(Open {
            handle,
            path: path(),
            access: Access::Write(WriteHow::Truncate),
            permissions: Some(0o600),
            atomic: true,
            sync: true,
            links: Links::Keep,
        }),
        FileRequest::ReadBlock(ReadBlock {
            handle,
            offset: 1 << 34,
            max_bytes: 262_144,
        }),
        FileRequest::WriteBlock(WriteBlock {
            handle,
            offset: 1 << 35,
            data: Bytes::from_static(b"block\0"),
        }),
        FileRequest::Close(Close {
            handle,
            discard: true,
        }),
        FileRequest::Watch(Watch {
            handle,
            missing: vec![bytes(b"/src/.git"), bytes(b"/src/\xff")],
            present: Some(bytes(b"/src/a")),
        }),
        FileRequest::Await(Await { handle }),
    ]
}

fn http_requests() -> Vec<HttpRequest> {
    let exchange = ExchangeId(10);
    vec![
        HttpRequest::Open(Box::new(http::Open {
            exchange,
            method: "PURGE".into(),
            url: "https://example.org/a?b".into(),
            headers: vec![http::SentHeader {
                name: "Authorization".into(),
                value: bytes(b"Bearer \xff"),
                variable: Some("TOKEN".into()),
            }],
            redirects: Redirects::Stop,
            timeout_ms: Some(30_000),
            body_bytes: 1 << 20,
            data: Bytes::from_static(b"{\0}"),
        })),
        HttpRequest::Send(http::Send {
            exchange,
            data: Bytes::from_static(b"more\xfe"),
        }),
        HttpRequest::Read(http::Read {
            exchange,
            max_bytes: 262_144,
        }),
        HttpRequest::Close(http::Close { exchange }),
    ]
}

fn http_replies() -> Vec<HttpReply> {
    vec![
        HttpReply::Head(http::Head {
            status: 418,
            headers: vec![http::Header {
                name: "set-cookie".into(),
                value: bytes(b"a=\xff"),
            }],
        }),
        HttpReply::Sent,
        HttpReply::Body(http::Body {
            data: Bytes::from_static(b"part\0"),
            end: true,
        }),
        HttpReply::Closed,
    ]
}

fn metadata() -> Metadata {
    Metadata {
        kind: FileKind::File,
        size: 1 << 34,
        mode: 0o644,
        modified_unix_ns: -1_700_000_000_123_456_789,
        device: 64_769,
        inode: 1 << 40,
    }
}

fn walk_page() -> WalkPage {
    WalkPage {
        entries: vec![
            WalkEntry {
                path: bytes(b"src"),
                kind: FileKind::Directory,
                link: true,
            },
            WalkEntry {
                path: bytes(b"src/\xff"),
                kind: FileKind::Other,
                link: false,
            },
        ],
        errors: vec![WalkError {
            path: bytes(b"locked"),
            code: ErrorCode::AccessDenied,
            errno: Some(13),
        }],
        end: true,
        truncated: true,
    }
}

fn file_replies() -> Vec<FileReply> {
    vec![
        FileReply::Metadata(metadata()),
        FileReply::Contents(Contents {
            data: Bytes::from_static(b"text\0\xff"),
            end: true,
            metadata: metadata(),
        }),
        FileReply::Written(FileWritten { metadata: metadata() }),
        FileReply::Listing(Listing {
            entries: vec![DirectoryEntry {
                name: bytes(b"\xff"),
                kind: FileKind::Symlink,
            }],
            end: true,
        }),
        FileReply::DirectoryCreated(DirectoryCreated { created: true }),
        FileReply::Removed(Removed { entries: 300 }),
        FileReply::Copied(Copied {
            entries: 3,
            bytes: 1 << 33,
        }),
        FileReply::Renamed,
        FileReply::Canonical(Canonical {
            path: bytes(b"/real/\xff"),
        }),
        FileReply::Walked(walk_page()),
        FileReply::WalkedOn(walk_page()),
        FileReply::Opened(Opened { metadata: metadata() }),
        FileReply::Block(Block {
            data: Bytes::from_static(b"block\0"),
            end: true,
        }),
        FileReply::BlockWritten(BlockWritten { offset: 1 << 35 }),
        FileReply::Closed(FileClosed {
            metadata: Some(metadata()),
        }),
        FileReply::Watching(Watching { watching: true }),
        FileReply::Seen,
    ]
}

pub(crate) fn request(request: Request) -> Message {
    Message::Request {
        id: RequestId(8),
        process: Some(ProcessId(5)),
        request,
    }
}

fn response(result: Result<Reply, WireError>) -> Message {
    Message::Response {
        id: RequestId(8),
        result,
        timings: timings(),
    }
}

pub(crate) fn start() -> Start {
    Start {
        argv: vec![bytes(b"sh"), bytes(b"-c"), bytes(b"echo \xff=")],
        cwd: Some(bytes(b"/tmp/\xfe")),
        env: EnvironmentPolicy {
            inherit: Inherit::All,
            include: vec![bytes(b"LC_*")],
            exclude: vec![bytes(b"?")],
            secrets: true,
            set: vec![(bytes(b"LANG"), bytes(b"C=1"))],
            unset: vec![bytes(b"EDITOR")],
        },
        stdin: true,
        pty: Some(Pty {
            size: size(),
            term: "xterm-256color".into(),
        }),
        limits: Limits {
            wall_ms: Some(60_000),
            open_files: Some(256),
            address_space_bytes: Some(1 << 33),
            processes: Some(100),
            core_bytes: Some(0),
            file_bytes: Some(1 << 20),
            cpu_seconds: Some(30),
            nice: Some(-5),
        },
        drain: Some(Drain::default()),
        retention_bytes: Some(1 << 21),
        overflow: Overflow::Ring,
        spool_bytes: Some(1 << 24),
        confinement: None,
        program: None,
        outlive: true,
        unattended: true,
        credit: 262_144,
        grace_ms: 10_000,
        launch: Some(bytes(&[0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31])),
    }
}

fn size() -> TerminalSize {
    TerminalSize {
        rows: 50,
        columns: 132,
    }
}

fn output() -> Output {
    Output {
        event: 9,
        stream: OutputStream::Stdout,
        offset: 300,
        data: Bytes::from_static(b"hello\n\xc1"),
    }
}

fn exited() -> Exited {
    Exited {
        event: 10,
        status: ExitStatus::Code(-1),
        core_dumped: true,
        oom_killed: Some(false),
        usage: Some(Usage {
            user_us: 1_500,
            system_us: 700,
            max_rss_bytes: 3 << 20,
        }),
        ending: Some(Ending::Deadline),
        stdout_end: 307,
        stderr_end: 0,
    }
}

fn closed() -> Closed {
    Closed {
        event: 11,
        status: Some(ExitStatus::Signal(9)),
        stdout_end: 307,
        stderr_end: 0,
        drained: false,
        holders: 2,
        timings: timings(),
    }
}

fn timings() -> Timings {
    Timings {
        receive: 100,
        open: 30,
        decode: 20,
        hand_off: 1,
        mailbox: 200,
        rpc_mailbox: 60,
        dispatcher_mailbox: 50,
        supervisor_mailbox: 40,
        process_mailbox: 30,
        delivery_mailbox: 11,
        admission: 3,
        dispatch: 4,
        spawn_queue: 5,
        spawn: 600,
        first_byte: 700,
        run: 80_000,
        drain: 9,
        handler: 12,
        delivery: 10,
        relay: 13,
        total: 80_700,
    }
}

fn span() -> Span {
    Span {
        trace_id: context().trace_id.0,
        span_id: [2; 8],
        parent: SpanId([3; 8]).0,
        name: "process".into(),
        kind: SpanKind::Server,
        start_unix_ns: 1_700_000_000_000_000_000,
        end_unix_ns: 1_700_000_000_000_000_900,
        attributes: vec![
            ("flag".into(), Value::Bool(true)),
            ("depth".into(), Value::I64(-3)),
            ("ratio".into(), Value::F64(0.5)),
            ("program".into(), Value::Str("true".into())),
        ],
        link: Some([4; 8]),
        error: Some("spawn_failed".into()),
    }
}

fn sessions() -> SessionList {
    SessionList {
        sessions: vec![SessionEntry {
            session: 77,
            grant: bytes(&[0x60; 32]),
            owner: 2,
            connected: true,
            since_unix_ms: 1_700_000_000_456,
            begun_unix_ms: 1_700_000_000_123,
            silent: true,
            processes: vec![ProcessEntry {
                process: 5,
                program: "sh".into(),
                pid: 4_242,
                started_unix_ms: 1_700_000_000_200,
                status: Some(ExitStatus::Signal(9)),
                closed: true,
                written: [70_000, 12],
                kept: [4_464, 0],
                tty: true,
                stdin: true,
            }],
        }],
        now_unix_ms: 1_700_000_000_999,
        next: Some(Cursor {
            session: 77,
            process: 5,
        }),
    }
}

fn environment() -> EnvironmentInfo {
    EnvironmentInfo {
        os: "linux".into(),
        arch: "x86_64".into(),
        hostname: "builder".into(),
        version: "0.1.0".into(),
        cwd: bytes(b"/home/\xff"),
        shell: Some("/bin/sh".into()),
        cpus: 2,
        capabilities: vec!["pipes".into()],
    }
}

pub(crate) fn hello() -> Hello {
    Hello {
        timestamp_ms: 1_700_000_000_123,
        authorization: bytes(b"token"),
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        epoch: bytes(&[0xe0; 16]),
        session: 77,
        grant: bytes(&[0x60; 32]),
        unix_ns: 1_700_000_000_123_456_789,
        environment: environment(),
    }
}

pub(crate) fn bytes(bytes: &[u8]) -> ByteBuf {
    ByteBuf::from(bytes.to_vec())
}

/// A message as a faulty peer could write it: the header is right for `body`, whatever that is.
pub(crate) fn raw(kind: u8, id: u64, process: u64, body: &[u8]) -> Bytes {
    let mut bytes = vec![1, kind, 0, 0];
    bytes.extend(u32::try_from(body.len()).expect("a body of a test").to_be_bytes());
    bytes.extend(SEQUENCE.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(process.to_be_bytes());
    bytes.extend(context().encode());
    bytes.extend([0, 0]);
    bytes.extend(body);
    bytes.into()
}

fn find_up() -> FindUp {
    FindUp {
        from: bytes(b"/home/agent/project/src"),
        markers: vec![bytes(b".git"), bytes(b".hg")],
        on_error: OnError::Propagate,
    }
}

fn workspace_load() -> WorkspaceLoad {
    WorkspaceLoad {
        cwd: Some(bytes(b"/home/agent/project/src")),
        markers: vec![bytes(b".git")],
        agents: vec![bytes(b"AGENTS.override.md"), bytes(b"AGENTS.md")],
        skills: vec![bytes(b".agents/skills")],
        user_skills: vec![bytes(b".agents/skills")],
        home: Some(bytes(b"/home/agent")),
        text_max_bytes: 128 * 1024,
    }
}

fn workspace_reply() -> WorkspaceReply {
    let stage = |at_us| StageTime { at_us, took_us: 7 };
    WorkspaceReply {
        cwd: bytes(b"/home/agent/project/src"),
        root: Some(bytes(b"/home/agent/project")),
        agents: vec![AgentsFile {
            path: bytes(b"/home/agent/project/AGENTS.md"),
            text: "Be kind.".into(),
            truncated: true,
        }],
        agents_truncated: true,
        agents_error: Some(WireError::new(ErrorCode::AccessDenied, "not for you")),
        skills: vec![Skill {
            path: bytes(b"/home/agent/project/.agents/skills/a/SKILL.md"),
            name: "a".into(),
            description: "does a".into(),
            metadata: vec![("license".into(), "MIT".into())],
            owner: SkillOwner::Project,
        }],
        skills_truncated: true,
        repository: Some(Repository {
            root: bytes(b"/home/agent/project"),
            head: Some(Head {
                branch: Some("main".into()),
                commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
            }),
            dirty: Some(false),
        }),
        warnings: vec![Warning {
            code: ErrorCode::BadRequest,
            path: bytes(b"/home/agent/.agents/skills/b/SKILL.md"),
            message: "the skill has no name".into(),
        }],
        warnings_dropped: 2,
        stages: LoadStages {
            root_walk: stage(1),
            agents: stage(2),
            skills: stage(3),
            repository: stage(4),
        },
        counts: LoadCounts {
            probed: 5,
            read: 6,
            listed: 7,
            hint_used: 1,
            hint_rejected: 0,
        },
    }
}
