//! Every name that telemetry uses for a span or an attribute, and the conventions they follow.
//!
//! Where OpenTelemetry's semantic conventions have a word, it is theirs, as of [`SCHEMA_URL`]: `rpc.*`, `process.*`,
//! `error.type`, `service.*`, `host.*`, `os.*`. What they have no word for is below `dwell.`, never in a namespace of
//! theirs: a wait in a mailbox above all, for which they have no span. The account of a call is below `chain.`
//! (`account`, `waterfall`), and what is known of a clock below `clock.`, as trace files have had them from the start.
//!
//! Kinds: an RPC's spans are CLIENT and SERVER, a process's span is CLIENT (whoever runs a program is its client),
//! everything within one machine is INTERNAL, residence in mailboxes first. Never PRODUCER or CONSUMER: back ends make
//! queues of a broker out of these. Status: unset on success, error with `error.type` on failure. A command that ends
//! with another code than 0 is an error of its process's span and of no other: the RPC did what it was asked.
//!
//! Nothing else in this crate spells these names; a test holds that.

/// The version of the conventions that resource and scope name.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.45.0";

/// Our instrumentation scope.
pub const SCOPE: &str = "dwell";

// Resources.

/// Which role, and of which program unless the environment says otherwise.
pub const SERVICE_NAME: &str = "service.name";
/// This crate's version.
pub const SERVICE_VERSION: &str = "service.version";
/// Random, of one life of one role: two executors on one machine are two instances.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// The processor's architecture.
pub const HOST_ARCH: &str = "host.arch";
/// The operating system's family.
pub const OS_TYPE: &str = "os.type";
/// A process's number: of the role in its resource, of a command in its span.
pub const PROCESS_PID: &str = "process.pid";
/// `harness`, `executor` or `relay`.
pub const ROLE: &str = "dwell.role";
/// Microseconds by which the maker's wall clock is ahead of the harness's.
pub const CLOCK_OFFSET_US: &str = "clock.offset_us";
/// The most, in microseconds, by which that estimate can be wrong.
pub const CLOCK_ERROR_US: &str = "clock.error_us";

// Failures.

/// What kind of failure, of low cardinality.
pub const ERROR_TYPE: &str = "error.type";
/// The system's number of it, where there is one.
pub const ERRNO: &str = "dwell.errno";

// RPC.

/// Always [`RPC_SYSTEM`].
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// Service and method, or [`OTHER`].
pub const RPC_METHOD: &str = "rpc.method";
/// What stood for a method that is not known: its number.
pub const RPC_METHOD_ORIGINAL: &str = "rpc.method_original";
/// [`RPC_OK`], or the error's name as in `error.type`.
pub const RPC_STATUS_CODE: &str = "rpc.status_code";
/// A request's number within its session.
pub const RPC_REQUEST_ID: &str = "dwell.rpc.request_id";
/// The executor's whole account of a request, in microseconds.
pub const RPC_EXECUTOR_US: &str = "dwell.rpc.executor_us";
/// The executor's mailboxes among it.
pub const RPC_EXECUTOR_MAILBOX_US: &str = "dwell.rpc.executor_mailbox_us";
/// `rpc.system.name` of our spans.
pub const RPC_SYSTEM: &str = "dwell";
/// Of requests in the JSON dialect.
pub const RPC_SYSTEM_JSON: &str = "jsonrpc";
/// `rpc.status_code` of a request that was done.
pub const RPC_OK: &str = "ok";
/// Stands for every name that is not of ours.
pub const OTHER: &str = "_OTHER";

/// `error.type` of what nobody waits for any more.
pub const CANCELLED: &str = "cancelled";
/// 1 where a repository was found, else 0.
pub const REPOSITORY_FOUND: &str = "dwell.repository.found";
/// Probes that looking for it took.
pub const REPOSITORY_PROBES: &str = "dwell.repository.probes";

// Metrics of RPCs; those of ours are in `metrics`.

/// Duration of outbound requests, in seconds.
pub const RPC_CLIENT_DURATION: &str = "rpc.client.call.duration";
/// Duration of inbound requests, in seconds.
pub const RPC_SERVER_DURATION: &str = "rpc.server.call.duration";

// Mailboxes.

