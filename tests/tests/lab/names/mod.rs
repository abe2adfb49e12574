//! Verdicts by name, with real name servers, web servers and clients on either side of the daemon's router.

mod absent;
mod chains;
mod flood;
mod hellos;
mod late;
mod mismatch;
mod reload;
mod restart;
mod rotation;
mod shown;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, Setup, binary, run_to_end};
use flowproof_tests::host::wait_for;
use flowproof_tests::lab::{Routed, client4, client6};
use flowproof_tests::names::dnsmasq::{Dnsmasq, Zone};
use flowproof_tests::names::hello::{Client, Hello};
use flowproof_tests::names::identity::Identity;
use flowproof_tests::names::internet::{self, RESOLVER};
use flowproof_tests::names::nginx::Nginx;
use flowproof_tests::names::query::Asker;
use flowproof_tests::traffic::{Server, echo_tcp, exchange};
use serde_json::Value;

use super::{assert_soon, attempts, traffic};

const MATRIX: &str = include_str!("matrix.yaml");
const SITE: &str = include_str!("site.yaml");

/// A port whose service says no name: DNS is all there is.
const QUEUE: u16 = 5671;

/// How long a flow waits for its name in these labs.
const HOLD: Duration = Duration::from_secs(3);

/// A second of the lab is half a minute of the world: a TTL of 30 s is kept for one.
const TTL: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(2);
const HURRIED: &str = "names: {hold: 3s, ttl_max: 1s, grace: 2s}\n";

/// Names live for longer than any of these tests.
const UNHURRIED: &str = "names: {hold: 3s}\n";

/// How long the daemon may take to tell what it has seen: libpcap hands packets over in blocks.
const SOON: Duration = Duration::from_secs(5);

/// A test for each back end, which `$work` gets as its argument.
macro_rules! on_both {
    ($work:ident: $ebpf:ident, $pcap:ident) => {
        #[test]
        fn $ebpf() -> Result<()> {
            if flowproof_tests::names::skipped(stringify!($ebpf)) {
                return Ok(());
            }
            $work(Backend::Ebpf)
        }

        #[test]
        fn $pcap() -> Result<()> {
            if flowproof_tests::names::skipped(stringify!($pcap)) {
                return Ok(());
            }
            $work(Backend::Pcap)
        }
    };
}
pub(crate) use on_both;

/// Everything that runs during a test. It ends in the order of the fields: clients and the daemon before the servers.
struct Scene {
    /// TLS and TCP from the bound client, over IPv4 and IPv6.
    client: Client,
    client_v6: Client,
    /// Asks dnsmasq from the bound client.
    asker: Asker,
    daemon: Daemon,
    dnsmasq: Dnsmasq,
    _nginx: Nginx,
    _echo: Vec<Server>,
    identity: Arc<Identity>,
    lab: Routed,
}

impl Scene {
    fn new(backend: Backend, config: &str, zone: &Zone<'_>) -> Result<Self> {
        let lab = internet::new()?;
        let identity = Arc::new(Identity::new(&[
            "*.lab.example",
            "*.shop.example",
            "*.cdn.example",
        ])?);
        let nginx = Nginx::start(&lab.server, &identity, &[443, 8443], &[80])?;
        let echo = vec![
            echo_tcp(lab.server.listen((Ipv4Addr::UNSPECIFIED, QUEUE))?)?,
            echo_tcp(lab.server.listen((internet::site6(1), QUEUE))?)?,
        ];
        let dnsmasq = Dnsmasq::start(&lab.server, RESOLVER, zone)?;
        let daemon = Daemon::start(
            &lab.router,
            &Setup {
                backend,
                matrix: MATRIX,
                site: SITE,
                config,
                interfaces: &[],
            },
        )?;
        Ok(Self {
            client: Client::new(&lab.client, client4(2), &identity),
            client_v6: Client::new(&lab.client, client6(2), &identity),
            asker: Asker::new(&lab.client, client4(2), RESOLVER),
            daemon,
            dnsmasq,
            _nginx: nginx,
            _echo: echo,
            identity,
            lab,
        })
    }

