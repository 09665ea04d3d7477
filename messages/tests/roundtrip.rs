//! Every message that can be written comes back as it was, with its context and its number.

#[allow(dead_code, reason = "every test binary uses another part of it")]
mod common;

use bytes::Bytes;
use dwell_messages::codec;
use dwell_messages::confinement::{ConfinedPath, Confinement, Reach};
use dwell_messages::error::{ErrorCode, WireError};
use dwell_messages::files::{
    Access, Await, Block, BlockWritten, Canonical, Canonicalize, Close, Closed as FileClosed, Contents,
    Copied, Copy, CreateDirectory, DirectoryCreated, DirectoryEntry, FileKind, FileReply, FileRequest,
    GetMetadata, Handle, Links, List, Listing, Metadata, Open, Opened, ReadBlock, ReadFile, Remove, Removed,
    Rename, WALK_MAX_DEPTH, WALK_MAX_DIRECTORIES, WALK_MAX_ENTRIES, WATCH_MAX_PATHS, Walk, WalkEntry,
    WalkError, WalkOn, WalkPage, Watch, Watching, WriteBlock, WriteFile, WriteHow, Written as FileWritten,
};
use dwell_messages::http::{
    self, BODY_MAX_BYTES, ExchangeId, HEADERS_MAX, HttpReply, HttpRequest, METHOD_MAX_BYTES, Redirects,
};
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
    AgentsFile, FindUp, FoundUp, Head, LoadCounts, OnError, Repository, Skill, SkillOwner, TEXT_MAX_BYTES,
    WorkspaceLoad, WorkspaceReply,
};
use dwell_messages::{
    Envelope, PackedSpans, Pong, Role, Span, SpanId, SpanKind, Timings, TraceContext, TraceFlags, TraceId,
    TraceState, Value,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

fn octets(most: usize) -> impl Strategy<Value = ByteBuf> {
    vec(any::<u8>(), 0..most).prop_map(ByteBuf::from)
}

fn argument() -> impl Strategy<Value = ByteBuf> {
    vec(1_u8.., 0..40).prop_map(ByteBuf::from)
}

fn name() -> impl Strategy<Value = ByteBuf> {
    let letter = (1_u8..).prop_filter("no '='", |byte| *byte != b'=');
    vec(letter, 1..20).prop_map(ByteBuf::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..600).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,30}"
}

fn context() -> impl Strategy<Value = TraceContext> {
    let state = proptest::option::of("[a-z][a-z0-9_*/@-]{0,9}=[!-+--<>-~]{1,9}");
    (any::<[u8; 16]>(), any::<[u8; 8]>(), 0_u8..2, state)
        .prop_filter("ids are never zero", |(trace, span, ..)| {
            *trace != [0; 16] && *span != [0; 8]
        })
        .prop_map(|(trace, span, flags, state)| {
            let mut context = TraceContext::new(TraceId(trace), SpanId(span), TraceFlags(flags));
            context.state = state.map(|state| TraceState::parse(&state).expect("valid by its making").into());
            context
        })
}

fn timings() -> impl Strategy<Value = Timings> {
    any::<[u64; 21]>().prop_map(|v| Timings {
        receive: v[0],
        open: v[1],
        decode: v[2],
        hand_off: v[3],
        mailbox: v[4],
        rpc_mailbox: v[5],
        dispatcher_mailbox: v[6],
        supervisor_mailbox: v[7],
        process_mailbox: v[8],
        delivery_mailbox: v[9],
        admission: v[10],
        dispatch: v[11],
        spawn_queue: v[12],
        spawn: v[13],
        first_byte: v[14],
        run: v[15],
        drain: v[16],
        handler: v[17],
        delivery: v[18],
        relay: v[19],
        total: v[20],
    })
}

fn stream() -> impl Strategy<Value = OutputStream> {
    prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)]
}

fn status() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        any::<i32>().prop_map(ExitStatus::Code),
        any::<i32>().prop_map(ExitStatus::Signal)
    ]
}

fn confinement() -> impl Strategy<Value = Confinement> {
    let reach = prop_oneof![Just(Reach::Read), Just(Reach::Write)];
    let path = (argument(), reach, any::<bool>()).prop_map(|(path, access, optional)| ConfinedPath {
        path,
        access,
        optional,
    });
    (any::<bool>(), vec(path, 0..4)).prop_map(|(network, paths)| Confinement { network, paths })
}

