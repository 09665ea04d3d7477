//! How the binary's roles are looked at: inspection always unless it is declined, metrics when asked for.

use std::net::SocketAddr;

use clap::Args;
use dwell_actors::config::Home;
use dwell_actors::oversight::Oversight;

/// Whether `dwell inspect` is answered.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Inspected {
    /// Do not answer `dwell inspect` and `dwell trace top`.
    #[arg(long, env = "DWELL_NO_INSPECT", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_inspect: bool,
}

/// What a role that serves others tells of itself.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Overseen {
    #[command(flatten)]
    pub(crate) inspected: Inspected,
    /// Serve /metrics, /livez and /readyz over HTTP there, as 127.0.0.1:9464. Loopback only.
    #[arg(long, value_name = "ADDR", env = "DWELL_METRICS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Let --metrics name an address that others can reach: they read how much is done here.
    #[arg(long, requires = "metrics")]
    pub(crate) metrics_beyond_loopback: bool,
}

impl Inspected {
    pub(crate) fn oversight(self, home: &Home) -> Oversight {
        let oversight = Oversight::new();
        if self.no_inspect {
            oversight
        } else {
            oversight.inspect_or_warn(home.run_dir())
        }
    }
}

impl Overseen {
    pub(crate) fn oversight(&self, home: &Home) -> Oversight {
        let mut oversight = self.inspected.oversight(home);
        if let Some(address) = self.metrics {
            oversight = oversight.metrics(address);
        }
        if self.metrics_beyond_loopback {
            oversight = oversight.metrics_beyond_loopback();
        }
        oversight
    }
}
