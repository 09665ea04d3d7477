//! A command in the words of the JSON dialect, and what that has no words for. A pure core.

use std::collections::BTreeMap;

use dwell_messages::dialect::{self as json, EnvPolicy, EnvironmentInfo, Fault, InheritName, uri_of};
use dwell_messages::process::{
    Containment, ExecutorDeath, Inherit, Limits, Overflow, Start, Started, TreeHold,
};
use dwell_messages::{ErrorCode, TraceContext, WireError};
use serde_bytes::ByteBuf;

/// The one size that terminals have there.
const TERMINAL: (u16, u16) = (24, 80);

/// The start of a command, under this name.
///
/// # Errors
/// It asks for what such a server does not do: refused rather than passed over.
pub(super) fn start(
    name: &str,
    asked: &Start,
    environment: &EnvironmentInfo,
    context: &TraceContext,
) -> Result<json::Start, WireError> {
    check(asked)?;
    let cwd = match &asked.cwd {
        Some(cwd) => uri_of(cwd),
        None => environment.cwd.clone().unwrap_or_else(|| uri_of(b"/")),
    };
    let mut env = BTreeMap::new();
    for (name, value) in &asked.env.set {
        env.insert(
            text("a variable's name", name)?,
            text("a variable's value", value)?,
        );
    }
    if let Some(pty) = &asked.pty {
        env.entry("TERM".to_owned()).or_insert_with(|| pty.term.clone());
    }
    // Its own spans can hang below its call.
    if context.is_valid() {
        env.entry("TRACEPARENT".to_owned())
            .or_insert_with(|| context.to_traceparent());
    }
    let mut exclude = texts("a pattern", &asked.env.exclude)?;
    exclude.extend(texts("a variable's name", &asked.env.unset)?);
    for name in &asked.env.unset {
        env.remove(&*String::from_utf8_lossy(name));
    }
    let env_policy = EnvPolicy {
        inherit: match asked.env.inherit {
            Inherit::Core => InheritName::Core,
            Inherit::All => InheritName::All,
            Inherit::None => InheritName::None,
        },
        ignore_default_excludes: asked.env.secrets,
        exclude,
        set: BTreeMap::new(),
        include_only: texts("a pattern", &asked.env.include)?,
    };
    // There the first of `argv` is what is executed, and the name beside it what the command is told.
    let mut argv = texts("an argument", &asked.argv)?;
    let mut arg0 = None;
    if let (Some(program), Some(first)) = (&asked.program, argv.first_mut()) {
        arg0 = Some(std::mem::replace(first, text("a program's name", program)?));
    }
    Ok(json::Start {
        process_id: name.to_owned(),
        metadata: None,
        argv,
        cwd,
        env_policy: Some(env_policy),
        shell_snapshot: None,
        env,
        tty: asked.pty.is_some(),
        pipe_stdin: asked.stdin && asked.pty.is_none(),
        arg0,
        sandbox: None,
        enforce_managed_network: false,
        managed_network: None,
        network_proxy: None,
    })
}

fn check(asked: &Start) -> Result<(), WireError> {
    let cannot = |what: &str| {
        let text = format!(
            "a server of the JSON dialect does not know {what}: leave it out, or use an executor of dwell"
        );
        Err(WireError::new(ErrorCode::UnknownMethod, text))
    };
    if asked.limits != Limits::default() {
        return cannot("limits of a command");
    }
    if asked.confinement.is_some() {
        return cannot("dwell's words for what confines a command");
    }
    if asked.unattended || asked.outlive {
        return cannot("commands that run on without a client");
    }
    if asked.overflow != Overflow::default() || asked.spool_bytes.is_some() {
        return cannot("what is to become of output that nobody takes");
    }
    if let Some(pty) = &asked.pty
        && (pty.size.rows, pty.size.columns) != TERMINAL
    {
        return cannot("terminals of another size than 24 lines of 80");
    }
    Ok(())
}

fn text(what: &str, bytes: &[u8]) -> Result<String, WireError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        let text = format!("{what} is not UTF-8, which the JSON dialect cannot carry");
        WireError::new(ErrorCode::BadRequest, text)
    })
}

fn texts(what: &str, all: &[ByteBuf]) -> Result<Vec<String>, WireError> {
    all.iter().map(|bytes| text(what, bytes)).collect()
}