/// A residence or turn span's actor.
pub const ACTOR_TYPE: &str = "dwell.actor.type";
/// A residence or turn span's message.
pub const MESSAGE_TYPE: &str = "dwell.message.type";
/// Messages in the mailbox when this one was put there, itself included.
pub const MAILBOX_DEPTH: &str = "dwell.mailbox.depth";
/// Deliveries of stream data, which have no spans of their own.
pub const MAILBOX_COUNT: &str = "dwell.mailbox.count";
/// Their residence together, in microseconds.
pub const MAILBOX_RESIDENCE_TOTAL_US: &str = "dwell.mailbox.residence_total_us";
/// The longest of them, in microseconds.
pub const MAILBOX_RESIDENCE_LONGEST_US: &str = "dwell.mailbox.residence_longest_us";
/// Whether the parent was made by another process: there it is true, elsewhere absent. In OTLP it is a flag instead.
pub const PARENT_REMOTE: &str = "dwell.parent.remote";

// Commands.

/// The program's name without its directory: all that telemetry says of a command line.
pub const PROCESS_EXECUTABLE_NAME: &str = "process.executable.name";
/// The code it ended with.
pub const PROCESS_EXIT_CODE: &str = "process.exit.code";
/// The number of the signal that ended it; its name is in `error.type`.
pub const PROCESS_SIGNAL: &str = "dwell.process.signal";
/// From the exit to the end of the last pipe, in microseconds.
pub const PROCESS_DRAIN_US: &str = "dwell.process.drain_us";
/// How long a start waited for the spawner, in microseconds.
pub const SPAWN_QUEUE_US: &str = "dwell.spawn.queue_us";
/// Bytes read from a pipe.
pub const STREAM_BYTES: &str = "dwell.stream.bytes";
/// In how many pieces.
pub const STREAM_CHUNKS: &str = "dwell.stream.chunks";
/// How long the reader waited for its consumer, in microseconds.
pub const STREAM_CREDIT_WAIT_US: &str = "dwell.stream.credit_wait_us";
/// How long the reader waited for room on its way, in microseconds.
pub const STREAM_ROOM_WAIT_US: &str = "dwell.stream.room_wait_us";
/// How long the reader left the machine to somebody who typed, in microseconds.
pub const STREAM_YIELDED_US: &str = "dwell.stream.yielded_us";
/// Bytes that went to the disk first.
pub const STREAM_SPOOLED_BYTES: &str = "dwell.stream.spooled_bytes";
/// How long writing to the spool took in all, in microseconds.
pub const STREAM_SPOOL_US: &str = "dwell.stream.spool_us";
/// Bytes that were dropped.
pub const STREAM_DROPPED_BYTES: &str = "dwell.stream.dropped_bytes";
/// From the reader's start to the first byte, in microseconds.
pub const STREAM_FIRST_BYTE_US: &str = "dwell.stream.first_byte_us";

// Requests to a model. What the server says of its own time is exported under these names and no others, below the
// names that its own exporters give it.

/// Which request of its connection.
pub const MODEL_REQUEST_ORDINAL: &str = "dwell.model.request_ordinal";
/// `websocket` or `post`.
pub const MODEL_TRANSPORT: &str = "dwell.model.transport";
/// How often it was sent.
pub const MODEL_ATTEMPTS: &str = "dwell.model.attempts";
/// Whether it was to warm up only.
pub const MODEL_PREWARM: &str = "dwell.model.prewarm";
/// How long it waited for earlier ones, in microseconds.
pub const MODEL_QUEUE_US: &str = "dwell.model.queue_us";
/// From the end of writing to the first event, in microseconds.
pub const MODEL_FIRST_EVENT_US: &str = "dwell.model.first_event_us";
/// From the end of writing to the first token, in microseconds.
pub const MODEL_FIRST_TOKEN_US: &str = "dwell.model.first_token_us";
/// Pauses between events with tokens.
pub const MODEL_TOKEN_GAPS: &str = "dwell.model.token_gaps";
/// All of them together, in microseconds.
pub const MODEL_TOKEN_GAP_TOTAL_US: &str = "dwell.model.token_gap_total_us";
/// The longest of them, in microseconds.
pub const MODEL_TOKEN_GAP_LONGEST_US: &str = "dwell.model.token_gap_longest_us";
/// What the server's own time leaves of the client's, in microseconds: the network, and what nobody names.
pub const MODEL_UNACCOUNTED_US: &str = "dwell.model.unaccounted_us";
/// Whether the server claims more than the client saw, so that nothing is left.
pub const MODEL_UNACCOUNTED_CLAMPED: &str = "dwell.model.unaccounted_clamped";
/// The server's longest wait in an engine's queue, in milliseconds.
pub const INFERENCE_ENGINE_QUEUE_MAX_MS: &str = "dwell.inference.engine_queue_max_ms";
/// The server's time until its provider began, in milliseconds.
pub const INFERENCE_PROVIDER_START_MS: &str = "dwell.inference.taas_request_to_provider_start_total_ms";
/// The server's newest choice of an engine, in milliseconds.
pub const INFERENCE_LATEST_ENGINE_ROUTING_MS: &str = "dwell.inference.latest_engine_routing_ms";
/// The API's own part, in milliseconds.
pub const RESPONSESAPI_OWN_MS: &str = "dwell.responsesapi.duration_excl_engine_and_client_tool_time_ms";
/// How these hang together: always the same constant.
pub const INFERENCE_ROUTING_TIMING_SEMANTICS: &str = "dwell.inference.routing_timing_semantics";

