//! What a command line is taken for.

use clap::CommandFactory as _;

use super::*;
use crate::cli::trace::{Action, FormatName};

fn key() -> String {
    PublicKey([0xAB; 32]).to_string()
}

fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from([&["dwell"], arguments].concat())
}

fn parse_run(arguments: &[&str]) -> Result<Run, clap::Error> {
    let key = key();
    match parse(&[&["run", "--executor", &key], arguments].concat())?.verb {
        Verb::Run(run) => Ok(*run),
        other => panic!("`run` is not {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn everything_behind_the_dashes_is_the_commands_own() {
    let run = parse_run(&["--timings", "--", "ls", "--json", "-l", "--", "x"]).unwrap();
    assert_eq!(run.command, ["ls", "--json", "-l", "--", "x"]);
    assert!(run.timings);
}

#[test]
fn a_run_needs_a_command_and_the_dashes() {
    assert!(parse_run(&[]).is_err());
    assert!(parse_run(&["--"]).is_err());
    assert!(parse_run(&["ls"]).is_err());
}

#[test]
fn arguments_need_not_be_text() {
    let odd = OsString::from_vec(b"a\xff".to_vec());
    let mut line: Vec<OsString> = ["dwell", "demo", "--"].map(OsString::from).to_vec();
    line.push(odd.clone());
    let Verb::Demo(demo) = Arguments::try_parse_from(line).unwrap().verb else {
        panic!("it is a demo")
    };
    assert_eq!(demo.command, [odd]);
}

#[test]
fn a_key_is_taken_in_either_case_and_nothing_else_is() {
    let upper = key().to_uppercase();
    assert_eq!(public_key(&upper), Ok(PublicKey([0xAB; 32])));
    for text in [
        "",
        "ab",
        &key()[1..],
        &format!("{}g", &key()[1..]),
        &"0".repeat(64),
        &format!("{} ", key()),
    ] {
        assert!(public_key(text).is_err(), "{text:?}");
    }
}

#[test]
fn variables_are_split_at_the_first_equals_sign() {
    let run = parse_run(&["--env", "A=b=c", "--env", "E=", "--", "x"]).unwrap();
    let expected = [("A", "b=c"), ("E", "")].map(|(name, value)| (name.into(), value.into()));
    assert_eq!(run.variables, expected);
    assert!(parse_run(&["--env", "A", "--", "x"]).is_err());
    assert!(parse_run(&["--env", "=a", "--", "x"]).is_err());
}

#[test]
fn a_timeout_is_a_time_that_can_pass() {
    let timeout = |text: &str| parse_run(&[&format!("--timeout={text}"), "--", "x"]).map(|run| run.timeout);
    assert_eq!(timeout("1.5").unwrap(), Some(Duration::from_millis(1500)));
    for text in ["0", "-1", "nan", "inf", "1e99", "x", ""] {
        assert!(timeout(text).is_err(), "{text:?}");
    }
}

#[test]
fn json_goes_before_or_behind_the_verb() {
    assert!(parse(&["--json", "version"]).unwrap().json);
    assert!(parse(&["version", "--json"]).unwrap().json);
    assert!(!parse(&["version"]).unwrap().json);
}

#[test]
fn an_executor_is_named_by_its_key_or_by_what_it_is_called_here() {
    let named = parse(&["run", "--on", "build-7", "--", "x"]).unwrap().verb;
    let Verb::Run(run) = named else {
        panic!("it is a run")
    };
    assert_eq!(run.reach.on.as_ref().map(ExecutorName::as_str), Some("build-7"));
    assert_eq!(run.reach.executor, None);
    assert_eq!(
        parse_run(&["--", "x"]).unwrap().reach.executor,
        Some(PublicKey([0xAB; 32]))
    );
    assert!(parse(&["run", "--", "x"]).is_err());
    assert!(parse(&["run", "--on", "a b", "--", "x"]).is_err());
}

#[test]
fn a_client_is_authorized_with_its_options_behind_commas() {
    let authorize = format!("{},scopes=spawn+pty,max-sessions=2", key());
    let verb = parse(&["executor", "--authorize", &authorize, "--authorize", &key()]);
    let Verb::Executor(executor) = verb.unwrap().verb else {
        panic!("it is an executor")
    };
    let grant = Grant::parse("scopes=spawn+pty max-sessions=2").unwrap();
    let keys = [
        (PublicKey([0xAB; 32]), grant),
        (PublicKey([0xAB; 32]), Grant::default()),
    ];
    assert_eq!(executor.authorize, keys);
    assert!(parse(&["executor", "--scopes", "none"]).is_ok());
    assert!(parse(&["executor", "--scopes", "none", "--authorize", &key()]).is_err());
    assert!(parse(&["executor", "--scopes", "root"]).is_err());
}

#[test]
fn a_trace_is_named_by_its_first_digits_or_not_at_all() {
    let id = |arguments: &[&str]| match parse(&[&["trace"], arguments].concat()) {
        Ok(Arguments {
            verb: Verb::Trace(trace),
            ..
        }) => Some(trace.show.one.trace_id.map(|prefix| prefix.to_string())),
        _ => None,
    };
    assert_eq!(id(&[]), Some(None));
    assert_eq!(id(&[&"Ab".repeat(16)]), Some(Some("ab".repeat(16))));
    assert_eq!(id(&["abc"]), Some(Some("abc".into())));
    assert_eq!(id(&["abx"]), None);
    assert_eq!(id(&[&"a".repeat(33)]), None);
    assert_eq!(id(&["--width", "10"]), None);
}

#[test]
fn what_to_do_with_a_trace_is_said_before_its_id() {
    let action = |arguments: &[&str]| match parse(&[&["trace"], arguments].concat()) {
        Ok(Arguments {
            verb: Verb::Trace(trace),
            ..
        }) => trace.action,
        _ => None,
    };
    assert!(action(&[]).is_none() && action(&["abc"]).is_none());
    assert!(
        matches!(action(&["show", "abc", "--width", "80"]), Some(Action::Show(show)) if show.width == Some(80))
    );
    assert!(matches!(action(&["list", "--limit", "5"]), Some(Action::List(list)) if list.limit == 5));
    assert!(matches!(action(&["why"]), Some(Action::Why(one)) if one.trace_id.is_none()));
    let exported = action(&["export", "abc", "--format", "jaeger-json", "-o", "x"]);
    assert!(matches!(exported, Some(Action::Export(export)) if export.format == FormatName::JaegerJson));
    assert!(
        parse(&["trace", "export", "abc"]).is_err(),
        "a format has no default"
    );
    assert!(parse(&["trace", "list", "--limit", "0"]).is_err());
}

#[test]
fn a_key_is_the_harnesss_and_made_unless_said_otherwise() {
    let Verb::Key(key) = parse(&["key"]).unwrap().verb else {
        panic!("it is a key")
    };
    assert_eq!((key.action, key.role), (KeyAction::Make, RoleName::Harness));
    let Verb::Key(key) = parse(&["key", "show", "--role", "relay"]).unwrap().verb else {
        panic!("it is a key")
    };
    assert_eq!((key.action, key.role.role()), (KeyAction::Show, Role::Relay));
}