fn start() -> impl Strategy<Value = Start> {
    let inherit = prop_oneof![Just(Inherit::Core), Just(Inherit::All), Just(Inherit::None)];
    let patterns = (vec(octets(9), 0..3), vec(octets(9), 0..3), any::<bool>());
    let set = (vec((name(), argument()), 0..5), vec(octets(9), 0..4));
    let environment =
        (inherit, patterns, set).prop_map(|(inherit, (include, exclude, secrets), (set, unset))| {
            EnvironmentPolicy {
                inherit,
                include,
                exclude,
                secrets,
                set,
                unset,
            }
        });
    let more = (
        pty(),
        limits(),
        drain(),
        proptest::option::of(any::<u64>()),
        any::<[bool; 2]>(),
        (
            prop_oneof![Just(Overflow::Block), Just(Overflow::Ring)],
            proptest::option::of(any::<u64>()),
        ),
    );
    let rest = (
        any::<bool>(),
        any::<u64>(),
        any::<u32>(),
        proptest::option::of(octets(27)),
        proptest::option::of(argument()),
        proptest::option::of(confinement()),
    );
    (
        vec(argument(), 0..6),
        proptest::option::of(argument()),
        environment,
        rest,
        more,
    )
        .prop_map(
            |(
                argv,
                cwd,
                env,
                (stdin, credit, grace_ms, launch, program, confinement),
                (pty, limits, drain, retention_bytes, [outlive, unattended], (overflow, spool_bytes)),
            )| Start {
                argv,
                program,
                confinement,
                cwd,
                env,
                stdin,
                pty,
                limits,
                drain,
                retention_bytes,
                overflow,
                spool_bytes,
                outlive,
                unattended,
                credit,
                grace_ms,
                launch,
            },
        )
}

fn size() -> impl Strategy<Value = TerminalSize> {
    any::<(u16, u16)>().prop_map(|(rows, columns)| TerminalSize { rows, columns })
}

fn pty() -> impl Strategy<Value = Option<Pty>> {
    proptest::option::of((size(), "[a-z0-9-]{0,20}").prop_map(|(size, term)| Pty { size, term }))
}

fn limits() -> impl Strategy<Value = Limits> {
    any::<([Option<u64>; 7], Option<i8>)>().prop_map(|(v, nice)| Limits {
        wall_ms: v[0],
        open_files: v[1],
        address_space_bytes: v[2],
        processes: v[3],
        core_bytes: v[4],
        file_bytes: v[5],
        cpu_seconds: v[6],
        nice,
    })
}

fn drain() -> impl Strategy<Value = Option<Drain>> {
    any::<Option<(u32, u32)>>().prop_map(|drain| drain.map(|(idle_ms, total_ms)| Drain { idle_ms, total_ms }))
}

fn target() -> impl Strategy<Value = SignalTarget> {
    prop_oneof![
        Just(SignalTarget::Leader),
        Just(SignalTarget::Foreground),
        Just(SignalTarget::Tree)
    ]
}

fn ending() -> impl Strategy<Value = Option<Ending>> {
    proptest::option::of(prop_oneof![
        Just(Ending::Deadline),
        Just(Ending::Terminated),
        Just(Ending::Session)
    ])
}

fn usage() -> impl Strategy<Value = Option<Usage>> {
    any::<Option<[u64; 3]>>().prop_map(|usage| {
        usage.map(|[user_us, system_us, max_rss_bytes]| Usage {
            user_us,
            system_us,
            max_rss_bytes,
        })
    })
}

fn gap() -> impl Strategy<Value = Gap> {
    (stream(), any::<u64>(), any::<u64>()).prop_map(|(stream, from, to)| Gap { stream, from, to })
}

fn session() -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(any::<u64>())
}

fn path() -> impl Strategy<Value = ByteBuf> {
    argument().prop_map(|mut path| {
        path.insert(0, b'/');
        path
    })
}

fn links() -> impl Strategy<Value = Links> {
    prop_oneof![Just(Links::Follow), Just(Links::Keep), Just(Links::Refuse)]
}

fn handle() -> impl Strategy<Value = Handle> {
    (1_u64..).prop_map(Handle)
}

