//! Counts are exact: what the kernel's own counters saw pass is what the daemon says, with both CPUs busy, and also
//! when the daemon dies in the middle of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::judge::PacketJudge;
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, UPLINK, client4, server4};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::traffic::{Manner, Server, ask, echo_tcp, exchange, serve_udp};

use super::{assert_soon, attempts, decided, traffic};

const SOON: Duration = Duration::from_secs(2);
/// What the judge counts; the rows of `traffic.yaml`.
const JUDGED: [(&str, &str); 4] = [
    ("asks_there", "ip daddr 10.1.0.10 udp dport 7000-7999"),
    ("asks_back", "ip saddr 10.1.0.10 udp sport 7000-7999"),
    ("calls_there", "ip daddr 10.1.0.10 tcp dport 8000"),
    ("calls_back", "ip saddr 10.1.0.10 tcp sport 8000"),
];
/// Each (judge's counter, requirement, service, direction).
const ROWS: [(&str, &str, &str, &str); 4] = [
    ("asks_there", "asks", "udp/7000-7999", "to_responder"),
    ("asks_back", "asks", "udp/7000-7999", "to_initiator"),
    ("calls_there", "calls", "tcp/8000", "to_responder"),
    ("calls_back", "calls", "tcp/8000", "to_initiator"),
];

pub(super) fn setup(backend: Backend) -> Setup<'static> {
    Setup {
        backend,
        matrix: include_str!("traffic.yaml"),
        site: include_str!("traffic-site.yaml"),
        // libpcap's buffer holds a burst that a busy machine leaves unread for a moment.
        config: "capture: {pcap: {buffer_size: 64MiB}}",
        interfaces: &[TO_CLIENT, TO_SERVER],
    }
}

pub(super) fn serve(lab: &Routed) -> Result<Vec<Server>> {
    let mut servers = vec![echo_tcp(lab.server.listen((server4(10), 8000))?)?];
    for port in 7000..7004 {
        let socket = lab.server.udp((server4(10), port))?;
        servers.push(serve_udp(socket, Manner::Echo)?);
    }
    Ok(servers)
}

/// Asserts that the daemon's packets and bytes are the judge's.
#[track_caller]
fn assert_counts(daemon: &Daemon, judge: &PacketJudge) {
    let judged = judge.counts().expect("nft's counters");
    let expected: Vec<_> = ROWS
        .iter()
        .map(|row| (row.0, judged[row.0].packets, judged[row.0].bytes))
        .collect();
    assert!(
        expected.iter().all(|row| row.1 > 0),
        "nothing was sent: {expected:?}"
    );
    assert_soon(daemon, "packets and bytes", &expected, |metrics| {
        ROWS.iter()
            .map(|row| {
                let (packets, bytes) = traffic(metrics, row.1, row.2, row.3);
                (row.0, packets, bytes)
            })
            .collect()
    });
}

fn flows(metrics: &Metrics) -> [u64; 4] {
    [
        attempts(metrics, "asks", "udp/7000-7999"),
        decided(metrics, "asks", "udp/7000-7999", "answered"),
        attempts(metrics, "calls", "tcp/8000"),
        decided(metrics, "calls", "tcp/8000", "answered"),
    ]
}

#[test]
fn counts_are_exact_ebpf() -> Result<()> {
    counts_are_exact(
        "counts_are_exact_ebpf",
        &setup(Backend::Ebpf),
        Place::Router,
    )
}

#[test]
fn counts_are_exact_on_the_server_ebpf() -> Result<()> {
    let setup = Setup {
        interfaces: &[UPLINK],
        ..setup(Backend::Ebpf)
    };
    counts_are_exact("counts_are_exact_on_the_server_ebpf", &setup, Place::Server)
}

#[test]
fn counts_are_exact_on_the_server_pcap() -> Result<()> {
    let setup = Setup {
        interfaces: &[UPLINK],
        ..setup(Backend::Pcap)
    };
    counts_are_exact("counts_are_exact_on_the_server_pcap", &setup, Place::Server)
}

