//! The metrics of real work: their names and labels are those that are listed, and no value of a label is an id.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::metrics::{FAMILIES, Kind, LABELS};
use dwell_actors::oversight::{Oversight, OversightError};
use dwell_actors::relay_server::Relay;
use dwell_actors::runtime::Runtime;
use dwell_actors::telemetry::{Collector, CollectorOptions};
use dwell_messages::Role;

use crate::support::{BOUND, bounded, copy, keypair, until};

const ANY: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer[9..12].parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

/// One series: its name, labels and value.
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// Label values here hold no commas and no quotes, which the test of labels sees to.
fn parse(text: &str) -> Vec<Series> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels
                .trim_end_matches('}')
                .split(',')
                .filter(|label| !label.is_empty());
            Series {
                name: name.to_owned(),
                labels: labels
                    .map(|label| {
                        let (name, value) = label.split_once('=').unwrap();
                        (name.to_owned(), value.trim_matches('"').to_owned())
                    })
                    .collect(),
                value: value.parse().unwrap_or(f64::INFINITY),
            }
        })
        .collect()
}

fn family_of(name: &str) -> Option<&'static str> {
    let plain = |family: &dwell_actors::metrics::Family| {
        let unit = match family.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let counter = if family.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        format!("{}{unit}{counter}", family.name.replace('.', "_"))
    };
    let found = FAMILIES.iter().find(|family| {
        let plain = plain(family);
        match family.kind {
            Kind::Histogram => ["_bucket", "_sum", "_count"]
                .iter()
                .any(|end| name == format!("{plain}{end}")),
            Kind::Counter | Kind::Gauge => name == plain,
        }
    });
    found.map(|family| family.name)
}

/// Words in lower or upper case, and names of methods: nothing that tells one thing of a kind from another.
fn is_of_a_set(value: &str) -> bool {
    let digits = value.chars().filter(char::is_ascii_digit).count();
    let word = value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_/()".contains(c));
    let hexadecimal = value.len() >= 8 && value.chars().all(|c| c.is_ascii_hexdigit());
    word && !hexadecimal && digits <= 1 && value.len() <= 32
}

#[tokio::test]
async fn names_and_labels_are_the_listed_ones_after_real_work_and_no_label_is_an_id() {
    let client = keypair();
    let looked_at = || Oversight::new().metrics(ANY);
    let relay = Relay::builder()
        .listen("127.0.0.1:0")
        .oversight(looked_at())
        .serve()
        .await
        .unwrap();
    let executor = Executor::builder()
        .relay(relay.local_addr())
        .authorize(client.public())
        .oversight(looked_at())
        .serve()
        .await
        .unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    let target = Target::relay(relay.local_addr(), executor.public_key());
    let harness = Harness::builder().identity(copy(&client)).oversight(looked_at());
    let harness = bounded("connecting", harness.connect(target)).await.unwrap();
    let mut ids = vec![executor.public_key().to_string(), relay.local_addr()];
    for command in [
        Command::new("true"),
        Command::new("head").args(["-c", "3000000", "/dev/zero"]),
        Command::new("sh").args(["-c", "exit 3"]),
        Command::new("/nowhere/to/be/found"),
    ] {
        let run = harness.exec(command);
        ids.push(run.trace_id().to_string());
        drop(bounded("a run", run.wait()).await);
    }
    let sleeping = harness.exec(Command::new("sleep").arg("1000"));
    harness.flush_traces().await;
    let scrapes = [
        harness.metrics_addr(),
        executor.metrics_addr(),
        relay.metrics_addr(),
    ]
    .map(Option::unwrap);
    let running = "dwell_processes{state=\"running\"} 1";
    let started = "rpc_server_call_duration_seconds_count{rpc_method=\"Process/Start\",error_type=\"\"} 4";
    // It is counted a moment after it runs.
    until("a command runs", || {
        let text = get(scrapes[1], "/metrics").1;
        text.contains(running) && text.contains(started)
    })
    .await;
    until("the relay has told of itself", || {
        get(scrapes[2], "/metrics").1.contains("dwell_relay_connections")
    })
    .await;
    let mut families = BTreeSet::new();
    for address in scrapes {
        let (status, text) = get(address, "/metrics");
        assert_eq!(status, 200);
        for id in &ids {
            assert!(!text.contains(id.as_str()), "{id} is in the metrics");
        }
        for series in parse(&text) {
            families
                .insert(family_of(&series.name).unwrap_or_else(|| panic!("{} is not listed", series.name)));
            assert!(series.value >= 0.0, "{} is {}", series.name, series.value);
            for (label, value) in series.labels {
                let listed = label == "le" || LABELS.contains(&label.as_str());
                assert!(listed, "{label} of {} is not listed", series.name);
                assert!(
                    label == "le" || value.is_empty() || is_of_a_set(&value),
                    "{label}={value} of {}",
                    series.name
                );
            }
        }
    }
    // Nobody here asks a model.
    let listed = FAMILIES.iter().map(|family| family.name);
    let listed: BTreeSet<_> = listed.filter(|name| !name.starts_with("dwell.model.")).collect();
    let missing: Vec<_> = listed.difference(&families).collect();
    assert!(missing.is_empty(), "listed, and told by no role: {missing:?}");
    let executor_says = get(scrapes[1], "/metrics").1;
    assert!(executor_says.contains(started), "{executor_says}");
    drop(sleeping);
    harness.shutdown().await;
}