/// How something is written, and whether at once: what is appended to cannot be.
fn how() -> impl Strategy<Value = (WriteHow, bool)> {
    let how = prop_oneof![
        Just(WriteHow::Truncate),
        Just(WriteHow::Append),
        Just(WriteHow::Exclusive)
    ];
    (how, any::<bool>()).prop_map(|(how, atomic)| (how, atomic && how != WriteHow::Append))
}

fn file_request() -> BoxedStrategy<FileRequest> {
    let permissions = || proptest::option::of(any::<u32>());
    let walk = (
        (handle(), path()),
        0..=WALK_MAX_DEPTH,
        1..=WALK_MAX_DIRECTORIES,
        1..=WALK_MAX_ENTRIES,
        any::<[bool; 3]>(),
    );
    let access = prop_oneof![
        any::<bool>().prop_map(|atomic| (Access::Read, atomic)),
        how().prop_map(|(how, atomic)| (Access::Write(how), atomic)),
    ];
    prop_oneof![
        (path(), links()).prop_map(|(path, links)| FileRequest::Metadata(GetMetadata { path, links })),
        (path(), any::<u64>(), any::<u32>(), links()).prop_map(|(path, offset, max_bytes, links)| {
            FileRequest::Read(ReadFile {
                path,
                offset,
                max_bytes,
                links,
            })
        }),
        (path(), data(), how(), permissions(), any::<bool>(), links()).prop_map(
            |(path, data, (how, atomic), permissions, sync, links)| FileRequest::Write(WriteFile {
                path,
                data,
                how,
                permissions,
                atomic,
                sync,
                links
            })
        ),
        (path(), octets(20), 1_u32.., any::<bool>()).prop_map(|(path, after, max_entries, resolve)| {
            FileRequest::List(List {
                path,
                after,
                max_entries,
                resolve,
            })
        }),
        (path(), any::<bool>(), permissions(), links()).prop_map(|(path, parents, permissions, links)| {
            FileRequest::CreateDirectory(CreateDirectory {
                path,
                parents,
                permissions,
                links,
            })
        }),
        (path(), any::<[bool; 2]>(), links()).prop_map(|(path, [recursive, force], links)| {
            FileRequest::Remove(Remove {
                path,
                recursive,
                force,
                links,
            })
        }),
        (path(), path(), any::<[bool; 2]>(), links()).prop_map(
            |(from, to, [recursive, overwrite], links)| {
                FileRequest::Copy(Copy {
                    from,
                    to,
                    recursive,
                    overwrite,
                    links,
                })
            }
        ),
        (path(), path(), any::<bool>()).prop_map(|(from, to, overwrite)| FileRequest::Rename(Rename {
            from,
            to,
            overwrite
        })),
        path().prop_map(|path| FileRequest::Canonicalize(Canonicalize { path })),
        walk.prop_map(|((handle, path), max_depth, max_directories, max_entries, is)| {
            FileRequest::Walk(Walk {
                handle,
                path,
                max_depth,
                max_directories,
                max_entries,
                follow: is[0],
                prune_hidden: is[1],
                ignore_files: is[2],
            })
        }),
        handle().prop_map(|handle| FileRequest::WalkOn(WalkOn { handle })),
        (handle(), path(), access, permissions(), any::<bool>(), links()).prop_map(
            |(handle, path, (access, atomic), permissions, sync, links)| FileRequest::Open(Open {
                handle,
                path,
                access,
                permissions,
                atomic,
                sync,
                links
            })
        ),
        (handle(), any::<u64>(), 1_u32..).prop_map(|(handle, offset, max_bytes)| {
            FileRequest::ReadBlock(ReadBlock {
                handle,
                offset,
                max_bytes,
            })
        }),
        (handle(), any::<u64>(), data())
            .prop_map(|(handle, offset, data)| FileRequest::WriteBlock(WriteBlock { handle, offset, data })),
        (handle(), any::<bool>()).prop_map(|(handle, discard)| FileRequest::Close(Close { handle, discard })),
        (
            handle(),
            vec(path(), 1..WATCH_MAX_PATHS),
            proptest::option::of(path())
        )
            .prop_map(|(handle, missing, present)| FileRequest::Watch(Watch {
                handle,
                missing,
                present
            })),
        handle().prop_map(|handle| FileRequest::Await(Await { handle })),
    ]
    .boxed()
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        Just(FileKind::File),
        Just(FileKind::Directory),
        Just(FileKind::Symlink),
        Just(FileKind::Other)
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    (kind(), any::<[u64; 3]>(), any::<u32>(), any::<i64>()).prop_map(
        |(kind, [size, device, inode], mode, modified_unix_ns)| Metadata {
            kind,
            size,
            mode,
            modified_unix_ns,
            device,
            inode,
        },
    )
}