    /// TLS with a request; the connection stays open as long as the result.
    fn tls(&self, server: IpAddr, hello: &Hello<'_>) -> Result<Open> {
        let mut conversation = self.client.tls((server, 443).into(), hello)?;
        conversation.get(hello.name, "/")?;
        Ok(Open::new(conversation.local_addr()?, "tcp", conversation))
    }

    /// A conversation that tells no name.
    fn queue(&self, server: IpAddr) -> Result<Open> {
        let client = if server.is_ipv4() {
            &self.client
        } else {
            &self.client_v6
        };
        let mut stream = client.connect((server, QUEUE).into())?;
        exchange(&mut stream, b"hello")?;
        Open::tcp(stream)
    }

    /// The one flow that this is.
    fn flow(&self, open: &Open) -> Result<Option<Value>> {
        let flows = flows(
            &self.daemon,
            &format!(
                "protocol={}&initiator={}&initiator_port={}",
                open.protocol,
                open.client.ip(),
                open.client.port()
            ),
        )?;
        assert!(flows.len() <= 1, "one connection, many flows: {flows:?}");
        Ok(flows.into_iter().next())
    }

    /// Waits until the flow has this verdict, for at most `limit`, and returns its line. Before, it may be unknown or
    /// pending, and nothing else: a verdict that was wrong for a moment is a false alarm.
    #[track_caller]
    fn verdict_within(&self, open: &Open, verdict: &str, limit: Duration) -> Value {
        let mut last = None;
        let found = wait_for(limit, || {
            last = self.flow(open).expect("the API answers");
            let flow = last.as_ref()?;
            let is = flow["verdict"].as_str()?;
            assert!(
                is == verdict || is == "pending",
                "{is} instead of {verdict}: {flow}"
            );
            (is == verdict).then(|| flow.clone())
        });
        found.unwrap_or_else(|| {
            panic!(
                "no flow from {} became {verdict} within {limit:?}: {last:?}",
                open.client
            )
        })
    }

    /// The flow is expected by the service of the requirement, and by nothing else.
    #[track_caller]
    fn assert_expected(&self, open: &Open, requirement: &str, service: &str) -> Value {
        let flow = self.verdict_within(open, "expected", SOON);
        assert_eq!(
            flow["requirements"],
            serde_json::json!([format!("lab/{requirement}#{service}")]),
            "{flow}"
        );
        flow
    }

    /// The flow is unexpected, and first of all since its name is another than that of the requirement's service.
    #[track_caller]
    fn assert_mismatch(&self, open: &Open, requirement: &str, service: &str) -> Value {
        let flow = self.verdict_within(open, "unexpected", SOON);
        let first = &flow["near_misses"][0];
        assert_eq!(first["kind"], "name_mismatch", "{flow}");
        assert_eq!(
            first["requirement"],
            format!("lab/{requirement}#{service}"),
            "{flow}"
        );
        flow
    }

    /// How many flows were ever counted with a verdict.
    fn counted(&self, verdict: &str) -> Result<u64> {
        Ok(self
            .daemon
            .metrics()?
            .count("flowproof_flows_total", &[("verdict", verdict)]))
    }

    /// The requirement's service has begun these flows and no others, and counts their packets, each from its first one
    /// on.
    #[track_caller]
    fn assert_row(&self, requirement: &str, service: &str, flows: &[&Open]) {
        self.assert_counts(requirement, service, || {
            let mut sum = (flows.len() as u64, 0, 0);
            for open in flows {
                let flow = self.flow(open)?.context("a flow is gone")?;
                sum.1 += flow["packets"][0].as_u64().context("no packets")?;
                sum.2 += flow["packets"][1].as_u64().context("no packets")?;
            }
            Ok(sum)
        });
    }

