//! OpenSSH as it is used for this: one connection that a master keeps, and a program for each command that goes through
//! it. The server is one of its own, on loopback, with a key and a configuration that nothing else knows.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::child::{self, LocalChild, Server};
use super::paths::Paths;
use super::peer::{Client, Live, Name, Peer, Ran, Soon, Stands, Trouble, within};
use super::task::Task;

/// The longest until a server or a master is there.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks whether one is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// By this name the server's key is known.
const HOST: &str = "dwell-bench";

/// What a program of OpenSSH is needed for.
#[derive(Debug)]
pub(crate) struct SshPeer {
    ssh: PathBuf,
    /// Has keys, configuration and sockets.
    dir: PathBuf,
    address: SocketAddr,
    version: Option<String>,
    server: u32,
    paths: Rc<Paths>,
    masters: std::cell::Cell<u32>,
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Trouble {
    move |error| Trouble::failed(what, error)
}

/// Runs a program that helps to set things up.
async fn helper(what: &'static str, command: &mut Command) -> Result<String, Trouble> {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let ran = within(what, START_LIMIT, async {
        command.output().await.map_err(failed(what))
    })
    .await?;
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    if ran.status.success() {
        Ok(said)
    } else {
        Err(Trouble::failed(what, said))
    }
}

/// A free port. Somebody else may take it before it is used; then the server does not come up, and says so.
fn free_port() -> Result<SocketAddr, Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed("a port for sshd"))?;
    listener.local_addr().map_err(failed("a port for sshd"))
}

/// A path in a configuration file.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// One argument for the shell at the other end.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

