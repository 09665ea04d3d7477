//! dwell runs commands on another machine, through a relay that can read nothing, and accounts for every microsecond.
//!
//! Three roles: a *harness* asks, an *executor* runs, a *relay* forwards what both have sealed.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use dwell::{Command, Harness, Target, relay};
//!
//! // What `dwell executor` prints when it starts.
//! let executor = relay::parse_public_key(&[7; 32])?;
//! let harness = Harness::connect(Target::relay("relay.example.org:7433", executor)).await?;
//!
//! let finished = harness.exec(Command::new("uname").arg("-r")).wait().await?;
//! println!("{}{}", finished.stdout.to_text(), finished.timings);
//! harness.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! | where | what |
//! |---|---|
//! | [`config`], [`keys`] | where things are kept; who this machine is and whom it serves |
//! | [`files`] | the files of an executor's machine, and of this one, by the same operations |
//! | [`trace_file`], [`waterfall`] | the traces on disk, and the picture of one |
//! | [`turn_diff`] | what a turn has changed in files, as one diff |
//! | [`http_client`] | HTTP requests that an executor makes, with the feature `http` there |
//! | `responses` (a feature) | asking a model, and where its time goes |
//! | [`propagation`] | ancestry as text, in W3C's or Jaeger's words |
//! | [`telemetry`], [`mailbox`], [`runtime`] | for actors of one's own beside dwell's |
//! | [`messages`], [`relay`] | the vocabulary, and the bytes on the wire |
//!
//! Features are additive: `store` keeps runs in SQLite, `otlp` exports traces, `tracing-parent` hangs calls below the
//! `tracing` span they are made in, `responses` asks models, `http` lets an executor make HTTP requests for its
//! clients, `cli` (the default) is the binary and turns on all but `tracing-parent`. Embed with `default-features = false` and add what is used.

#[cfg(feature = "responses")]
pub use dwell_actors::responses;
pub use dwell_actors::{
    Address, account, block_on, config, event_log, files, find_up, guard, http_client, inspect, keys,
    mailbox, metadata_store, metrics, oversight, propagation, runtime, telemetry, threads, trace_file,
    turn_diff, waterfall, workspace,
};
pub use dwell_messages as messages;
pub use dwell_relay as relay;

pub use dwell_actors::{
    dispatcher::DispatchTimings,
    executor::{Executor, ExecutorHandle, HandshakeCounts, ServeError, Strangers},
    files::{
        FileReader, FileSystem, FileWriter, LocalFiles, RemoteFiles, RemoteWatch, WalkOptions, WriteOptions,
    },
    harness::{
        CallTimings, Command, ConnectError, Finished, Harness, Observed, ProcessInfo, ProcessState, Run,
        RunError, RunEvent, SessionInfo, StageGuard, StartUp, StartUpStage, StartedProcess, TakeUp, Target,
        TextDecoder, Turn, TurnGuard, signal_name, signal_number,
    },
    http_client::{HttpAsk, RemoteExchange, RemoteHttp},
    relay_server::{Relay, RelayCensus, RelayHandle},
    workspace::{WorkspaceLoaded, WorkspaceOptions},
};
pub use dwell_messages::{ErrorCode, ExitStatus, PublicKey, TraceContext, TraceId, WireError};
pub use dwell_relay::{Admission, StaticKeypair, fingerprint};