/// Where the daemon runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between the two ends: it sees each packet twice.
    Router,
    /// On one of the ends: sockets take packets and drop some.
    Server,
}

#[test]
fn counts_are_exact_clsact() -> Result<()> {
    let setup = Setup {
        config: "capture: {ebpf: {attach: clsact}}",
        ..setup(Backend::Ebpf)
    };
    counts_are_exact("counts_are_exact_clsact", &setup, Place::Router)
}

#[test]
fn counts_are_exact_pcap() -> Result<()> {
    counts_are_exact(
        "counts_are_exact_pcap",
        &setup(Backend::Pcap),
        Place::Router,
    )
}

fn counts_are_exact(test: &str, setup: &Setup<'_>, place: Place) -> Result<()> {
    const ASKERS: u16 = 4;
    const SOCKETS: u16 = 50;
    const DATAGRAMS: u64 = 100;
    const CALLERS: u16 = 2;
    const CALLS: u16 = 100;
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _servers = serve(&lab)?;
    let (host, judge) = match place {
        Place::Router => (&lab.router, PacketJudge::forwarded(&lab.router, &JUDGED)?),
        Place::Server => (&lab.server, PacketJudge::own(&lab.server, &JUDGED)?),
    };
    let daemon = Daemon::start(host, setup)?;

    std::thread::scope(|scope| {
        let asking = (0..ASKERS).map(|asker| {
            let lab = &lab;
            scope.spawn(move || -> Result<()> {
                for number in 0..SOCKETS {
                    // A port of its own for each: a port used twice would be the same flow.
                    let port = 20_000 + asker * SOCKETS + number;
                    let socket = lab.client.udp((client4(2), port))?;
                    socket.connect((server4(10), 7000 + asker))?;
                    for _ in 0..DATAGRAMS {
                        anyhow::ensure!(ask(&socket, b"question", SOON)?, "no answer");
                    }
                }
                Ok(())
            })
        });
        let calling = (0..CALLERS).map(|caller| {
            let lab = &lab;
            scope.spawn(move || -> Result<()> {
                for number in 0..CALLS {
                    let source = (client4(3), 20_000 + caller * CALLS + number).into();
                    let mut stream = lab
                        .client
                        .connect(Some(source), (server4(10), 8000), SOON)?;
                    for _ in 0..5 {
                        exchange(&mut stream, &[b'x'; 100])?;
                    }
                }
                Ok(())
            })
        });
        let threads: Vec<_> = asking.chain(calling).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a sender"))
    })?;
    // The last closing handshake.
    std::thread::sleep(Duration::from_millis(200));

    let asked = u64::from(ASKERS * SOCKETS);
    assert_eq!(
        judge.count("asks_there")?.packets,
        asked * DATAGRAMS,
        "the judge itself"
    );
    assert_soon(&daemon, "nothing lost", &0, |metrics| {
        metrics.count("flowproof_lost_total", &[])
    });
    assert_counts(&daemon, &judge);
    let called = u64::from(CALLERS * CALLS);
    assert_soon(
        &daemon,
        "flows begun and answered",
        &[asked, asked, called, called],
        flows,
    );
    Ok(())
}

/// Sends until it is told to end: four conversations that go on, and a new connection every few milliseconds.
pub(super) struct Background<'a> {
    lab: &'a Routed,
    ended: AtomicBool,
    /// Connections made.
    pub(super) called: AtomicU64,
}