/// What is known of a process that runs.
pub(super) fn started() -> Started {
    Started {
        // It is not told.
        pid: 0,
        containment: Containment {
            executor_death: ExecutorDeath::Other("the environment's own".into()),
            tree: TreeHold::ProcessGroup,
        },
        withheld: Vec::new(),
    }
}

/// Why a command did not start.
pub(super) fn refusal(fault: &Fault) -> WireError {
    let errno = errno(&fault.message);
    let code = match fault.code {
        Fault::FAILED => ErrorCode::SpawnFailed,
        _ => ErrorCode::BadRequest,
    };
    WireError::new(code, fault.message.clone()).with_errno(errno)
}

/// The system's number, which stands in its words: `… (os error 2)`.
fn errno(message: &str) -> Option<i32> {
    let (_, rest) = message.rsplit_once("(os error ")?;
    rest.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use dwell_messages::confinement::Confinement;
    use dwell_messages::process::{EnvironmentPolicy, Pty, TerminalSize};

    use super::*;

    fn asked() -> Start {
        Start {
            argv: vec![ByteBuf::from("true")],
            program: None,
            confinement: None,
            cwd: None,
            env: EnvironmentPolicy::default(),
            stdin: false,
            pty: None,
            limits: Limits::default(),
            drain: None,
            retention_bytes: None,
            overflow: Overflow::default(),
            spool_bytes: None,
            outlive: false,
            unattended: false,
            credit: 1,
            grace_ms: 0,
            launch: None,
        }
    }

    fn pty(rows: u16) -> Option<Pty> {
        let size = TerminalSize { rows, columns: 80 };
        Some(Pty {
            size,
            term: "dumb".into(),
        })
    }

    #[test]
    fn what_the_dialect_has_no_words_for_is_refused_and_not_passed_over() {
        let mut refused = vec![asked(); 6];
        refused[0].limits.open_files = Some(1);
        refused[1].unattended = true;
        refused[2].outlive = true;
        refused[3].spool_bytes = Some(1);
        refused[4].pty = pty(25);
        refused[5].confinement = Some(Confinement {
            network: true,
            paths: Vec::new(),
        });
        for asked in refused {
            let error =
                start("p", &asked, &EnvironmentInfo::default(), &TraceContext::default()).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnknownMethod, "{error}");
        }
        let mut bytes = asked();
        bytes.argv.push(ByteBuf::from(vec![0xff]));
        let error = start("p", &bytes, &EnvironmentInfo::default(), &TraceContext::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest);
        // The control.
        let mut good = asked();
        good.pty = pty(24);
        let good = start("p", &good, &EnvironmentInfo::default(), &TraceContext::default()).unwrap();
        assert!(good.tty && !good.pipe_stdin && good.env["TERM"] == "dumb");
    }

    #[test]
    fn a_directory_that_is_not_named_is_the_environments_own() {
        let environment = EnvironmentInfo {
            cwd: Some("file:///w".into()),
            ..EnvironmentInfo::default()
        };
        assert_eq!(
            start("p", &asked(), &environment, &TraceContext::default())
                .unwrap()
                .cwd,
            "file:///w"
        );
        let mut elsewhere = asked();
        elsewhere.cwd = Some(ByteBuf::from("/a b"));
        assert_eq!(
            start("p", &elsewhere, &environment, &TraceContext::default())
                .unwrap()
                .cwd,
            "file:///a%20b"
        );
    }

    #[test]
    fn a_program_that_is_told_another_name_is_executed_all_the_same() {
        let mut asked = asked();
        asked.program = Some(ByteBuf::from("/bin/sh"));
        let start = start("p", &asked, &EnvironmentInfo::default(), &TraceContext::default()).unwrap();
        assert_eq!(
            (start.argv, start.arg0),
            (vec!["/bin/sh".into()], Some("true".into()))
        );
    }

    #[test]
    fn a_refusal_has_the_systems_number_where_its_words_do() {
        let missing = refusal(&Fault::of_spawn_errno(2));
        assert_eq!((missing.code, missing.errno), (ErrorCode::SpawnFailed, Some(2)));
        let other = refusal(&Fault::invalid_request("process p already exists"));
        assert_eq!((other.code, other.errno), (ErrorCode::BadRequest, None));
    }
}