fn walk_page() -> impl Strategy<Value = WalkPage> {
    let entry =
        (octets(30), kind(), any::<bool>()).prop_map(|(path, kind, link)| WalkEntry { path, kind, link });
    let error =
        (octets(30), any::<u16>(), proptest::option::of(any::<i32>())).prop_map(|(path, code, errno)| {
            WalkError {
                path,
                code: ErrorCode::from(code),
                errno,
            }
        });
    (vec(entry, 0..6), vec(error, 0..3), any::<[bool; 2]>()).prop_map(
        |(entries, errors, [end, truncated])| WalkPage {
            entries,
            errors,
            end,
            truncated,
        },
    )
}

fn file_reply() -> BoxedStrategy<FileReply> {
    let entry = (octets(20), kind()).prop_map(|(name, kind)| DirectoryEntry { name, kind });
    prop_oneof![
        metadata().prop_map(FileReply::Metadata),
        (data(), any::<bool>(), metadata()).prop_map(|(data, end, metadata)| FileReply::Contents(Contents {
            data,
            end,
            metadata
        })),
        metadata().prop_map(|metadata| FileReply::Written(FileWritten { metadata })),
        (vec(entry, 0..6), any::<bool>())
            .prop_map(|(entries, end)| FileReply::Listing(Listing { entries, end })),
        any::<bool>().prop_map(|created| FileReply::DirectoryCreated(DirectoryCreated { created })),
        any::<u64>().prop_map(|entries| FileReply::Removed(Removed { entries })),
        any::<[u64; 2]>().prop_map(|[entries, bytes]| FileReply::Copied(Copied { entries, bytes })),
        Just(FileReply::Renamed),
        octets(40).prop_map(|path| FileReply::Canonical(Canonical { path })),
        walk_page().prop_map(FileReply::Walked),
        walk_page().prop_map(FileReply::WalkedOn),
        metadata().prop_map(|metadata| FileReply::Opened(Opened { metadata })),
        (data(), any::<bool>()).prop_map(|(data, end)| FileReply::Block(Block { data, end })),
        any::<u64>().prop_map(|offset| FileReply::BlockWritten(BlockWritten { offset })),
        proptest::option::of(metadata()).prop_map(|metadata| FileReply::Closed(FileClosed { metadata })),
        any::<bool>().prop_map(|watching| FileReply::Watching(Watching { watching })),
        Just(FileReply::Seen),
    ]
    .boxed()
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        10 => process_request(),
        10 => file_request().prop_map(|file| Request::File(Box::new(file))),
        5 => http_request().prop_map(|http| Request::Http(Box::new(http))),
    ]
}

fn http_request() -> impl Strategy<Value = HttpRequest> {
    let exchange = || (1_u64..).prop_map(ExchangeId);
    let sent = (text(), octets(40), proptest::option::of(text())).prop_map(|(name, value, variable)| {
        http::SentHeader {
            name,
            value,
            variable,
        }
    });
    let redirects = prop_oneof![Just(Redirects::Follow), Just(Redirects::Stop)];
    let method = "[A-Z]{0,64}".prop_filter("short enough", |method| method.len() <= METHOD_MAX_BYTES);
    let open = (
        exchange(),
        method,
        text(),
        vec(sent, 0..HEADERS_MAX.min(6)),
        redirects,
        proptest::option::of(any::<u64>()),
        (data(), 0..BODY_MAX_BYTES / 2),
    )
        .prop_map(
            |(exchange, method, url, headers, redirects, timeout_ms, (data, more))| {
                HttpRequest::Open(Box::new(http::Open {
                    exchange,
                    method,
                    url,
                    headers,
                    redirects,
                    timeout_ms,
                    body_bytes: data.len() as u64 + more,
                    data,
                }))
            },
        );
    prop_oneof![
        open,
        (exchange(), data()).prop_map(|(exchange, data)| HttpRequest::Send(http::Send { exchange, data })),
        (exchange(), 1_u32..)
            .prop_map(|(exchange, max_bytes)| HttpRequest::Read(http::Read { exchange, max_bytes })),
        exchange().prop_map(|exchange| HttpRequest::Close(http::Close { exchange })),
    ]
}

