//! Files that are bad, and files that change.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::site::{ANN, AS_ANN, At, SERVER, Site, TLS, skipped};

/// Files are looked at once a second.
const LOOK: Duration = Duration::from_millis(1_100);

#[test]
fn a_bad_file_is_refused_at_the_start_without_telling_secrets() -> Result<()> {
    if skipped("a_bad_file_is_refused_at_the_start_without_telling_secrets") {
        return Ok(());
    }
    let site = Site::new(
        "tls_server_config: {cert_file: none.pem, key_file: server.key, min_version: TLS10}\nbasic_auth_users:\n  ann: hunter2\n\
         certs: x\n",
    )?;
    let (code, said) = site.refused(&["--web-config", "web.yaml"])?;
    assert_eq!(code, Some(2), "{said}");
    for part in [
        "web.yaml:1:32: error[bad-certificate]",
        "none.pem",
        "web.yaml:1:77: error[unsupported-value]",
        "web.yaml:3:8: error[bad-hash]",
        "web.yaml:4:1: error[unknown-key]",
        "the web configuration has errors",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    let (code, said) = site.refused(&["--web-config", "nothing.yaml"])?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nothing.yaml: no such file"), "{said}");
    Ok(())
}

/// The certificate's serial number and end, as a client sees it.
fn shown(site: &Site) -> Result<String> {
    let got = site.ask(At::Network, "/-/healthy", &["--insecure", "--verbose"])?;
    let lines = got.error.lines().filter(|line| {
        line.contains("expire date")
            || line.contains("start date")
            || line.contains("SSL certificate verify")
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_renewed_certificate_is_served_to_the_next_client() -> Result<()> {
    if skipped("a_renewed_certificate_is_served_to_the_next_client") {
        return Ok(());
    }
    let mut site = Site::new(TLS)?;
    site.start_secured()?;
    assert!(shown(&site)?.contains("2040"), "{}", shown(&site)?);
    site.authority.issue(site.path(), "server", &SERVER, 2039)?;
    sleep(LOOK);
    assert!(shown(&site)?.contains("2039"), "{}", shown(&site)?);
    assert_eq!(site.ask(At::Network, "/-/healthy", &[])?.status, 200);

    // One that has run out is served, and said.
    site.authority.issue(site.path(), "server", &SERVER, 2021)?;
    sleep(LOOK);
    let strict = site.ask(At::Network, "/metrics", &[])?;
    assert!(
        strict.status == 0 && strict.error.contains("expired"),
        "{strict:?}"
    );
    let metrics = site.scrape(&["--insecure"])?;
    let expiry = metrics.sum("flowproof_web_certificate_expiry_timestamp_seconds", &[]);
    // The end of 2021.
    assert!(
        (1_640_000_000.0..1_641_000_000.0).contains(&expiry),
        "{expiry}"
    );
    assert!(
        site.said()
            .contains("certificate of the web server has run out"),
        "{}",
        site.said()
    );
    site.traffic(5)?;
    let judged = || -> Result<u64> {
        let metrics = site.scrape(&["--insecure"])?;
        Ok(metrics.count(
            "flowproof_requirement_flows_total",
            &[("outcome", "answered")],
        ))
    };
    let begin = Instant::now();
    while judged()? != 5 {
        assert!(begin.elapsed() < Duration::from_secs(5), "{}", judged()?);
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn a_bad_new_file_leaves_the_old_one_in_force() -> Result<()> {
    if skipped("a_bad_new_file_leaves_the_old_one_in_force") {
        return Ok(());
    }
    let good = format!("{TLS}basic_auth_users:\n  {ANN}\n");
    let mut site = Site::new(&good)?;
    site.start_secured()?;
    let successful = |site: &Site| -> Result<u64> {
        let metrics = site.scrape(&AS_ANN)?;
        Ok(metrics.count("flowproof_web_config_last_reload_successful", &[]))
    };
    assert_eq!(successful(&site)?, 1);
    site.configure("basic_auth_usrs: {}\n")?;
    sleep(LOOK);
    assert_eq!(successful(&site)?, 0);
    assert_eq!(site.ask(At::Network, "/", &AS_ANN)?.status, 200);
    assert_eq!(site.ask(At::Network, "/metrics", &[])?.status, 401);
    sleep(LOOK);
    assert_eq!(successful(&site)?, 0);
    let complaints = site
        .said()
        .matches("did you mean `basic_auth_users`")
        .count();
    assert_eq!(complaints, 1, "{}", site.said());
    // Whoever asks for it hears it again.
    site.signal(Signal::SIGHUP)?;
    let begin = Instant::now();
    while site
        .said()
        .matches("did you mean `basic_auth_users`")
        .count()
        < 2
    {
        assert!(begin.elapsed() < Duration::from_secs(5), "{}", site.said());
        sleep(Duration::from_millis(50));
    }
    // A certificate that is gone.
    site.configure(&good)?;
    sleep(LOOK);
    assert_eq!(successful(&site)?, 1);
    fs::rename(site.file("server.pem"), site.file("away.pem"))?;
    sleep(LOOK);
    assert_eq!(successful(&site)?, 0);
    fs::rename(site.file("away.pem"), site.file("server.pem"))?;
    sleep(LOOK);
    assert_eq!(successful(&site)?, 1);
    // Another password, over a connection that stays open as long as it may.
    let battery = good.replace(
        "$2b$10$N9qo8uLOickgx2ZMRZoMye7hLCKuEIm4BcKHuoCJsBy/5Q0NErxWS",
        "$2b$10$abcdefghijklmnopqrstuu7TafERl.LoW8ZdGXwj1GJdO0M45b/5W",
    );
    assert_ne!(battery, good);
    site.configure(&battery)?;
    sleep(LOOK);
    assert_eq!(site.ask(At::Network, "/", &AS_ANN)?.status, 401);
    assert_eq!(
        site.ask(At::Network, "/", &["--user", "ann:battery staple"])?
            .status,
        200
    );
    // No TLS and no users: what was open to them is shut.
    site.configure("")?;
    sleep(LOOK);
    assert_eq!(site.ask_plain(At::Network, "/", &[])?.status, 403);
    assert_eq!(site.ask_plain(At::Network, "/metrics", &[])?.status, 200);
    Ok(())
}