pub(crate) async fn ssh(
    ssh: &Path,
    sshd: &Path,
    place: &Path,
    paths: &Rc<Paths>,
) -> Result<(Server, SshPeer), Trouble> {
    let dir = place.join("ssh");
    std::fs::create_dir(&dir).map_err(failed("a directory for sshd"))?;
    let address = free_port()?;
    write_configuration(ssh, &dir, address).await?;
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    let mut server = Server::start(command, dir.join("sshd.log"))?;
    let up = within("sshd", START_LIMIT, async {
        while TcpStream::connect(address).is_err() {
            if server.is_over() {
                return Err(Trouble::failed("sshd", server.complaint()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    });
    if let Err(trouble) = up.await {
        server.end().await;
        return Err(trouble);
    }
    let version = helper("ssh -V", Command::new(ssh).arg("-V")).await.ok();
    let peer = SshPeer {
        ssh: ssh.to_owned(),
        dir,
        address,
        version,
        server: server.id(),
        paths: Rc::clone(paths),
        masters: std::cell::Cell::new(0),
    };
    Ok((server, peer))
}

async fn write_configuration(ssh: &Path, dir: &Path, address: SocketAddr) -> Result<(), Trouble> {
    let beside = ssh.with_file_name("ssh-keygen");
    let keygen = if beside.is_file() {
        beside
    } else {
        "ssh-keygen".into()
    };
    for key in ["host_key", "client_key"] {
        let mut command = Command::new(&keygen);
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join(key));
        helper("ssh-keygen", &mut command).await?;
    }
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).map_err(failed("reading a key"));
    let write = |name: &str, text: String| {
        std::fs::write(dir.join(name), text).map_err(failed("writing a configuration"))
    };
    write("authorized_keys", read("client_key.pub")?)?;
    write("known_hosts", format!("{HOST} {}", read("host_key.pub")?))?;
    // More sessions than are ever under way on one connection: ten are allowed otherwise. And a home without files that
    // a shell reads when it starts: whoever's machine this is may have put anything into theirs.
    let home = dir.join("home");
    std::fs::create_dir(&home).map_err(failed("a home for ssh"))?;
    write(
        "sshd_config",
        format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             SetEnv HOME={}\nMaxSessions 256\nMaxStartups 256\nUseDNS no\nPrintMotd no\nPrintLastLog no\nLogLevel ERROR\n",
            quoted(&dir.join("host_key")),
            quoted(&dir.join("authorized_keys")),
            quoted(&home),
        ),
    )?;
    write(
        "ssh_config",
        format!(
            "Host {HOST}\n  HostName {}\n  HostKeyAlias {HOST}\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  BatchMode yes\n  \
             ConnectTimeout 10\n  LogLevel ERROR\n",
            address.ip(),
            quoted(&dir.join("known_hosts")),
            quoted(&dir.join("client_key")),
        ),
    )
}

impl SshPeer {
    /// A program that comes by this way.
    fn client(&self, round_trip: Duration) -> Result<SshClient, Trouble> {
        let port = self.paths.to(self.address, round_trip)?.port();
        Ok(SshClient {
            ssh: self.ssh.clone(),
            config: self.dir.join("ssh_config"),
            port,
            master: None,
        })
    }
}

impl Peer for SshPeer {
    fn name(&self) -> Name {
        Name::Ssh
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn connect(&self, round_trip: Duration) -> Soon<'_, Rc<dyn Client>> {
        Box::pin(async move {
            let mut client = self.client(round_trip)?;
            self.masters.set(self.masters.get() + 1);
            let socket = self.dir.join(format!("m{}", self.masters.get()));
            let mut command = client.program();
            let mut master = command
                .args(["-M", "-N", "-S"])
                .arg(&socket)
                .arg(HOST)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .map_err(failed("starting ssh"))?;
            within("a master of ssh", START_LIMIT, async {
                while !socket.exists() {
                    if !matches!(master.try_wait(), Ok(None)) {
                        return Err(Trouble::failed(
                            "a master of ssh",
                            "it ended before it was connected",
                        ));
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok(())
            })
            .await?;
            client.master = Some((master, socket));
            Ok(Rc::new(client) as Rc<dyn Client>)
        })
    }

    /// Without a master: one program, one connection, one command.
    fn connect_cold(&self, round_trip: Duration) -> Soon<'_, Rc<dyn Client>> {
        Box::pin(async move { Ok(Rc::new(self.client(round_trip)?) as Rc<dyn Client>) })
    }

    fn servers(&self) -> Vec<u32> {
        vec![self.server]
    }
}

#[derive(Debug)]
struct SshClient {
    ssh: PathBuf,
    config: PathBuf,
    port: u16,
    /// It keeps the connection, and this is where it is asked.
    master: Option<(Child, PathBuf)>,
}

impl SshClient {
    fn program(&self) -> Command {
        let mut command = Command::new(&self.ssh);
        command
            .arg("-F")
            .arg(&self.config)
            .args(["-p", &self.port.to_string()]);
        command
    }

    fn command(&self, flags: &[&str], argv: &[String]) -> Command {
        let mut command = self.program();
        command.args(flags).arg("-S");
        match &self.master {
            Some((_, socket)) => command.arg(socket),
            None => command.arg("none"),
        };
        let line: Vec<_> = argv.iter().map(|word| shell_word(word)).collect();
        command.args([HOST, "--"]).arg(line.join(" "));
        command
    }
}

impl Client for SshClient {
    fn round_trip(&self) -> Option<Soon<'_, ()>> {
        None
    }

    fn run<'a>(&'a self, task: &'a Task) -> Soon<'a, Ran> {
        Box::pin(child::run(self.command(&["-T"], &task.argv), task))
    }

    fn open(&self, stands: Stands, argv: Vec<String>) -> Option<Soon<'_, Box<dyn Live>>> {
        let flag = match stands {
            Stands::Pipes => "-T",
            Stands::Terminal => "-tt",
        };
        Some(Box::pin(async move {
            LocalChild::start(self.command(&[flag], &argv))
        }))
    }

    fn close(mut self: Rc<Self>) -> Soon<'static, ()> {
        Box::pin(async move {
            // Dropped with its last user, it is killed all the same.
            if let Some(client) = Rc::get_mut(&mut self)
                && let Some((master, _)) = &mut client.master
            {
                master.kill().await.map_err(failed("ending ssh"))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_to_the_other_shell_as_they_are() {
        let words = ["/bin/true", "a b", "it's", "", "$x;y"].map(shell_word);
        assert_eq!(words, ["/bin/true", "'a b'", r"'it'\''s'", "''", "'$x;y'"]);
    }
}
