//! From what a client asks to what is run. A pure core.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use dwell_messages::confinement::Confinement;
use dwell_messages::dialect::{EnvPolicy, Fault, InheritName, Start, confinement_of, path_of};
use dwell_messages::{ErrorCode, TraceContext};
use serde_json::Value;

use crate::harness::{Command, Inherit, RunError};

/// A terminal's size, which no client says.
const ROWS: u16 = 24;
/// A terminal's size, which no client says.
const COLUMNS: u16 = 80;
/// The longest that pipes are read which something else of the command still holds: as long as that lives.
const HELD: Duration = Duration::from_secs(24 * 3_600);
/// A terminal without output is given up so long after its command.
const TERMINAL_IDLE: Duration = Duration::from_millis(200);
/// A terminal is given up so long after its command.
const TERMINAL_TOTAL: Duration = Duration::from_secs(1);
const ENOENT: i32 = 2;
/// Variables of the server's own, which no command has, whatever it asks for.
const WITHHELD: [&str; 2] = [
    "CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE",
    "CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN",
];

/// What is said where a client wants a command, or a file operation, confined.
pub(super) const NO_SANDBOX: &str = "this executor cannot confine that: it refuses what asks for a sandbox that it cannot enforce as a whole, \
                          unless its operator gave --sandbox=off, and then runs it unconfined";

/// What becomes of a wish to be confined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// The executor enforces it.
    Enforced,
    /// Nothing here can enforce it.
    Refused,
    /// It is passed over: the operator's word.
    PassedOver,
}

impl Wish {
    /// What a `sandbox` member comes to; `None`: nothing.
    ///
    /// # Errors
    /// It is refused, or not understood.
    pub(super) fn confinement(self, sandbox: Option<&Value>) -> Result<Option<Confinement>, Fault> {
        let Some(sandbox) = sandbox else { return Ok(None) };
        formed(sandbox)?;
        match self {
            Self::PassedOver => Ok(None),
            Self::Refused => Err(Fault::failed(NO_SANDBOX)),
            Self::Enforced => match confinement_of(sandbox) {
                Ok(confinement) => Ok(Some(confinement)),
                Err(unclear) => Err(Fault::failed(format!("{NO_SANDBOX} ({})", unclear.0))),
            },
        }
    }
}

/// Whether it is a `sandbox` at all: what it says may be more than can be enforced.
fn formed(sandbox: &Value) -> Result<(), Fault> {
    let Value::Object(members) = sandbox else {
        return Err(Fault::invalid_params("a sandbox is an object"));
    };
    for name in ["permissions", "windowsSandboxLevel"] {
        if !members.contains_key(name) {
            return Err(Fault::invalid_params(format!("missing field `{name}`")));
        }
    }
    // All but one of these are passed over here; that one can only be meant for another system.
    match members["windowsSandboxLevel"].as_str() {
        Some("disabled" | "restricted-token" | "elevated") => Ok(()),
        Some("mxc") => Err(Fault::invalid_params("`mxc` is not of this executor's system")),
        Some(_) | None => Err(Fault::invalid_params(
            "windowsSandboxLevel is `disabled`, `restricted-token`, `elevated` or `mxc`",
        )),
    }
}

/// The command of a start.
///
/// # Errors
/// What is wrong with it.
pub(super) fn command(start: &Start, wish: Wish, parent: Option<TraceContext>) -> Result<Command, Fault> {
    let wants_proxy = start.enforce_managed_network || start.network_proxy.is_some();
    if wants_proxy && wish != Wish::PassedOver {
        return Err(Fault::failed(NO_SANDBOX));
    }
    let confinement = wish.confinement(start.sandbox.as_ref())?;
    // Whatever is wrong with it, it is a parameter.
    let cwd = path_of(&start.cwd).map_err(|fault| Fault::invalid_params(fault.message))?;
    let mut command = Command::from_argv(&start.argv)
        .current_dir(OsString::from_vec(cwd))
        // The gateway keeps what can be read again.
        .retention(0);
    if let Some(name) = &start.arg0 {
        command = command.arg0(name);
    }
    command.confinement = confinement;
    command = environment(command, start);
    if start.tty {
        command = command.pty(ROWS, COLUMNS).drain(TERMINAL_IDLE, TERMINAL_TOTAL);
    } else {
        command = command.drain(HELD, HELD);
        if start.pipe_stdin {
            command = command.stdin_piped();
        }
    }
    Ok(match parent {
        Some(parent) => command.parent(parent),
        None => command,
    })
}

fn environment(mut command: Command, start: &Start) -> Command {
    let allowed = |name: &String| !WITHHELD.contains(&name.as_str());
    command = match &start.env_policy {
        None => command.inherit(Inherit::None),
        Some(policy) => inherited(command, policy),
    };
    for (name, value) in start.env.iter().filter(|(name, _)| allowed(name)) {
        command = command.env(name, value);
    }
    WITHHELD
        .iter()
        .fold(command, |command, name| command.env_remove(name))
}

fn inherited(mut command: Command, policy: &EnvPolicy) -> Command {
    command = command.inherit(match policy.inherit {
        InheritName::All => Inherit::All,
        InheritName::Core => Inherit::Core,
        InheritName::None => Inherit::None,
    });
    if policy.ignore_default_excludes {
        command = command.env_secrets();
    }
    for pattern in policy.exclude.iter().flat_map(|pattern| spellings(pattern)) {
        command = command.env_exclude(pattern);
    }
    for pattern in policy.include_only.iter().flat_map(|pattern| spellings(pattern)) {
        command = command.env_include(pattern);
    }
    let wanted = |name: &str| {
        policy.include_only.is_empty() || policy.include_only.iter().any(|pattern| fits(pattern, name))
    };
    for (name, value) in policy.set.iter().filter(|(name, _)| wanted(name)) {
        if !WITHHELD.contains(&name.as_str()) {
            command = command.env(name, value);
        }
    }
    command
}