// Files.

/// Round trips that a load took, as far as its requests waited for each other.
pub const WORKSPACE_ROUND_TRIPS: &str = "dwell.workspace.round_trips";
/// Markers that were looked for.
pub const WORKSPACE_PROBES: &str = "dwell.workspace.probes";
/// `used`, `rejected` or `none`: the root that the instructions' load gave the skills' load.
pub const WORKSPACE_HINT: &str = "dwell.workspace.hint";
/// Files of instructions that were loaded.
pub const WORKSPACE_AGENTS: &str = "dwell.workspace.agents";
/// Skills that were loaded.
pub const WORKSPACE_SKILLS: &str = "dwell.workspace.skills";
/// Problems that kept nothing else from being loaded.
pub const WORKSPACE_WARNINGS: &str = "dwell.workspace.warnings";
/// How long what is done with files waited for a thread, in microseconds.
pub const FILES_QUEUE_US: &str = "dwell.files.queue_us";

// HTTP requests that an executor makes. Never where to, and nothing that went over it.

/// The number of the answer.
pub const HTTP_STATUS: &str = "http.response.status_code";
/// Redirects that were followed.
pub const HTTP_REDIRECTS: &str = "dwell.http.redirects";
/// Bytes of the answer's body that its client drew.
pub const HTTP_BODY_BYTES: &str = "dwell.http.body_bytes";

// The rest.

/// `serial` or `parallel`.
pub const DISPATCH_LOCK: &str = "dwell.dispatch.lock";
/// Whether the call was begun.
pub const DISPATCH_STARTED: &str = "dwell.dispatch.execution_started";
/// From the call until it was begun, in microseconds.
pub const DISPATCH_US: &str = "dwell.dispatch.dispatch_us";
/// The part of that in which there was no link, in microseconds.
pub const DISPATCH_READINESS_US: &str = "dwell.dispatch.readiness_us";
/// The part of it in which it was not the call's turn, in microseconds.
pub const DISPATCH_LOCK_US: &str = "dwell.dispatch.lock_us";
/// From there until its end, in microseconds.
pub const DISPATCH_HANDLER_US: &str = "dwell.dispatch.handler_us";
/// Both together, in microseconds.
pub const DISPATCH_TOTAL_US: &str = "dwell.dispatch.total_us";
/// A relay's residence by its own word, in microseconds.
pub const RELAY_RESIDENCE_US: &str = "dwell.relay.residence_us";
/// How far that word is to be believed.
pub const RELAY_SOURCE: &str = "dwell.relay.source";
/// The link's round trip as last measured, in microseconds.
pub const LINK_PING_US: &str = "dwell.link.ping_us";
/// Runs written with one transaction.
pub const METADATA_BATCH: &str = "dwell.metadata.batch";
/// The part of the way there and back that a relay's word accounts for.
pub const CHAIN_TRANSIT_RELAY_US: &str = "chain.transit.relay_us";
/// What of the way there and back neither a relay nor the link's round trip explains.
pub const CHAIN_TRANSIT_UNATTRIBUTED_US: &str = "chain.transit.unattributed_us";
/// What both directions of a call took beside the executor's turnaround, a relay's part and what nothing explains.
pub const CHAIN_TRANSIT_US: &str = "chain.transit.both_ways_us";
/// What no segment of the harness names.
pub const CHAIN_HARNESS_UNATTRIBUTED_US: &str = "chain.harness.unattributed_us";
/// What no segment of the executor names.
pub const CHAIN_EXECUTOR_UNATTRIBUTED_US: &str = "chain.executor.unattributed_us";

