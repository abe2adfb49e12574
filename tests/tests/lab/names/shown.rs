//! What an operator sees of names: metrics, the page, and `flowproof explain` with a name in place of an address.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, LISTEN, binary, run_to_end};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::hello::Hello;
use flowproof_tests::names::internet::site4;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use super::{Scene, UNHURRIED, on_both};
use crate::assert_soon;

on_both!(shown: names_are_told_ebpf, names_are_told_pcap);

fn shown(backend: Backend) -> Result<()> {
    let scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &[("cloud.lab.example", site4(1))],
            domains: &["lab.example"],
            ..Zone::default()
        },
    )?;
    scene.asker.resolve("cloud.lab.example")?;
    scene.asker.udp("ghost.lab.example", RecordType::A)?;
    let allowed = scene.tls(site4(1), &Hello::of("cloud.lab.example"))?;
    scene.assert_expected(&allowed, "cloud", "tcp/443");
    let other = scene.tls(site4(1), &Hello::of("other.lab.example"))?;
    scene.assert_mismatch(&other, "cloud", "tcp/443");

    let told = |metrics: &Metrics| {
        let answers = |result| metrics.count("flowproof_dns_answers_total", &[("result", result)]);
        let rows = |requirement, resolution| {
            let labels = [("requirement", requirement), ("resolution", resolution)];
            metrics.count("flowproof_requirement_names", &labels)
        };
        (
            [answers("found"), answers("nxdomain"), answers("unreadable")],
            [
                rows("cloud", "resolved"),
                rows("ghost", "failing"),
                rows("unasked", "never"),
                rows("cloud", "never"),
            ],
            [
                metrics.count("flowproof_flows_named_total", &[("source", "tls")]),
                metrics.count("flowproof_flows_named_total", &[]),
                metrics.count("flowproof_name_mismatches_total", &[]),
                metrics.count("flowproof_flows_awaiting_name", &[]),
                metrics.count("flowproof_names_known", &[("kind", "needed")]),
                metrics.count("flowproof_name_addresses", &[]),
            ],
        )
    };
    let expect = ([1, 1, 0], [1, 1, 1, 0], [2, 2, 1, 0, 1, 1]);
    assert_soon(&scene.daemon, "what is known of names", &expect, told);
    // Rows whose roles are addresses have no names to count.
    let metrics = scene.daemon.metrics()?;
    assert!(!metrics.has("flowproof_requirement_names", &[("requirement", "dns")]));

    let page = scene.daemon.get("/")?.body;
    let (_, names) = page.split_once("<h2>Names</h2>").unwrap_or_default();
    let ghost = names.split("<tr>").find(|row| row.contains("ghost.lab"));
    let ghost = ghost.unwrap_or_default();
    assert!(
        ghost.contains("does not resolve") && ghost.contains("lab/ghost"),
        "{names}"
    );
    assert!(!names.contains("cloud.lab.example"), "{names}");

    let seen = explain(&scene, "cloud.lab.example")?;
    assert_eq!(seen["verdict"], "expected", "{seen}");
    assert_eq!(seen["requirements"], json!(["lab/cloud#tcp/443"]));
    assert_eq!(seen["responder"]["names"], json!(["cloud.lab.example"]));
    assert_eq!(seen["responder"]["roles"][0]["role"], "lab/cloud");
    // The flow of that name alone, though both go to one address.
    assert_eq!(seen["seen"]["flows"], 1, "{seen}");
    assert_eq!(seen["seen"]["by_outcome"], json!({"answered": 1}));
    assert_eq!(seen["seen"]["requirements"][0]["state"], "verified");
    assert_eq!(seen["seen"]["notes"], json!([]));
    let seen = explain(&scene, "other.lab.example")?;
    assert_eq!(seen["verdict"], "unexpected", "{seen}");
    assert_eq!(seen["seen"]["flows"], 1, "{seen}");
    let evidence = seen["seen"]["evidence"].to_string();
    assert!(
        evidence.contains("is allowed as cloud.lab.example"),
        "{evidence}"
    );
    let seen = explain(&scene, "ghost.lab.example")?;
    assert_eq!(seen["seen"]["flows"], 0, "{seen}");
    scene.assert_nothing_lost();
    Ok(())
}

/// What is told of HTTPS from the bound client to a name.
fn explain(scene: &Scene, name: &str) -> Result<Value> {
    let mut command = Command::new(binary());
    command
        .current_dir(scene.daemon.folder())
        .args(["explain", "--format", "json", "--matrix", "matrix.yaml"])
        .args(["--site", "site.yaml", &format!("--daemon=http://{LISTEN}")])
        .args(["--", "10.20.0.2", &format!("{name}:443/tcp")]);
    let output = scene
        .lab
        .router
        .run(|| run_to_end(&mut command, Duration::from_secs(20)))?;
    anyhow::ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}
