//! The same metrics over OTLP, where an endpoint is configured.
//!
//! The SDK's periodic reader exports on a thread of its own. Gauges and counters are observed when it collects, so that
//! a back end with delta temporality keeps a gauge that does not change; durations are handed to the SDK's histograms
//! once a second by a thread of ours, never by an actor.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use dwell_messages::Role;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter, MeterProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::families::{self, FAMILIES, Family, Kind};
use super::gather::{Gathered, Value, gather};
use super::histogram::{RESIDENCE_BOUNDS, RPC_BOUNDS};
use super::meters::{Duration as Measured, Side};
use crate::telemetry::{Collector, sdk, semconv, template};

/// How often durations are handed on.
const HAND_ON: Duration = Duration::from_secs(1);
/// How long the end waits for the last export.
const END_MAX: Duration = Duration::from_secs(2);

/// A running exporter; when this is dropped it exports once more, for which it is waited at most two seconds.
#[derive(Debug)]
pub(crate) struct Exporter {
    end: Option<SyncSender<SyncSender<()>>>,
}

impl Exporter {
    /// As the standard `OTEL_*` variables say: `None` when no endpoint is configured, the SDK is disabled, or
    /// `OTEL_METRICS_EXPORTER` names another exporter.
    ///
    /// # Errors
    /// What keeps a configured exporter from being made.
    pub(crate) fn from_environment(
        collector: &Collector,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        match endpoint(variable) {
            Some(endpoint) => Self::start(collector, endpoint).map(Some),
            None => Ok(None),
        }
    }

    fn start(collector: &Collector, endpoint: String) -> Result<Self, String> {
        let (end, ended) = sync_channel::<SyncSender<()>>(1);
        let (ready, built) = sync_channel(1);
        let collector = collector.clone();
        // The exporter's blocking client must be made outside every async runtime.
        std::thread::Builder::new()
            .name("dwell-meters".into())
            .spawn(move || {
                let instruments = match provider(collector.board().role(), &endpoint) {
                    Ok(provider) => Instruments::new(provider, &collector),
                    Err(error) => return drop(ready.send(Err(error))),
                };
                collector.board().meters().begin_export();
                drop(ready.send(Ok(())));
                loop {
                    let ending = ended.recv_timeout(HAND_ON);
                    instruments.hand_on(&collector);
                    let done = match ending {
                        Err(RecvTimeoutError::Timeout) => continue,
                        Ok(done) => Some(done),
                        Err(RecvTimeoutError::Disconnected) => None,
                    };
                    if let Err(error) = instruments.provider.shutdown() {
                        tracing::debug!(%error, "the last metrics were not exported");
                    }
                    if let Some(done) = done {
                        done.send(()).ok();
                    }
                    return;
                }
            })
            .map_err(|error| error.to_string())?;
        built.recv().map_err(|error| error.to_string())??;
        Ok(Self { end: Some(end) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        if let Some(end) = self.end.take()
            && end.try_send(done).is_ok()
        {
            // A back end that hangs is left to its timeout.
            wait.recv_timeout(END_MAX).ok();
        }
    }
}

fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let exporter =
        set("OTEL_METRICS_EXPORTER").is_none_or(|names| names.split(',').any(|name| name.trim() == "otlp"));
    let other = |name| set(name).is_some_and(|protocol| protocol != "http/protobuf");
    if disabled
        || !exporter
        || other("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")
        || other("OTEL_EXPORTER_OTLP_PROTOCOL")
    {
        return None;
    }
    set("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT").or_else(|| {
        let base = set("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        Some(format!("{}/v1/metrics", base.trim_end_matches('/')))
    })
}

fn provider(role: Role, endpoint: &str) -> Result<SdkMeterProvider, String> {
    let exporter = opentelemetry_otlp::MetricExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| error.to_string())?;
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(exporter)
        .with_resource(sdk::resource(role, |name| std::env::var(name).ok()));
    Ok(provider.build())
}

struct Instruments {
    provider: SdkMeterProvider,
    residence: Histogram<f64>,
    turn: Histogram<f64>,
    rpc: [Histogram<f64>; 2],
    dispatch: Histogram<f64>,
}

impl Instruments {
    fn new(provider: SdkMeterProvider, collector: &Collector) -> Self {
        let meter = provider.meter(semconv::SCOPE);
        let histogram = |family: Family, bounds: &[f64]| {
            meter
                .f64_histogram(family.name)
                .with_unit(family.unit)
                .with_description(family.help)
                .with_boundaries(bounds.to_vec())
                .build()
        };
        for family in FAMILIES {
            observed(&meter, *family, collector);
        }
        Self {
            residence: histogram(families::RESIDENCE, &RESIDENCE_BOUNDS),
            turn: histogram(families::TURN, &RESIDENCE_BOUNDS),
            dispatch: histogram(families::DISPATCH, &RPC_BOUNDS),
            rpc: [families::RPC_CLIENT, families::RPC_SERVER].map(|family| histogram(family, &RPC_BOUNDS)),
            provider,
        }
    }

