//! A new matrix forgets no name: what resolvers said before it still holds, for open flows and for new ones.

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::hello::Hello;
use flowproof_tests::names::internet::site4;

use super::{MATRIX, Scene, UNHURRIED, on_both};
use crate::assert_soon;

on_both!(reload: names_outlive_a_reload_ebpf, names_outlive_a_reload_pcap);

fn reload(backend: Backend) -> Result<()> {
    let scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &[
                ("cloud.lab.example", site4(1)),
                ("new.lab.example", site4(2)),
            ],
            ..Zone::default()
        },
    )?;
    scene.asker.resolve("cloud.lab.example")?;
    // No row needs this one yet.
    scene.asker.resolve("new.lab.example")?;
    let before = scene.queue(site4(1))?;
    let shown = scene.tls(site4(3), &Hello::of("cloud.lab.example"))?;
    scene.assert_expected(&before, "cloud", "tcp/5671");
    scene.assert_expected(&shown, "cloud", "tcp/443");

    // A row more, before the others, so that every number in the tables is another.
    let more = MATRIX
        .replace(
            "roles:\n",
            "roles:\n  anew: {title: A new service, names: [new.lab.example]}\n",
        )
        .replace(
            "requirements:\n",
            "requirements:\n  - {id: anew, from: client, to: anew, services: [tcp/5671]}\n",
        );
    let rows = |metrics: &flowproof_tests::metrics::Metrics| {
        (
            metrics.count("flowproof_matrix_last_reload_successful", &[]),
            metrics.matching("flowproof_requirement_info", &[]).count(),
        )
    };
    let usual = rows(&scene.daemon.metrics()?).1;
    let mut open = Vec::new();
    for (text, count) in [
        (&more[..], usual + 1),
        (MATRIX, usual),
        (&more[..], usual + 1),
    ] {
        scene.daemon.reload("matrix.yaml", text)?;
        assert_soon(&scene.daemon, "the other matrix", &(1, count), rows);
        scene.assert_expected(&before, "cloud", "tcp/5671");
        scene.assert_expected(&shown, "cloud", "tcp/443");
        let after = scene.queue(site4(1))?;
        scene.assert_expected(&after, "cloud", "tcp/5671");
        open.push(after);
    }
    let all: Vec<_> = open.iter().chain([&before]).collect();
    scene.assert_row("cloud", "tcp/5671", &all);

    // A name that came into the matrix needs a question more at most: clients ask again when the TTL ends.
    scene.asker.resolve("new.lab.example")?;
    let anew = scene.queue(site4(2))?;
    scene.assert_expected(&anew, "anew", "tcp/5671");
    assert_eq!(scene.counted("unexpected")?, 0);
    scene.assert_nothing_lost();
    Ok(())
}