/// The control of the test above.
#[test]
fn ids_are_known_as_ids() {
    for id in [
        "4711",
        "0af7651916cd43dd8448eb211c80319c",
        "127.0.0.1:7433",
        "k3f9x-12.1",
        "executor-12",
        "deadbeef",
    ] {
        assert!(!is_of_a_set(id), "{id}");
    }
    for word in ["Process/Start", "RelayFramer", "running", "_OTHER", "(other)"] {
        assert!(is_of_a_set(word), "{word}");
    }
}

#[tokio::test]
async fn an_executor_is_ready_when_its_relay_knows_it_and_not_before_or_after() {
    let (identity, client) = (keypair(), keypair());
    let relay = Relay::builder()
        .listen("127.0.0.1:0")
        .identity(copy(&identity))
        .serve()
        .await
        .unwrap();
    let address = relay.local_addr();
    relay.shutdown().await;
    let executor = Executor::builder()
        .relay(address.clone())
        .authorize(client.public())
        .oversight(Oversight::new().metrics(ANY))
        .serve()
        .await
        .unwrap();
    let endpoint = executor.metrics_addr().unwrap();
    assert_eq!(get(endpoint, "/readyz").0, 503);
    assert_eq!(get(endpoint, "/livez").0, 200);
    let relay = Relay::builder()
        .listen(address)
        .identity(identity)
        .serve()
        .await
        .unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    until("it is ready", || get(endpoint, "/readyz").0 == 200).await;
    relay.shutdown().await;
    until("it is not ready any more", || get(endpoint, "/readyz").0 == 503).await;
    executor.shutdown().await;
}

#[tokio::test]
async fn a_role_whose_thread_runs_nothing_is_not_alive_and_its_endpoint_says_so() {
    let options = CollectorOptions {
        role: Role::Relay,
        keep_recent: false,
        sinks: Vec::new(),
    };
    let runtime = Runtime::start(1, Collector::start(options).unwrap()).unwrap();
    let oversight = Oversight::new()
        .metrics(ANY)
        .stuck_after(Duration::from_millis(200))
        .live_after(Duration::from_secs(1));
    let relay = Relay::builder()
        .listen("127.0.0.1:0")
        .runtime(runtime.clone())
        .oversight(oversight)
        .serve()
        .await
        .unwrap();
    let endpoint = relay.metrics_addr().unwrap();
    assert_eq!(get(endpoint, "/readyz").0, 200);
    let (release, blocked) = sync_channel::<()>(1);
    let place = runtime.place();
    place.arbiter().spawn_fn(move || {
        blocked.recv().ok();
    });
    until("it is not alive", || get(endpoint, "/livez").0 == 503).await;
    assert!(get(endpoint, "/livez").1.contains("has run nothing for"));
    drop(release);
    until("it is alive again", || get(endpoint, "/livez").0 == 200).await;
    relay.shutdown().await;
}

#[tokio::test]
async fn metrics_beyond_loopback_are_refused_unless_somebody_allows_them() {
    let beyond = SocketAddr::from(([0, 0, 0, 0], 0));
    let serve = |oversight: Oversight| {
        Relay::builder()
            .listen("127.0.0.1:0")
            .oversight(oversight)
            .serve()
    };
    let refused = serve(Oversight::new().metrics(beyond)).await.unwrap_err();
    assert!(
        refused.to_string().contains("could be read by others"),
        "{refused}"
    );
    assert!(matches!(
        refused,
        dwell_actors::relay_server::RelayError::Oversight(OversightError::BeyondLoopback { .. })
    ));
    let loopback = serve(Oversight::new().metrics(ANY)).await.unwrap();
    assert!(
        loopback.metrics_addr().is_some(),
        "the control: on loopback nobody need allow it"
    );
}