/// Patterns of this dialect mean letters of either case; the executor's mean what they say.
fn spellings(pattern: &str) -> Vec<String> {
    let mut spellings = vec![pattern.to_owned(), pattern.to_uppercase(), pattern.to_lowercase()];
    spellings.dedup();
    spellings
}

/// Whether a name fits a pattern, whatever the case of its letters.
fn fits(pattern: &str, name: &str) -> bool {
    crate::spawn::pattern_fits(pattern.to_uppercase().as_bytes(), name.to_uppercase().as_bytes())
}

/// What a client is told of a command that did not start.
pub(super) fn refusal(error: &RunError, is_confined: bool) -> Fault {
    let errno = error.errno();
    match (error.code(), errno) {
        (Some(ErrorCode::BadRequest), None) if is_confined => {
            Fault::failed(format!("{NO_SANDBOX} ({error})"))
        }
        // A program without a name is one that is not there.
        (Some(ErrorCode::EmptyArgv), _) => Fault::of_spawn_errno(ENOENT),
        (Some(ErrorCode::SpawnFailed | ErrorCode::BadCwd | ErrorCode::ResourceExhausted), Some(errno)) => {
            Fault::of_spawn_errno(errno)
        }
        _ => Fault::failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn start(more: &Value) -> Start {
        let mut all = json!({"processId": "p", "argv": ["true"], "cwd": "file:///w%20x", "env": {"A": "1"}, "tty": false});
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn made(more: &Value) -> Command {
        command(&start(more), Wish::Enforced, None).unwrap()
    }

    fn set(command: &Command) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        command
            .set
            .iter()
            .map(|(name, value)| (text(name.as_slice()), text(value.as_slice())))
            .collect()
    }

    #[test]
    fn without_a_policy_nothing_is_inherited() {
        let command = made(&json!({}));
        assert_eq!(
            (command.inherit, set(&command)),
            (Inherit::None, vec![("A", "1")])
        );
        assert_eq!(command.cwd.as_deref(), Some(&b"/w x"[..]));
    }

    #[test]
    fn a_policy_filters_what_it_sets_itself_and_never_what_the_start_sets() {
        let policy = json!({"envPolicy": {"inherit": "all", "ignoreDefaultExcludes": true, "exclude": ["x*"],
            "set": {"keep": "2", "DROP": "3"}, "includeOnly": ["KE?P"]}});
        let command = made(&policy);
        assert_eq!(set(&command), [("keep", "2"), ("A", "1")]);
        assert!(
            command.secrets
                && command.exclude.contains(&b"X*".to_vec())
                && command.include.contains(&b"ke?p".to_vec())
        );
    }

    #[test]
    fn the_servers_own_variables_reach_no_command() {
        let own = json!({"env": {"CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN": "t", "CODEX_API_KEY": "k"}});
        let command = made(&own);
        assert_eq!(set(&command), [("CODEX_API_KEY", "k")]);
        assert_eq!(command.unset.len(), 2);
    }

    #[test]
    fn what_asks_to_be_confined_is_refused_unless_the_operator_said_otherwise() {
        for confined in [
            json!({"sandbox": {"permissions": {}, "windowsSandboxLevel": "disabled"}}),
            json!({"enforceManagedNetwork": true}),
            json!({"networkProxy": {}}),
        ] {
            let fault = command(&start(&confined), Wish::Refused, None).unwrap_err();
            assert!(
                fault.code == -32603 && fault.message.contains("--sandbox=off"),
                "{fault}"
            );
            let passed_over = command(&start(&confined), Wish::PassedOver, None).unwrap();
            assert_eq!(passed_over.confinement, None);
            // None of these is one that could be enforced.
            assert!(command(&start(&confined), Wish::Enforced, None).is_err());
        }
        assert!(command(&start(&json!({"sandbox": null})), Wish::Refused, None).is_ok());
        let disabled =
            json!({"sandbox": {"permissions": {"type": "disabled"}, "windowsSandboxLevel": "disabled"}});
        assert!(made(&disabled).confinement.is_some());
    }

    #[test]
    fn what_is_no_sandbox_is_refused_as_a_parameter_whatever_becomes_of_one() {
        for wish in [Wish::Enforced, Wish::Refused, Wish::PassedOver] {
            for (sandbox, text) in [
                (
                    json!({"windowsSandboxLevel": "disabled"}),
                    "missing field `permissions`",
                ),
                (json!({"permissions": {}}), "missing field `windowsSandboxLevel`"),
                (json!("text"), "a sandbox is an object"),
                (
                    json!({"permissions": {}, "windowsSandboxLevel": "mxc"}),
                    "`mxc` is not of this executor's system",
                ),
                (
                    json!({"permissions": {}, "windowsSandboxLevel": 7}),
                    "windowsSandboxLevel is `disabled`, `restricted-token`, `elevated` or `mxc`",
                ),
            ] {
                let fault = command(&start(&json!({"sandbox": sandbox})), wish, None).unwrap_err();
                assert_eq!((fault.code, &*fault.message), (-32602, text));
            }
        }
    }

    #[test]
    fn a_directory_of_another_system_is_a_parameter_that_cannot_be_meant() {
        let fault = command(&start(&json!({"cwd": "file:///C:/x"})), Wish::Enforced, None).unwrap_err();
        assert_eq!(fault.code, -32602, "{fault}");
    }

    #[test]
    fn a_terminal_has_a_size_of_its_own() {
        let pty = made(&json!({"tty": true})).pty.unwrap();
        assert_eq!((pty.size.rows, pty.size.columns), (24, 80));
    }
}