fn http_reply() -> impl Strategy<Value = HttpReply> {
    let header = (text(), octets(40)).prop_map(|(name, value)| http::Header { name, value });
    prop_oneof![
        (any::<u16>(), vec(header, 0..6))
            .prop_map(|(status, headers)| HttpReply::Head(http::Head { status, headers })),
        Just(HttpReply::Sent),
        (data(), any::<bool>()).prop_map(|(data, end)| HttpReply::Body(http::Body { data, end })),
        Just(HttpReply::Closed),
    ]
}

fn process_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::EnvironmentInfo),
        start().prop_map(|start| Request::Start(Box::new(start))),
        (any::<u64>(), data(), any::<bool>()).prop_map(|(offset, data, eof)| Request::Write(Write {
            offset,
            data,
            eof
        })),
        (any::<i32>(), target(), session()).prop_map(|(signal, target, session)| {
            Request::Signal(Signal {
                signal,
                target,
                session,
            })
        }),
        size().prop_map(|size| Request::Resize(Resize { size })),
        workspaces(),
        (any::<u32>(), session())
            .prop_map(|(grace_ms, session)| Request::Terminate(Terminate { grace_ms, session })),
        any::<[u64; 2]>().prop_map(|[session, process]| {
            Request::Sessions(ListSessions {
                after: Cursor { session, process },
            })
        }),
        (any::<u64>(), any::<u32>(), any::<u32>(), session()).prop_map(
            |(after, max_bytes, wait_ms, session)| {
                Request::Read(Read {
                    after,
                    max_bytes,
                    wait_ms,
                    session,
                })
            }
        ),
    ]
}

fn file_name() -> impl Strategy<Value = ByteBuf> {
    vec(1_u8.., 1..20).prop_map(ByteBuf::from)
}

fn workspaces() -> impl Strategy<Value = Request> {
    let policy = prop_oneof![Just(OnError::Propagate), Just(OnError::Ignore)];
    let find = (argument(), vec(file_name(), 0..4), policy).prop_map(|(from, markers, on_error)| {
        Request::FindUp(FindUp {
            from,
            markers,
            on_error,
        })
    });
    let option = || proptest::option::of(argument());
    let names = || vec(file_name(), 0..4);
    let load = (
        option(),
        names(),
        names(),
        names(),
        names(),
        option(),
        0..TEXT_MAX_BYTES,
    )
        .prop_map(
            |(cwd, markers, agents, skills, user_skills, home, text_max_bytes)| {
                Request::WorkspaceLoad(Box::new(WorkspaceLoad {
                    cwd,
                    markers,
                    agents,
                    skills,
                    user_skills,
                    home,
                    text_max_bytes,
                }))
            },
        );
    prop_oneof![find, load]
}