impl<'a> Background<'a> {
    pub(super) fn new(lab: &'a Routed) -> Self {
        Self {
            lab,
            ended: AtomicBool::new(false),
            called: AtomicU64::new(0),
        }
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn ask(&self, port: u16) -> Result<()> {
        let socket = self.lab.client.udp((client4(2), 0))?;
        socket.connect((server4(10), port))?;
        while !self.ended.load(Ordering::Relaxed) {
            anyhow::ensure!(ask(&socket, b"question", SOON)?, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(super) fn call(&self) -> Result<()> {
        while !self.ended.load(Ordering::Relaxed) {
            let source = (client4(3), 0).into();
            let mut stream = self
                .lab
                .client
                .connect(Some(source), (server4(10), 8000), SOON)?;
            self.called.fetch_add(1, Ordering::Relaxed);
            exchange(&mut stream, &[b'x'; 100])?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// Runs `during` while [`Background`] sends, and ends both.
pub(super) fn with_background<T>(
    background: &Background<'_>,
    during: impl FnOnce() -> Result<T>,
) -> Result<T> {
    /// Ends the senders also when `during` panics, or the scope would wait for ever.
    struct EndOnDrop<'a>(&'a Background<'a>);
    impl Drop for EndOnDrop<'_> {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    std::thread::scope(|scope| {
        let mut threads: Vec<_> = (7000..7004)
            .map(|port| scope.spawn(move || background.ask(port)))
            .collect();
        threads.push(scope.spawn(|| background.call()));
        let ending = EndOnDrop(background);
        let result = during();
        drop(ending);
        for thread in threads {
            thread.join().expect("a sender")?;
        }
        result
    })
}

#[test]
fn a_killed_daemon_misses_nothing() -> Result<()> {
    misses_nothing(
        "a_killed_daemon_misses_nothing",
        &setup(Backend::Ebpf),
        Daemon::kill,
    )
}

#[test]
fn an_upgraded_daemon_misses_nothing() -> Result<()> {
    let setup = Setup {
        config: "capture: {ebpf: {on_exit: keep}}",
        ..setup(Backend::Ebpf)
    };
    misses_nothing("an_upgraded_daemon_misses_nothing", &setup, |daemon| {
        let (status, _) = daemon.terminate()?;
        assert!(status.success(), "{status}\n{}", daemon.stderr());
        Ok(())
    })
}

/// Ends the daemon by `end` in the middle of traffic, and starts it again.
fn misses_nothing(test: &str, setup: &Setup<'_>, end: fn(&mut Daemon) -> Result<()>) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _servers = serve(&lab)?;
    let judge = PacketJudge::forwarded(&lab.router, &JUDGED)?;
    let mut daemon = Daemon::start(&lab.router, setup)?;
    let background = Background::new(&lab);
    with_background(&background, || {
        let pause = || std::thread::sleep(Duration::from_millis(700));
        pause();
        end(&mut daemon)?;
        let at_death = judge.count("asks_there")?.packets;
        pause();
        assert!(
            judge.count("asks_there")?.packets > at_death,
            "nothing was sent while there was no daemon"
        );
        daemon.start_again()?;
        pause();
        Ok(())
    })?;
    std::thread::sleep(Duration::from_millis(200));
    let called = background.called.load(Ordering::Relaxed);
    assert_counts(&daemon, &judge);
    assert_soon(
        &daemon,
        "flows begun and answered",
        &[4, 4, called, called],
        flows,
    );
    Ok(())
}

/// A failure outlives the daemon that noticed it: its successor must not call the row verified.
#[test]
fn a_degraded_row_stays_degraded_after_a_restart() -> Result<()> {
    const TEST: &str = "a_degraded_row_stays_degraded_after_a_restart";
    if lab::skipped(TEST) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let target = (server4(10), 8000);
    let server = echo_tcp(lab.server.listen(target)?)?;
    let mut daemon = Daemon::start(&lab.router, &setup(Backend::Ebpf))?;
    let source = Some((client4(2), 0).into());
    let mut stream = lab.client.connect(source, target, SOON)?;
    exchange(&mut stream, b"question")?;
    drop(stream);
    drop(server);
    // Nobody listens any more.
    assert!(lab.client.connect(source, target, SOON).is_err());
    let degraded = |metrics: &Metrics| {
        let labels = [
            ("requirement", "calls"),
            ("service", "tcp/8000"),
            ("state", "degraded"),
        ];
        metrics.sum("flowproof_requirement_state", &labels) > 0.0
    };
    assert_soon(&daemon, "degraded", &true, degraded);
    daemon.kill()?;
    daemon.start_again()?;
    assert_soon(&daemon, "degraded after the restart", &true, degraded);
    Ok(())
}
