//! Those who mean no good: a thousand wrong passwords, a thousand slow clients. All the while traffic goes by, every flow is
//! judged, and a good client is answered.

#![expect(
    clippy::print_stdout,
    reason = "figures for whoever looks at them, by --nocapture"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flowproof_tests::metrics::Metrics;

use crate::site::{ANN, AS_ANN, At, Site, TLS, skipped};

/// How long a good client may wait, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(3);

fn answered(metrics: &Metrics) -> u64 {
    metrics.count(
        "flowproof_requirement_flows_total",
        &[("outcome", "answered")],
    )
}

/// Waits until as many flows are counted, and nothing is lost.
fn await_flows(site: &Site, more: &[&str], expect: u64) -> Result<Metrics> {
    let begin = Instant::now();
    loop {
        let metrics = site.scrape(more)?;
        if answered(&metrics) == expect {
            assert_eq!(metrics.count("flowproof_lost_total", &[]), 0);
            return Ok(metrics);
        }
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{} of {expect}",
            answered(&metrics)
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Scrapes again and again while `done` is not yet true; how long the slowest took, and how many there were.
fn good_client(
    site: &Site,
    at: At,
    more: &[&str],
    done: impl Fn() -> bool,
) -> Result<(Duration, u32)> {
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    while !done() {
        let begin = Instant::now();
        let got = site.ask(at, "/metrics", more)?;
        assert_eq!(got.status, 200, "{at:?}: {got:?}");
        slowest = slowest.max(begin.elapsed());
        count += 1;
        thread::sleep(Duration::from_millis(50));
    }
    Ok((slowest, count))
}

#[test]
fn a_thousand_wrong_passwords_keep_nobody_waiting() -> Result<()> {
    const GUESSES: usize = 1_000;
    const FLOWS: u32 = 300;
    if skipped("a_thousand_wrong_passwords_keep_nobody_waiting") {
        return Ok(());
    }
    let mut site = Site::new(&format!(
        "{TLS}basic_auth_users:\n  {ANN}\n  bob: $2b$10$abcdefghijklmnopqrstuu7TafERl.LoW8ZdGXwj1GJdO0M45b/5W\n"
    ))?;
    site.start_secured()?;
    // A scraper that was let in before, from where the guesses will come.
    assert_eq!(site.ask(At::Network, "/metrics", &AS_ANN)?.status, 200);
    let mut guesses = String::new();
    for number in 0..GUESSES {
        if number > 0 {
            guesses.push_str("next\n");
        }
        writeln!(
            guesses,
            "url = \"https://{}/metrics\"\nuser = \"bob:guess {number}\"\ncacert = \"ca.pem\"\noutput = \"/dev/null\"\n\
             write-out = \"%{{http_code}}\\n\"",
            At::Network.address()
        )?;
    }
    fs::write(site.file("guesses"), guesses)?;
    let mut guesser = Command::new("curl");
    guesser
        .args([
            "--silent",
            "--parallel",
            "--parallel-max",
            "30",
            "--config",
            "guesses",
        ])
        .current_dir(site.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let guessing = site.host(At::Network).start(&mut guesser)?;
    // Set by those whom the good clients outlast.
    let ended = AtomicUsize::new(0);
    let done = || ended.load(Ordering::SeqCst) == 2;
    let (output, near, far, others) = thread::scope(|scope| {
        let guessing = scope.spawn(|| {
            let output = guessing.wait_with_output();
            ended.fetch_add(1, Ordering::SeqCst);
            output
        });
        let traffic = scope.spawn(|| {
            let gone = site.traffic(FLOWS);
            ended.fetch_add(1, Ordering::SeqCst);
            gone
        });
        let near = scope.spawn(|| good_client(&site, At::Network, &AS_ANN, done));
        let far = scope.spawn(|| good_client(&site, At::Loopback, &AS_ANN, done));
        // Somebody who was not let in before, from elsewhere.
        let begin = Instant::now();
        let other = site.ask(At::Loopback, "/", &["--user", "bob:battery staple"])?;
        let others = (other.status, begin.elapsed());
        let far = far.join().ok().context("no far client")??;
        let near = near.join().ok().context("no near client")??;
        traffic.join().ok().context("no traffic")??;
        let output = guessing.join().ok().context("no guesses")??;
        anyhow::Ok((output, near, far, others))
    })?;
    let statuses = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |status: &str| statuses.lines().filter(|line| *line == status).count();
    let (wrong, later) = (count("401"), count("429"));
    println!(
        "401: {wrong}, 429: {later}; slowest and number of scrapes: {near:?}, {far:?}; a newcomer: {others:?}"
    );
    assert_eq!(count("200"), 0);
    assert!(wrong + later > GUESSES * 9 / 10, "{statuses}");
    // Five tries, and one more every ten seconds.
    assert!((3..=30).contains(&wrong), "{wrong}");
    assert!(near.1 > 0 && far.1 > 0, "{near:?} {far:?}");
    assert!(near.0 < PATIENCE && far.0 < PATIENCE, "{near:?} {far:?}");
    assert!(others.0 == 200 && others.1 < PATIENCE * 2, "{others:?}");
    let metrics = await_flows(&site, &AS_ANN, FLOWS.into())?;
    let failures =
        |reason| metrics.count("flowproof_web_auth_failures_total", &[("reason", reason)]);
    let (wrong, later) = (u64::try_from(wrong)?, u64::try_from(later)?);
    assert!(failures("wrong") >= wrong && failures("throttled") >= later);
    assert!(site.is_running()?);
    Ok(())
}

/// Clients that send this and no more.
fn slow_clients(site: &Site, count: usize, begin: &[u8]) -> Result<Vec<TcpStream>> {
    let host = site.host(At::Network);
    host.run(|| {
        (0..count)
            .map(|_| {
                let mut stream = TcpStream::connect(At::Network.address())?;
                stream.write_all(begin)?;
                Ok(stream)
            })
            .collect()
    })
}

#[test]
fn a_thousand_slow_clients_keep_nobody_waiting() -> Result<()> {
    // Half the head of a request.
    let begin = b"GET /metrics HTTP/1.1\r\nHost: ro";
    slow("a_thousand_slow_clients_keep_nobody_waiting", "", begin)
}

#[test]
fn a_thousand_slow_clients_keep_nobody_waiting_by_tls() -> Result<()> {
    // The beginning of a ClientHello.
    let begin = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    slow(
        "a_thousand_slow_clients_keep_nobody_waiting_by_tls",
        TLS,
        begin,
    )
}

fn slow(test: &str, web: &str, begin: &[u8]) -> Result<()> {
    const SLOW: usize = 1_000;
    const FLOWS: u32 = 200;
    if skipped(test) {
        return Ok(());
    }
    let mut site = Site::new(web)?;
    site.start_secured()?;
    let plain = web.is_empty();
    let ask = |at| {
        if plain {
            site.ask_plain(at, "/metrics", &[])
        } else {
            site.ask(at, "/metrics", &[])
        }
    };
    let mut slow = slow_clients(&site, SLOW, begin)?;
    let traffic = thread::scope(|scope| {
        let traffic = scope.spawn(|| site.traffic(FLOWS));
        let mut slowest = Duration::ZERO;
        // Longer than the head of a request may take.
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < Duration::from_secs(12) {
            for at in [At::Network, At::Loopback] {
                let begin = Instant::now();
                let got = ask(at)?;
                assert_eq!(got.status, 200, "{at:?}: {got:?}");
                slowest = slowest.max(begin.elapsed());
                count += 1;
            }
            // They come again, as those do who mean it.
            slow.extend(slow_clients(&site, 20, begin)?);
            thread::sleep(Duration::from_millis(200));
        }
        println!(
            "{count} scrapes, the slowest {slowest:?}, among {} slow clients",
            slow.len()
        );
        assert!(count >= 10 && slowest < PATIENCE, "{count} {slowest:?}");
        traffic.join().ok().context("no traffic")?
    });
    traffic?;
    let got = ask(At::Loopback)?;
    let metrics = Metrics::parse(&got.body)?;
    let refused = |reason| {
        metrics.count(
            "flowproof_web_connections_refused_total",
            &[("reason", reason)],
        )
    };
    println!("pushed out: {}", refused("address"));
    assert!(refused("address") >= 900, "{}", refused("address"));
    let open = metrics.count("flowproof_web_connections", &[]);
    assert!(open <= 66, "{open}");
    assert_eq!(answered(&metrics), u64::from(FLOWS));
    assert_eq!(metrics.count("flowproof_lost_total", &[]), 0);
    // The last of them, whom nobody pushed out, were hung up on for being slow.
    thread::sleep(Duration::from_secs(11));
    let metrics = Metrics::parse(&ask(At::Loopback)?.body)?;
    let count = metrics.count(
        "flowproof_web_connections_refused_total",
        &[("reason", "slow")],
    );
    assert!((50..=64).contains(&count), "{count}");
    let open = metrics.count("flowproof_web_connections", &[]);
    assert!(open <= 2, "{open}");
    let mut last = slow.pop().context("nobody")?;
    last.set_read_timeout(Some(Duration::from_secs(1)))?;
    let heard = last.read(&mut [0; 256]);
    let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!heard.is_err_and(waits), "still connected");
    Ok(())
}
