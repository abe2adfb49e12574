//! The hosts of the demo and their traffic.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::frame::{self, RawSender};
use flowproof_tests::host::{Host, wire};
use flowproof_tests::lab::batch;
use flowproof_tests::traffic::{Manner, Server, ask, echo_tcp, exchange, serve_udp};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 10);
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 10);
const BROKER: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 10);
const DATABASE: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 10);

/// How long a client waits for an answer; the daemon calls silence by its name within 4 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Five hosts on wires of their own, and the router that joins them.
pub(crate) struct Farm {
    pub(crate) router: Arc<Host>,
    client: Arc<Host>,
    balancer: Arc<Host>,
    gateway: Arc<Host>,
    broker: Arc<Host>,
    /// Only held: it never initiates.
    _database: Arc<Host>,
    sequence: AtomicU16,
    _servers: Vec<Server>,
}

impl Farm {
    /// Builds the hosts, starts their servers and sets up the database's filter.
    pub(crate) fn new() -> Result<Self> {
        let router = Host::new("router")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        let host = |name: &'static str, address: Ipv4Addr| -> Result<Arc<Host>> {
            let host = Host::new(name)?;
            wire(&host, "uplink", &router, name)?;
            let [a, b, c, _] = address.octets();
            let way_out = Ipv4Addr::new(a, b, c, 1);
            router.ip(&format!("addr add {way_out}/24 dev {name}"))?;
            batch(
                &host,
                &format!("addr add {address}/24 dev uplink\nroute add default via {way_out}\n"),
            )?;
            Ok(host)
        };
        let client = host("client", CLIENT)?;
        let balancer = host("balancer", BALANCER)?;
        let gateway = host("gateway", GATEWAY)?;
        let broker = host("broker", BROKER)?;
        let database = host("database", DATABASE)?;
        // The row that a firewall swallows. The rogue flow comes from another address and gets through.
        database.filter(
            "input",
            &[&format!("ip saddr {BROKER} tcp dport 1433 drop")],
        )?;
        let servers = vec![
            echo_tcp(balancer.listen((BALANCER, 443))?)?,
            serve_udp(balancer.udp((BALANCER, 443))?, Manner::Echo)?,
            echo_tcp(gateway.listen((GATEWAY, 443))?)?,
            echo_tcp(broker.listen((BROKER, 20002))?)?,
            serve_udp(broker.udp((BROKER, 20000))?, Manner::Echo)?,
            echo_tcp(database.listen((DATABASE, 1433))?)?,
            serve_udp(database.udp((DATABASE, 514))?, Manner::Silent)?,
        ];
        Ok(Self {
            router,
            client,
            balancer,
            gateway,
            broker,
            _database: database,
            sequence: AtomicU16::new(0),
            _servers: servers,
        })
    }

    /// One round of everything that the farm does by itself, the row that is refused included. Failures are what the
    /// demo is about, so they are no errors here.
    pub(crate) fn round(&self) {
        let call = |host: &Host, target: Ipv4Addr, port: u16| {
            if let Ok(mut stream) = host.connect(None, (target, port), PATIENCE) {
                let _ = exchange(&mut stream, b"a request of the demo");
            }
        };
        let question = |host: &Host, target: Ipv4Addr, port: u16, limit: Duration| {
            if let Ok(socket) = host.udp((Ipv4Addr::UNSPECIFIED, 0))
                && socket.connect((target, port)).is_ok()
            {
                let _ = ask(&socket, b"a datagram of the demo", limit);
            }
        };
        let (soon, at_once) = (Duration::from_secs(1), Duration::from_millis(1));
        call(&self.client, BALANCER, 443);
        question(&self.client, BALANCER, 443, soon);
        call(&self.balancer, GATEWAY, 443);
        call(&self.gateway, BROKER, 20002);
        question(&self.gateway, BROKER, 20000, soon);
        question(&self.gateway, DATABASE, 514, at_once);
        // Nobody listens there.
        call(&self.gateway, DATABASE, 8443);
        let _ = self.raw();
    }

    /// What no socket sends: an echo request and an advertisement of the load balancer.
    fn raw(&self) -> Result<()> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (broker, gateway) = (IpAddr::from(BROKER), IpAddr::from(GATEWAY));
        let echo = frame::echo_request(broker, gateway, 7, sequence);
        RawSender::new(&self.broker)?.send(&frame::ip(broker, gateway, 1, &echo), gateway)?;
        let group = IpAddr::from(Ipv4Addr::new(224, 0, 0, 18));
        let advertisement = frame::vrrp(BALANCER, Ipv4Addr::new(10, 20, 0, 100));
        RawSender::new(&self.balancer)?.send(
            &frame::ip(BALANCER.into(), group, 112, &advertisement),
            group,
        )
    }

    /// The broker looks for its database, whose filter drops it.
    pub(crate) fn blocked(&self) {
        let _ = self.broker.connect(None, (DATABASE, 1433), PATIENCE);
    }

    /// A client helps itself at the database.
    pub(crate) fn rogue(&self) {
        if let Ok(mut stream) = self.client.connect(None, (DATABASE, 1433), PATIENCE) {
            let _ = exchange(&mut stream, b"select * from users");
        }
    }

    /// How to name the rogue flow on the command line of `flowproof explain`.
    pub(crate) fn rogue_flow() -> [String; 3] {
        [
            CLIENT.to_string(),
            "->".to_owned(),
            format!("{DATABASE}:1433/tcp"),
        ]
    }

    /// Sends rounds until told to stop.
    pub(crate) fn keep_busy(self: &Arc<Self>, stop: &Arc<AtomicBool>) {
        let every = |pause: Duration, work: fn(&Self)| {
            let (farm, stop) = (self.clone(), stop.clone());
            // Not joined: a call that waits for an answer would hold up the end of the demo.
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work(&farm);
                    std::thread::sleep(pause);
                }
            });
        };
        every(Duration::from_millis(500), Self::round);
        every(Duration::from_millis(500), Self::blocked);
        every(Duration::from_secs(2), Self::rogue);
    }
}
