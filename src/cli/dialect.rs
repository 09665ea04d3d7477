//! The JSON dialect on the command line: where it is served, and to whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dwell_actors::dialect::{self, Auth, CLOCK_SKEW, DialectOptions, Endpoint, Signed};

use super::failure::Failure;

/// Whom to serve, and how.
#[derive(Args, Debug, Default)]
pub(crate) struct Dialect {
    /// Ask whoever connects by ws:// for a token: one that is given here, or one that was signed.
    #[arg(long, value_name = "KIND")]
    pub(crate) ws_auth: Option<WsAuth>,
    /// The file with the token.
    #[arg(long, value_name = "FILE", conflicts_with = "ws_token_sha256")]
    pub(crate) ws_token_file: Option<PathBuf>,
    /// The token's SHA-256, in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub(crate) ws_token_sha256: Option<Sha256>,
    /// The file with the secret that tokens are signed with (HS256), at least 32 bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) ws_shared_secret_file: Option<PathBuf>,
    /// Only signed tokens of this issuer.
    #[arg(long, value_name = "NAME")]
    pub(crate) ws_issuer: Option<String>,
    /// Only signed tokens for this audience.
    #[arg(long, value_name = "NAME")]
    pub(crate) ws_audience: Option<String>,
    /// How far two clocks may be apart [default: 30].
    #[arg(long, value_name = "SECS")]
    pub(crate) ws_max_clock_skew_seconds: Option<u64>,
    /// What becomes of what a client of ws:// or stdio asks to be confined. `refuse`: it never runs. `off`: it runs
    /// unconfined. Otherwise bubblewrap confines it, where that can, and else it is refused.
    #[arg(long, value_name = "refuse|off")]
    pub(crate) sandbox: Option<Sandbox>,
    /// Bytes of each process's output that a client of ws:// or stdio can read again [default: 1048576].
    #[arg(long, value_name = "BYTES")]
    pub(crate) retention: Option<u64>,
}

/// What whoever connects is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum WsAuth {
    /// The token.
    CapabilityToken,
    /// A token that was signed.
    SignedBearerToken,
}

/// What becomes of a wish to be confined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Sandbox {
    /// It is refused.
    Refuse,
    /// It is passed over.
    Off,
}

/// A hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sha256([u8; 32]);

/// Where the dialect is asked for, if a listener's address asks for it: `ws://IP:PORT`, `stdio` or `stdio://`.
pub(crate) fn endpoint(listen: &str) -> Result<Option<Endpoint>, Failure> {
    if matches!(listen, "stdio" | "stdio://") {
        return Ok(Some(Endpoint::Stdio));
    }
    let Some(address) = listen.strip_prefix("ws://") else {
        return Ok(None);
    };
    match address.parse::<SocketAddr>() {
        Ok(address) => Ok(Some(Endpoint::WebSocket(address))),
        Err(_) => Err(Failure::new(
            "address",
            format!("`{listen}` does not say where a Codex CLI is served"),
        )
        .advise("write ws://IP:PORT, such as ws://127.0.0.1:0, without a name and without a path; or stdio")
        .advise("for dwell's own clients, which come by WebSocket as well, leave ws:// out")),
    }
}

impl Dialect {
    /// How it is served.
    pub(crate) fn options(
        &self,
        endpoint: Endpoint,
        detached_life: Option<Duration>,
    ) -> Result<DialectOptions, Failure> {
        let mut options = DialectOptions::new(endpoint).auth(self.auth()?);
        if let Some(life) = detached_life {
            options = options.detached_life(life);
        }
        if let Some(bytes) = self.retention {
            options = options.retention(bytes);
        }
        Ok(match self.sandbox {
            Some(Sandbox::Off) => options.sandbox(dialect::Sandbox::Off),
            Some(Sandbox::Refuse) => options.sandbox(dialect::Sandbox::Refused),
            None => options,
        })
    }

    /// Whether anything was said that is about the dialect alone.
    pub(crate) fn says_something(&self) -> bool {
        self.ws_auth.is_some() || self.sandbox.is_some() || self.retention.is_some() || self.is_detailed()
    }

    fn is_detailed(&self) -> bool {
        self.ws_token_file.is_some() || self.ws_token_sha256.is_some() || self.is_signed()
    }

    fn is_signed(&self) -> bool {
        self.ws_shared_secret_file.is_some()
            || self.ws_issuer.is_some()
            || self.ws_audience.is_some()
            || self.ws_max_clock_skew_seconds.is_some()
    }