fn workspace() -> impl Strategy<Value = Reply> {
    let found = (
        proptest::option::of(argument()),
        any::<[u32; 3]>(),
        proptest::option::of(any::<u32>()),
    )
        .prop_map(|(root, [visited, probed, ignored], marker)| {
            Reply::FoundUp(FoundUp {
                root,
                marker,
                visited,
                probed,
                ignored,
            })
        });
    let agents = (argument(), text(), any::<bool>()).prop_map(|(path, text, truncated)| AgentsFile {
        path,
        text,
        truncated,
    });
    let skill = (
        argument(),
        text(),
        text(),
        vec((text(), text()), 0..3),
        any::<bool>(),
    )
        .prop_map(|(path, name, description, metadata, user)| Skill {
            path,
            name,
            description,
            metadata,
            owner: if user {
                SkillOwner::User
            } else {
                SkillOwner::Project
            },
        });
    let head = (proptest::option::of(text()), proptest::option::of(text()))
        .prop_map(|(branch, commit)| Head { branch, commit });
    let repository = (
        argument(),
        proptest::option::of(head),
        proptest::option::of(any::<bool>()),
    )
        .prop_map(|(root, head, dirty)| Repository { root, head, dirty });
    let loaded = (
        argument(),
        vec(agents, 0..3),
        vec(skill, 0..3),
        proptest::option::of(repository),
        proptest::option::of(error()),
        any::<[u32; 6]>(),
    )
        .prop_map(|(cwd, agents, skills, repository, agents_error, counts)| {
            Reply::Workspace(Box::new(WorkspaceReply {
                cwd,
                agents,
                skills,
                repository,
                agents_error,
                warnings_dropped: counts[0],
                counts: LoadCounts {
                    probed: counts[1],
                    read: counts[2],
                    listed: counts[3],
                    hint_used: counts[4],
                    hint_rejected: counts[5],
                },
                ..WorkspaceReply::default()
            }))
        });
    prop_oneof![found, loaded]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<u64>(), stream(), any::<[u64; 2]>()).prop_map(|(event, stream, [from, to])| {
            Event::Gap(Skipped {
                event,
                stream,
                from,
                to,
            })
        }),
        (any::<u64>(), stream(), any::<u64>(), data()).prop_map(|(event, stream, offset, data)| {
            Output {
                event,
                stream,
                offset,
                data,
            }
            .into()
        }),
        (
            any::<[u64; 3]>(),
            status(),
            any::<(bool, Option<bool>)>(),
            usage(),
            ending()
        )
            .prop_map(
                |([event, stdout_end, stderr_end], status, (core_dumped, oom_killed), usage, ending)| {
                    Exited {
                        event,
                        status,
                        core_dumped,
                        oom_killed,
                        usage,
                        ending,
                        stdout_end,
                        stderr_end,
                    }
                    .into()
                }
            ),
        (
            any::<[u64; 3]>(),
            proptest::option::of(status()),
            any::<(bool, u32)>(),
            timings()
        )
            .prop_map(
                |([event, stdout_end, stderr_end], status, (drained, holders), timings)| {
                    Closed {
                        event,
                        status,
                        stdout_end,
                        stderr_end,
                        drained,
                        holders,
                        timings,
                    }
                    .into()
                }
            ),
    ]
}

fn environment() -> impl Strategy<Value = EnvironmentInfo> {
    let shell = proptest::option::of(text());
    (
        any::<[u8; 4]>(),
        octets(40),
        shell,
        any::<u32>(),
        vec(text(), 0..4),
        text(),
    )
        .prop_map(
            |(seed, cwd, shell, cpus, capabilities, hostname)| EnvironmentInfo {
                os: format!("os{}", seed[0]),
                arch: format!("arch{}", seed[1]),
                hostname,
                version: format!("{}.{}", seed[2], seed[3]),
                cwd,
                shell,
                cpus,
                capabilities,
            },
        )
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        10 => process_reply(),
        10 => file_reply().prop_map(Reply::File),
        5 => http_reply().prop_map(Reply::Http),
    ]
}

fn process_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        environment().prop_map(Reply::EnvironmentInfo),
        (any::<u32>(), text(), vec(text(), 0..4)).prop_map(|(pid, containment, withheld)| {
            let containment = Containment {
                executor_death: ExecutorDeath::from(containment.clone()),
                tree: TreeHold::from(containment),
            };
            Reply::Started(Started {
                pid,
                containment,
                withheld,
            })
        }),
        any::<u64>().prop_map(|offset| Reply::Written(Written { offset })),
        Just(Reply::Signalled),
        Just(Reply::Resized),
        sessions().prop_map(Reply::Sessions),
        workspace(),
        any::<(u32, u32)>()
            .prop_map(|(killed, unkillable)| Reply::Terminated(Terminated { killed, unkillable })),
        (
            vec(event(), 0..5),
            any::<u64>(),
            any::<[bool; 3]>(),
            vec(gap(), 0..3)
        )
            .prop_map(
                |(events, next, [closed, truncated, ended], gaps)| Reply::Read(ReadReply {
                    events,
                    next,
                    closed,
                    truncated,
                    gaps,
                    ended,
                })
            ),
    ]
}

