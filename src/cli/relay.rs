//! `dwell relay`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use dwell_actors::config::RELAY_PORT_DEFAULT;
use dwell_messages::Role;
use dwell_relay::fingerprint;
use dwell_relay::rendezvous::{Admission, TokenHash};

use super::address::{as_dialled, is_loopback, with_port};
use super::args::{self, Relay, TOKEN_MAX_BYTES};
use super::exit;
use super::failure::Failure;
use super::identity::{self, Own};
use super::output;
use super::ready::Ready;
use super::roles::{RelaySpec, ServingRelay};
use super::signals::Stop;
use super::stdin;

/// The most an allow file may hold.
const ALLOW_FILE_MAX_BYTES: u64 = 256 * 1024;
/// The shortest token: shorter ones can be guessed.
const TOKEN_MIN_BYTES: usize = 16;

pub(crate) async fn serve(ask: Relay, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let listen = with_port(ask.listen.as_deref().unwrap_or("127.0.0.1"), RELAY_PORT_DEFAULT)?;
    let admission = admission(ask.allow.as_deref(), &listen)?;
    let home = identity::home()?;
    let Own { pair: identity, .. } = identity::load_or_make(&home, Role::Relay)?;
    let relay = stop
        .or(ServingRelay::start(RelaySpec {
            listen,
            identity,
            admission,
        }))
        .await?;
    let ready = relay.ready();
    announce(&ready, json || ask.ready_json);
    until_stopped(&mut stop, ask.ready_json).await?;
    let orderly = stop.orderly(relay.shutdown()).await;
    Ok(if orderly { 0 } else { exit::INTERRUPTED })
}

/// Waits until this process is asked to end, or the parent that holds its standard input is gone.
pub(crate) async fn until_stopped(stop: &mut Stop, has_parent: bool) -> Result<(), Failure> {
    if !has_parent {
        stop.recv().await;
        return Ok(());
    }
    let mut input = stdin::read()?;
    let orphaned = async { while input.recv().await.is_some() {} };
    tokio::select! {
        () = stop.recv() => {}
        () = orphaned => {}
    }
    Ok(())
}

fn announce(ready: &Ready, json: bool) {
    if json {
        output::print_json(&ready.to_json());
        return;
    }
    let address = ready.address.as_deref().unwrap_or("?");
    output::print(&format!(
        "relay on {address}\nkey {}\nfingerprint {}\non the machine with the code:\n  dwell executor --relay {}\n",
        ready.public_key,
        fingerprint(&ready.public_key),
        as_dialled(address),
    ));
}

/// Everyone on loopback when there is no file; on another address only those in the file.
fn admission(allow: Option<&Path>, listen: &str) -> Result<Admission, Failure> {
    let Some(path) = allow else {
        if is_loopback(listen) {
            return Ok(Admission::Open);
        }
        return Err(
            Failure::new("allow", format!("a relay on {listen} could be used by anyone"))
                .advise("name who may use it with --allow FILE: lines of `executor KEY` and `token TEXT`")
                .advise("or listen on loopback only: --listen 127.0.0.1"),
        );
    };
    let text = read(path)?;
    parse_allow(&text).map_err(|(line, problem)| {
        Failure::new("allow", format!("{} line {line}: {problem}", path.display())).advise(
            "correct or remove the line; lines are `executor KEY` and `token TEXT`, # begins a comment",
        )
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(ALLOW_FILE_MAX_BYTES + 1).read_to_string(&mut text));
    read.map_err(|error| Failure::because("allow", &format!("{} cannot be read", path.display()), &error))?;
    if text.len() as u64 > ALLOW_FILE_MAX_BYTES {
        let message = format!("{} is larger than {ALLOW_FILE_MAX_BYTES} bytes", path.display());
        return Err(Failure::new("allow", message).advise("remove the keys no longer used"));
    }
    Ok(text)
}

fn parse_allow(text: &str) -> Result<Admission, (usize, String)> {
    let (mut executors, mut harness_tokens) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let at = |problem: String| (index + 1, problem);
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            ["executor", key] => executors.push(args::public_key(key).map_err(at)?),
            ["token", token] if (TOKEN_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len()) => {
                harness_tokens.push(TokenHash::of(token.as_bytes()));
            }
            ["token", _] => {
                return Err(at(format!(
                    "a token has {TOKEN_MIN_BYTES} to {TOKEN_MAX_BYTES} bytes"
                )));
            }
            _ => return Err(at("it is neither `executor KEY` nor `token TEXT`".into())),
        }
    }
    Ok(Admission::Listed {
        executors,
        harness_tokens,
    })
}

#[cfg(test)]
mod tests {
    use dwell_messages::PublicKey;

    use super::*;

    #[test]
    fn without_a_list_only_loopback_is_served() {
        assert!(matches!(admission(None, "127.0.0.1:7433"), Ok(Admission::Open)));
        assert!(admission(None, "0.0.0.0:7433").is_err());
        assert!(admission(None, "[::]:7433").is_err());
        assert!(admission(None, "relay.example.org:7433").is_err());
    }

    #[test]
    fn a_list_names_executors_and_tokens() {
        let key = PublicKey([9; 32]);
        let text = format!("# who\nexecutor {key} # the builder\n\n token sixteen-bytes-ok\n");
        let Ok(Admission::Listed {
            executors,
            harness_tokens,
        }) = parse_allow(&text)
        else {
            panic!("a good list is read")
        };
        assert_eq!(executors, [key]);
        assert_eq!(harness_tokens, [TokenHash::of(b"sixteen-bytes-ok")]);
    }

    #[test]
    fn a_line_that_says_nothing_known_is_an_error_with_its_number() {
        for (text, line) in [
            ("executor", 1),
            ("\nexecutor zz", 2),
            ("token short", 1),
            ("everyone", 1),
            ("token sixteen-bytes-ok and-more", 1),
        ] {
            assert_eq!(
                parse_allow(text).map_err(|(at, _)| at).err(),
                Some(line),
                "{text:?}"
            );
        }
    }
}
