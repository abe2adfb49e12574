//! Names outlive the daemon: after a restart nobody has to ask a resolver anew, and a file that makes no sense is no
//! reason not to start.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::internet::site4;
use serde_json::Value;

use super::{Scene, UNHURRIED, on_both};

on_both!(restart: names_outlive_a_restart_ebpf, names_outlive_a_restart_pcap);

fn restart(backend: Backend) -> Result<()> {
    let mut scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &[
                ("cloud.lab.example", site4(1)),
                // Nobody's business.
                ("private.lab.example", site4(2)),
            ],
            ..Zone::default()
        },
    )?;
    scene.asker.resolve("cloud.lab.example")?;
    scene.asker.resolve("private.lab.example")?;
    let before = scene.queue(site4(1))?;
    scene.assert_expected(&before, "cloud", "tcp/5671");
    drop(before);

    let file = scene.daemon.folder().join("state/names.json");
    assert!(!file.exists(), "written before the first minute was over");
    let (status, took) = scene.daemon.terminate()?;
    assert!(status.success() && took < Duration::from_secs(5));
    let text = fs::read_to_string(&file)?;
    let kept: Value = serde_json::from_str(&text)?;
    assert_eq!(kept["names"][0]["name"], "cloud.lab.example", "{text}");
    assert_eq!(
        kept["names"][0]["addresses"][0]["address"],
        site4(1).to_string()
    );
    assert!(!text.contains("private"), "{text}");

    scene.daemon.start_again()?;
    // By name alone, and nobody asked.
    let after = scene.queue(site4(1))?;
    scene.assert_expected(&after, "cloud", "tcp/5671");
    assert_eq!(scene.counted("unexpected")?, 0);
    drop(after);

    // The clock was set back by a day since: what was told in the future holds nothing.
    scene.daemon.terminate()?;
    let mut later: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    for time in ["told", "expires"] {
        let time = &mut later["names"][0]["addresses"][0][time];
        *time = (time.as_u64().unwrap_or(0) + 86_400_000_000_000).into();
    }
    fs::write(&file, later.to_string())?;
    scene.daemon.start_again()?;
    let unknown = scene.queue(site4(1))?;
    scene.verdict_within(&unknown, "unexpected", super::HOLD * 3);
    drop(unknown);

    scene.daemon.terminate()?;
    fs::write(&file, "{\"version\":1,\"names\":[{")?;
    scene.daemon.start_again()?;
    let said = scene.daemon.stderr();
    assert!(said.contains("names.json: not written by"), "{said}");
    scene.asker.resolve("cloud.lab.example")?;
    let anew = scene.queue(site4(1))?;
    scene.assert_expected(&anew, "cloud", "tcp/5671");
    Ok(())
}