fn process_entry() -> impl Strategy<Value = ProcessEntry> {
    (
        (any::<u64>(), text(), any::<u32>(), any::<u64>()),
        proptest::option::of(status()),
        any::<[bool; 3]>(),
        any::<[u64; 2]>(),
        any::<[u64; 2]>(),
    )
        .prop_map(
            |((process, program, pid, started_unix_ms), status, [closed, tty, stdin], written, kept)| {
                ProcessEntry {
                    process,
                    program,
                    pid,
                    started_unix_ms,
                    status,
                    closed,
                    written,
                    kept,
                    tty,
                    stdin,
                }
            },
        )
}

fn sessions() -> impl Strategy<Value = SessionList> {
    let cursor = any::<[u64; 2]>().prop_map(|[session, process]| Cursor { session, process });
    let entry = (
        any::<[u64; 4]>(),
        any::<[u8; 32]>(),
        any::<[bool; 2]>(),
        vec(process_entry(), 0..3),
    )
        .prop_map(
            |([session, owner, since_unix_ms, begun_unix_ms], grant, [connected, silent], processes)| {
                SessionEntry {
                    session,
                    grant: ByteBuf::from(grant.to_vec()),
                    owner,
                    connected,
                    since_unix_ms,
                    begun_unix_ms,
                    silent,
                    processes,
                }
            },
        );
    (vec(entry, 0..3), any::<u64>(), proptest::option::of(cursor)).prop_map(
        |(sessions, now_unix_ms, next)| SessionList {
            sessions,
            now_unix_ms,
            next,
        },
    )
}

fn error() -> impl Strategy<Value = WireError> {
    let number = proptest::option::of(any::<u64>());
    (
        any::<u16>(),
        text(),
        proptest::option::of(any::<i32>()),
        number.clone(),
        number,
    )
        .prop_map(|(code, message, errno, limit, actual)| WireError {
            code: ErrorCode::from(code),
            message,
            errno,
            limit,
            actual,
        })
}

fn span() -> impl Strategy<Value = Span> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        proptest::num::f64::NORMAL.prop_map(Value::F64),
        text().prop_map(|text| Value::Str(text.into())),
    ];
    let kind = prop_oneof![
        Just(SpanKind::Internal),
        Just(SpanKind::Client),
        Just(SpanKind::Server)
    ];
    let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<[u8; 8]>());
    let link = proptest::option::of(any::<[u8; 8]>());
    let attributes = vec((text(), value), 0..5);
    (
        ids,
        text(),
        kind,
        any::<[u64; 2]>(),
        attributes,
        link,
        proptest::option::of(text()),
    )
        .prop_map(
            |((trace_id, span_id, parent), name, kind, [start, end], attributes, link, error)| Span {
                trace_id,
                span_id,
                parent,
                name: name.into(),
                kind,
                start_unix_ns: start,
                end_unix_ns: end,
                attributes: attributes
                    .into_iter()
                    .map(|(key, value)| (key.into(), value))
                    .collect(),
                link,
                error: error.map(Into::into),
            },
        )
}

fn records() -> impl Strategy<Value = TraceRecords> {
    let role = prop_oneof![Just(Role::Harness), Just(Role::Executor), Just(Role::Relay)];
    let also = vec(any::<u64>(), 0..4);
    let spans = vec(span(), 0..4);
    (role, spans, any::<u64>(), any::<bool>(), also).prop_map(|(role, spans, dropped, last, also)| {
        TraceRecords {
            role,
            spans: PackedSpans::pack(&spans).expect("a few spans have room"),
            dropped,
            last,
            also,
        }
    })
}

fn resume() -> impl Strategy<Value = Resume> {
    let progress = (any::<u64>(), any::<[u64; 2]>(), any::<[u64; 2]>())
        .prop_map(|(process, next, limit)| Progress { process, next, limit });
    (
        (any::<u64>(), any::<[u8; 32]>()),
        any::<[u64; 2]>(),
        any::<u64>(),
        vec(progress, 0..5),
        any::<bool>(),
    )
        .prop_map(
            |((session, token), [owner, link], received, processes, whole)| Resume {
                session,
                token: ByteBuf::from(token.to_vec()),
                owner,
                link,
                received,
                processes,
                whole,
            },
        )
}