/// Names of spans: nouns of low cardinality. An RPC's two spans have its method's name, a mailbox's two are
/// `mailbox <actor>` and `turn <actor>`.
pub mod span {
    /// A call, from `exec` until its end is in the caller's hands: the root of dwell's spans.
    pub const CALL: &str = "call";
    /// Readiness, lock and choice, on the harness.
    pub const TOOL_DISPATCH: &str = "tool dispatch";
    /// The part of it in which there was no link.
    pub const READINESS: &str = "readiness";
    /// The part of it in which it was not the call's turn.
    pub const LOCK: &str = "lock";
    /// From a call's dispatch until its end is known: what everything else of it happens in.
    pub const HANDLER: &str = "handler";
    /// A request's place in the pending table.
    pub const PENDING_REGISTRATION: &str = "pending registration";
    /// From there until it was written.
    pub const REQUEST_SEND: &str = "request send";
    /// From there until its answer's first record.
    pub const RESPONSE_WAIT: &str = "response wait";
    /// From there until the caller's actor had it.
    pub const RESPONSE_DISPATCH: &str = "response dispatch";
    /// A relay's residence by its own word.
    pub const RELAY_HOP: &str = "relay hop";
    /// A command, from its start until its last pipe is at its end.
    pub const PROCESS: &str = "process";
    /// The system call that made it.
    pub const SPAWN: &str = "spawn";
    /// Its standard output.
    pub const STDOUT_READER: &str = "stdout reader";
    /// Its standard error.
    pub const STDERR_READER: &str = "stderr reader";
    /// From its start to its wait status.
    pub const EXIT_WATCHER: &str = "exit watcher";
    /// From its wait status to the end of its last pipe.
    pub const CLOSE: &str = "close";
    /// A terminal event, from its first record until it is in order.
    pub const TERMINAL_DELIVERY: &str = "terminal delivery";
    /// From there until the consumer has it.
    pub const TERMINAL_CONSUME: &str = "terminal consume";
    /// A workspace, from when it was asked for until it was there.
    pub const WORKSPACE_LOAD: &str = "workspace load";
    /// Its project's root, looked for.
    pub const ROOT_WALK: &str = "root walk";
    /// Its files of instructions, read.
    pub const AGENTS_LOAD: &str = "agents load";
    /// Its skills' front matter, read.
    pub const SKILLS_LOAD: &str = "skills load";
    /// Its repository, looked for and read.
    pub const REPOSITORY_DISCOVERY: &str = "repository discovery";
    /// What was done with files, on the threads for that.
    pub const FILES_WORK: &str = "files work";
    /// An HTTP request for a client, from its opening to the last byte that was drawn.
    pub const HTTP_EXCHANGE: &str = "http exchange";
    /// Metadata that waits for its store.
    pub const METADATA_QUEUE: &str = "metadata queue";
    /// Its transaction.
    pub const METADATA_APPLY: &str = "metadata apply";
    /// What history says of its thread.
    pub const METADATA_OBSERVE: &str = "metadata observe";
    /// Items given to a thread, until they have their place.
    pub const THREAD_APPEND: &str = "thread append";
    /// A wait for what was given before.
    pub const THREAD_BARRIER: &str = "thread barrier";
    /// An explicit change of a thread's metadata.
    pub const THREAD_MUTATION: &str = "thread mutation";
    /// Items, written to an event log.
    pub const LOG_APPEND: &str = "log append";
    /// From `connect` until a harness's first command is over.
    pub const START_UP: &str = "start-up";
    /// Of it: dialling, and proving both ends.
    pub const CONNECT: &str = "connect";
    /// Of it: what the executor is, and the session's actors.
    pub const ENVIRONMENT: &str = "environment";
    /// Of it: what the working directory is about.
    pub const WORKSPACE: &str = "workspace";
    /// Of it: choosing a shell.
    pub const SHELL: &str = "shell";
    /// Of it: the first command.
    pub const FIRST_COMMAND: &str = "first command";
    /// An event log, synced.
    pub const LOG_SYNC: &str = "log sync";
    /// Where the repository of an environment begins that has a change to show.
    pub const TURN_DIFF_ROOT: &str = "turn diff root";
    /// An agent's turn: what it was asked until what it answered.
    pub const AGENT_TURN: &str = "agent turn";
    /// A request to a model, from its call to the end of its response.
    pub const MODEL_REQUEST: &str = "model request";
    /// Connection, TLS and upgrade.
    pub const MODEL_CONNECT: &str = "model connect";
    /// Writing the request.
    pub const MODEL_SEND: &str = "model send";
    /// From there to the first event.
    pub const MODEL_WAIT: &str = "model wait";
    /// From the first event to the last.
    pub const MODEL_STREAM: &str = "model stream";
    /// What the server said of its own time. Stands where it came, and lasts no time: its durations are attributes.
    pub const MODEL_SERVER_TIMING: &str = "model server timing";
}