    fn auth(&self) -> Result<Auth, Failure> {
        let wrong = |text: &str, advice: &str| Err(Failure::new("ws-auth", text).advise(advice));
        match self.ws_auth {
            None if self.is_detailed() => wrong(
                "a token or a secret was given, and nobody is asked for one",
                "add --ws-auth capability-token or --ws-auth signed-bearer-token",
            ),
            None => Ok(Auth::Anybody),
            Some(WsAuth::CapabilityToken) if self.is_signed() => wrong(
                "a token that is given is not signed",
                "leave --ws-shared-secret-file, --ws-issuer, --ws-audience and --ws-max-clock-skew-seconds out",
            ),
            Some(WsAuth::CapabilityToken) => match (&self.ws_token_file, self.ws_token_sha256) {
                (Some(file), None) => {
                    let text = read(file)?;
                    let token = String::from_utf8_lossy(&text);
                    if token.trim().is_empty() {
                        return wrong("the token's file is empty", "put the token into it");
                    }
                    Ok(Auth::token(token.trim()))
                }
                (None, Some(Sha256(hash))) => Ok(Auth::Token(hash)),
                (None | Some(_), _) => wrong(
                    "nobody has said what the token is",
                    "add --ws-token-file FILE or --ws-token-sha256 HEX",
                ),
            },
            Some(WsAuth::SignedBearerToken) => self.signed(),
        }
    }

    fn signed(&self) -> Result<Auth, Failure> {
        let Some(file) = &self.ws_shared_secret_file else {
            return Err(
                Failure::new("ws-auth", "nobody has said what tokens are signed with")
                    .advise("add --ws-shared-secret-file FILE"),
            );
        };
        if self.ws_token_file.is_some() || self.ws_token_sha256.is_some() {
            return Err(Failure::new("ws-auth", "tokens that are signed are not given")
                .advise("leave --ws-token-file and --ws-token-sha256 out"));
        }
        let secret = read(file)?;
        let mut signed = Signed::new(secret.trim_ascii()).map_err(|error| Failure::of("ws-auth", &error))?;
        if let Some(issuer) = &self.ws_issuer {
            signed = signed.issuer(issuer);
        }
        if let Some(audience) = &self.ws_audience {
            signed = signed.audience(audience);
        }
        let skew = self
            .ws_max_clock_skew_seconds
            .map_or(CLOCK_SKEW, Duration::from_secs);
        Ok(Auth::Signed(signed.clock_skew(skew)))
    }
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::because("ws-auth", &format!("{} cannot be read", file.display()), &error))
}

fn sha256(text: &str) -> Result<Sha256, &'static str> {
    let wrong = "a SHA-256 has 64 hexadecimal digits";
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong);
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
    }
    Ok(Sha256(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_whether_it_is_the_dialects() {
        let local = |port| Endpoint::WebSocket(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(endpoint("ws://127.0.0.1:0").unwrap(), Some(local(0)));
        assert!(matches!(
            endpoint("ws://[::1]:7").unwrap(),
            Some(Endpoint::WebSocket(_))
        ));
        for stdio in ["stdio", "stdio://"] {
            assert_eq!(endpoint(stdio).unwrap(), Some(Endpoint::Stdio));
        }
        for wrong in [
            "ws://localhost:0",
            "ws://127.0.0.1:0/",
            "ws://127.0.0.1",
            "ws://127.0.0.1:65536",
            "ws://",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
        for native in ["0.0.0.0:7434", "wss://host:1", "stdio://x", "localhost"] {
            assert_eq!(endpoint(native).unwrap(), None, "{native}");
        }
    }

    #[test]
    fn what_is_said_of_tokens_has_to_fit_together() {
        let none = Dialect::default();
        assert!(matches!(none.auth(), Ok(Auth::Anybody)) && !none.says_something());
        let token = || Dialect {
            ws_auth: Some(WsAuth::CapabilityToken),
            ws_token_sha256: Some(sha256(&"ab".repeat(32)).unwrap()),
            ..Dialect::default()
        };
        assert!(matches!(token().auth(), Ok(Auth::Token(hash)) if hash == [0xab; 32]));
        let wrong = [
            Dialect {
                ws_auth: None,
                ..token()
            },
            Dialect {
                ws_token_sha256: None,
                ..token()
            },
            Dialect {
                ws_issuer: Some("i".into()),
                ..token()
            },
            Dialect {
                ws_auth: Some(WsAuth::SignedBearerToken),
                ..token()
            },
            Dialect {
                ws_token_sha256: None,
                ws_token_file: Some("/nowhere/token".into()),
                ..token()
            },
        ];
        assert!(wrong.iter().all(|wrong| wrong.auth().is_err()));
        assert!(sha256("ab").is_err() && sha256(&"xy".repeat(32)).is_err());
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_must_be_long() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let signed = Dialect {
            ws_auth: Some(WsAuth::SignedBearerToken),
            ws_shared_secret_file: Some(file.clone()),
            ..Dialect::default()
        };
        std::fs::write(&file, "short\n").unwrap();
        assert!(signed.auth().is_err());
        std::fs::write(&file, format!("{}\n", "x".repeat(32))).unwrap();
        assert!(matches!(signed.auth(), Ok(Auth::Signed(_))));
    }
}