    /// The requirement's service comes to the counts that `judge` gives: flows, packets to the responders, and back. The
    /// judge is asked again each time, since an acknowledgement may still be on its way.
    #[track_caller]
    fn assert_counts(
        &self,
        requirement: &str,
        service: &str,
        judge: impl Fn() -> Result<(u64, u64, u64)>,
    ) {
        // Both sides of QUIC go on sending while the name is read. A packet that another CPU counts at the very moment in
        // which its flow is released may be counted twice or not at all for the row (`count_all` in the kernel programs).
        let slack = if service.starts_with("udp") {
            judge().map_or(0, |(flows, ..)| flows)
        } else {
            0
        };
        let mut last = None;
        let found = wait_for(SOON, || {
            let expected = judge().expect("the judge knows");
            let metrics = self.daemon.metrics().expect("the daemon answers");
            let is = (
                attempts(&metrics, requirement, service),
                traffic(&metrics, requirement, service, "to_responder").0,
                traffic(&metrics, requirement, service, "to_initiator").0,
            );
            last = Some((is, expected));
            (is.0 == expected.0
                && is.1.abs_diff(expected.1) <= slack
                && is.2.abs_diff(expected.2) <= slack)
                .then_some(())
        });
        assert!(
            found.is_some(),
            "{requirement} {service}: flows, packets there and back as counted, and as they should be: {last:?}"
        );
    }

    /// Nothing that the daemon should have seen was lost to it.
    #[track_caller]
    fn assert_nothing_lost(&self) {
        assert_soon(&self.daemon, "what was lost", &0, |metrics| {
            metrics.count("flowproof_lost_total", &[])
        });
    }
}

/// A connection that lasts as long as this, so that its flow can be looked at.
struct Open {
    client: SocketAddr,
    protocol: &'static str,
    _connection: Box<dyn std::any::Any>,
}

impl Open {
    fn new(client: SocketAddr, protocol: &'static str, connection: impl std::any::Any) -> Self {
        Self {
            client,
            protocol,
            _connection: Box::new(connection),
        }
    }

    fn tcp(stream: TcpStream) -> Result<Self> {
        Ok(Self::new(stream.local_addr()?, "tcp", stream))
    }
}

/// What the API lists.
fn flows(daemon: &Daemon, query: &str) -> Result<Vec<Value>> {
    listed(daemon, &format!("/api/v1/flows?{query}"), "flow")
}

/// The line of a requirement.
fn requirement(daemon: &Daemon, id: &str) -> Result<Value> {
    listed(
        daemon,
        &format!("/api/v1/requirements?requirement=lab/{id}"),
        "requirement",
    )?
    .pop()
    .with_context(|| format!("no requirement {id}"))
}

fn listed(daemon: &Daemon, path: &str, kind: &str) -> Result<Vec<Value>> {
    let got = daemon.get(path)?;
    anyhow::ensure!(got.status == 200, "GET {path}: {}{}", got.head, got.body);
    let lines: Vec<Value> = serde_json::from_str(&got.body)?;
    Ok(lines
        .into_iter()
        .filter(|line| line["type"] == kind)
        .collect())
}

/// What `flowproof replay` makes of a capture file in the daemon's folder, with the daemon's matrix and site, and with the
/// lifetimes of names that users have.
fn replay(scene: &Scene, file: &str) -> Result<Vec<Value>> {
    let output = run_to_end(
        Command::new(binary())
            .current_dir(scene.daemon.folder())
            .args(["replay", "--format", "json", "--matrix", "matrix.yaml"])
            .args(["--site", "site.yaml", file]),
        Duration::from_secs(20),
    )?;
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// Whether any text of a flow's evidence holds `part`, in either case.
fn has_evidence(flow: &Value, part: &str) -> bool {
    let part = part.to_lowercase();
    flow["evidence"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|text| text.to_lowercase().contains(&part))
}

/// Whether the responder's end of a flow has this name.
fn has_name(flow: &Value, name: &str) -> bool {
    flow["responder"]["names"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|known| known == name)
}