fn message() -> impl Strategy<Value = Message> {
    let id = || (1_u64..).prop_map(RequestId);
    let process = || (1_u64..).prop_map(ProcessId);
    let result = prop_oneof![reply().prop_map(Ok), error().prop_map(Err)];
    prop_oneof![
        6 => (id(), process(), request()).prop_map(|(id, process, request)| Message::Request {
            id,
            process: (!matches!(request, Request::EnvironmentInfo | Request::Sessions(_) | Request::File(_) | Request::Http(_)))
                .then_some(process),
            request,
        }),
        6 => (id(), result, timings())
            .prop_map(|(id, result, timings)| Message::Response { id, result, timings }),
        3 => (process(), event()).prop_map(|(process, event)| Message::Event { process, event }),
        1 => id().prop_map(Message::Cancel),
        1 => (any::<u64>(), vec(process(), 0..5))
            .prop_map(|(received, released)| Message::Ack { received, released }),
        1 => resume().prop_map(|resume| Message::Resume(Box::new(resume))),
        1 => (any::<[u64; 5]>(), any::<bool>()).prop_map(|([owner, received, from, requests, processes], anew)| Message::Resumed(Resumed { owner, received, from, anew, requests, processes })),
        1 => (error(), any::<u64>())
            .prop_map(|(error, owner)| Message::ResumeRefused(ResumeRefused { error, owner })),
        1 => (process(), stream(), any::<u64>())
            .prop_map(|(process, stream, limit)| Message::Credit { process, stream, limit }),
        1 => any::<u64>().prop_map(Message::Ping),
        1 => any::<[u64; 2]>().prop_map(|[value, unix_ns]| Message::Pong(Pong { value, unix_ns })),
        1 => text().prop_map(Message::Goodbye),
        2 => (process(), records())
            .prop_map(|(process, records)| Message::TraceRecords { process, records }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_message_comes_back_as_it_was(
        message in message(), context in context(), sequence in any::<u64>(),
    ) {
        let envelope = Envelope::new(context, message);
        let bytes = codec::encode(&envelope, sequence).unwrap();
        let decoded = codec::decode(&bytes).unwrap();
        prop_assert_eq!(decoded.message.kind(), envelope.body.kind());
        prop_assert_eq!(decoded.trailer.is_some(), envelope.body.has_trailer());
        prop_assert_eq!(decoded.message, envelope.body);
        prop_assert_eq!(decoded.context, Some(envelope.context));
        prop_assert_eq!((decoded.sequence, decoded.context_malformed), (sequence, false));
    }

    #[test]
    fn packed_spans_come_back_as_they_were(spans in vec(span(), 0..40), shared in any::<[u8; 8]>()) {
        // Spans of one call name each other, and share a trace: half of these do.
        let mut spans = spans;
        for at in (1..spans.len()).step_by(2) {
            let (trace_id, parent) = (spans[at - 1].trace_id, spans[at - 1].span_id);
            spans[at] = Span { trace_id, parent, link: Some(shared), ..spans[at].clone() };
        }
        let packed = PackedSpans::pack(&spans).unwrap();
        prop_assert_eq!(packed.is_empty(), spans.is_empty());
        prop_assert_eq!(packed.unpack(), Ok(spans));
    }

    #[test]
    fn the_handshakes_payloads_come_back_as_they_were(
        timestamp_ms in any::<u64>(), authorization in octets(4_097),
        epoch in any::<[u8; 16]>(), session in any::<u64>(), grant in any::<[u8; 32]>(), unix_ns in any::<u64>(), environment in environment(),
    ) {
        let hello = Hello { timestamp_ms, authorization };
        prop_assert_eq!(Hello::decode(&hello.encode().unwrap()), Ok(hello));
        let welcome = Welcome {
            epoch: ByteBuf::from(epoch.to_vec()), session, grant: ByteBuf::from(grant.to_vec()), unix_ns, environment,
        };
        prop_assert_eq!(Welcome::decode(&welcome.encode().unwrap()), Ok(welcome));
    }
}

/// The positive control of the strategies: they reach every kind.
#[test]
fn the_strategies_make_every_kind() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut missing: Vec<MessageKind> = MessageKind::ALL.to_vec();
    for _ in 0..2_000 {
        let kind = message().new_tree(&mut runner).unwrap().current().kind();
        missing.retain(|other| *other != kind);
    }
    assert_eq!(missing, []);
}