    fn hand_on(&self, collector: &Collector) {
        for measured in collector.board().meters().take_exported() {
            match measured {
                Measured::Delivery(number, residence, turn) => {
                    let names = template::names(number);
                    let labels = [
                        KeyValue::new("actor", names.actor),
                        KeyValue::new("message", names.message),
                    ];
                    self.residence.record(residence, &labels);
                    self.turn.record(turn, &labels);
                }
                Measured::Dispatch(kind, part, seconds) => {
                    let labels = [KeyValue::new("kind", kind), KeyValue::new("at", part)];
                    self.dispatch.record(seconds, &labels);
                }
                Measured::Rpc(side, method, error, seconds) => {
                    let mut labels = vec![
                        KeyValue::new(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM),
                        KeyValue::new(semconv::RPC_METHOD, method),
                    ];
                    labels.extend(error.map(|error| KeyValue::new(semconv::ERROR_TYPE, error)));
                    let at = usize::from(side == Side::Server);
                    self.rpc[at].record(seconds, &labels);
                }
            }
        }
    }
}

/// What is looked at when it is collected. Histograms are not.
fn observed(meter: &Meter, family: Family, collector: &Collector) {
    // Not the collector itself: the provider would keep it alive.
    let looking = collector.downgrade();
    let samples = move || -> Vec<(f64, Vec<KeyValue>)> {
        let Some(collector) = looking.upgrade() else {
            return Vec::new();
        };
        numbers(&gather(&collector), family)
    };
    let samples = Arc::new(samples);
    match family.kind {
        Kind::Histogram => {}
        Kind::Gauge => drop(
            meter
                .f64_observable_gauge(family.name)
                .with_unit(family.unit)
                .with_description(family.help)
                .with_callback(move |observer| {
                    samples()
                        .iter()
                        .for_each(|(value, labels)| observer.observe(*value, labels));
                })
                .build(),
        ),
        Kind::Counter => drop(
            meter
                .f64_observable_counter(family.name)
                .with_unit(family.unit)
                .with_description(family.help)
                .with_callback(move |observer| {
                    samples()
                        .iter()
                        .for_each(|(value, labels)| observer.observe(*value, labels));
                })
                .build(),
        ),
    }
}

fn numbers(gathered: &Gathered, family: Family) -> Vec<(f64, Vec<KeyValue>)> {
    let Some((_, samples)) = gathered.0.get(family.name) else {
        return Vec::new();
    };
    let numbers = samples.iter().filter_map(|sample| match &sample.value {
        Value::Number(value) => {
            let labels = family.labels.iter().zip(&sample.labels);
            Some((
                *value,
                labels
                    .map(|(label, value)| KeyValue::new(*label, value.clone()))
                    .collect(),
            ))
        }
        Value::Histogram(_) => None,
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;
    use crate::telemetry::{CollectorOptions, Tick};

    fn asked(variables: &'static [(&str, &str)]) -> Option<String> {
        endpoint(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn collector() -> Collector {
        let options = CollectorOptions {
            role: Role::Executor,
            keep_recent: false,
            sinks: Vec::new(),
        };
        Collector::start(options).unwrap()
    }

    /// Reads one request, its body included, as far as its length says.
    fn request(stream: &mut TcpStream) -> Vec<u8> {
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..read]);
            let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else {
                assert!(read > 0, "the request broke off");
                continue;
            };
            let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if got.len() >= end + 4 + length.unwrap_or(0) || read == 0 {
                return got;
            }
        }
    }

    #[test]
    fn what_was_counted_is_exported_at_the_end_with_its_names() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
        let collector = collector();
        let exporter = Exporter::start(&collector, endpoint).unwrap();
        collector
            .board()
            .meters()
            .rpc(Side::Server, "Process/Start", None, Tick::now());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let got = request(&mut stream);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            got
        });
        drop(exporter);
        let got = server.join().unwrap();
        assert!(got.starts_with(b"POST /v1/metrics "));
        for name in [
            families::UPTIME.name,
            families::RPC_SERVER.name,
            "Process/Start",
            "dwell-executor",
        ] {
            let found = got.windows(name.len()).any(|window| window == name.as_bytes());
            assert!(found, "{name} is not in what was exported");
        }
    }

    #[test]
    fn a_back_end_that_hangs_is_not_waited_for_beyond_a_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
        let exporter = Exporter::start(&collector(), endpoint).unwrap();
        let begun = Instant::now();
        drop(exporter);
        assert!(begun.elapsed() < END_MAX * 3, "{:?}", begun.elapsed());
        drop(listener);
    }

    #[test]
    fn the_standard_variables_say_where_metrics_go_and_that_they_go_nowhere() {
        assert_eq!(asked(&[]), None);
        assert_eq!(
            asked(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1/")]).as_deref(),
            Some("http://127.0.0.1:1/v1/metrics")
        );
        assert_eq!(
            asked(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:2/m")]).as_deref(),
            Some("http://127.0.0.1:2/m")
        );
        for off in [
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
                ("OTEL_SDK_DISABLED", "true"),
            ],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
                ("OTEL_METRICS_EXPORTER", "none"),
            ],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ],
        ] {
            assert_eq!(asked(off), None);
        }
    }
}
