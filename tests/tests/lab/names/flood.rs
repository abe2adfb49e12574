//! 20,000 answers with names that nobody needs, and names from a wildcard's domain without end, push none out that the
//! matrix needs.

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::internet::site4;

use super::{SOON, Scene, UNHURRIED, assert_soon, on_both};

const RANDOM_NAMES: u32 = 20_000;
const SHOPS: u32 = 5_000;

on_both!(flood: a_flood_of_answers_evicts_no_needed_name_ebpf, a_flood_of_answers_evicts_no_needed_name_pcap);

/// A name without sense, another for each number.
fn random_name(number: u32, domain: &str) -> String {
    let first = number.wrapping_mul(0x9e37_79b9);
    let second = (number ^ 0x5bd1_e995).wrapping_mul(0x85eb_ca6b);
    format!("{first:x}.{second:x}.{domain}")
}

fn flood(backend: Backend) -> Result<()> {
    let needed = [
        ("good.lab.example", "good", site4(1)),
        ("cloud.lab.example", "cloud", site4(2)),
        ("moved.lab.example", "moved", site4(3)),
        ("late.lab.example", "late", site4(4)),
    ];
    let hosts: Vec<_> = needed
        .iter()
        .map(|(name, _, address)| (*name, *address))
        .collect();
    let scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &hosts,
            // Everything else is one address, that of a needed name among them.
            wildcards: &[("#", site4(50)), ("shop.example", site4(1))],
            ..Zone::default()
        },
    )?;
    for (name, _, address) in needed {
        assert_eq!(scene.asker.resolve(name)?, [address]);
    }
    let names = (0..RANDOM_NAMES).map(|number| random_name(number, "example.net"));
    let answered = scene.asker.flood(names, 32)?;
    assert_eq!(answered, RANDOM_NAMES as usize);
    let names = (0..SHOPS).map(|number| random_name(number, "shop.example"));
    assert_eq!(scene.asker.flood(names, 32)?, SHOPS as usize);

    // Every answer was read, also those that one socket asked for by the dozen.
    let all = u64::from(RANDOM_NAMES + SHOPS) + needed.len() as u64;
    assert_soon(&scene.daemon, "answers read", &all, |metrics| {
        metrics.count("flowproof_dns_answers_total", &[("result", "found")])
    });
    scene.assert_nothing_lost();

    // Nothing is asked for again.
    let mut open = Vec::new();
    for (name, row, address) in needed {
        let flow = scene.queue(address)?;
        let line = scene.verdict_within(&flow, "expected", SOON);
        let wanted = format!("lab/{row}#tcp/5671");
        assert!(
            line["requirements"]
                .as_array()
                .is_some_and(|found| found.iter().any(|found| *found == wanted)),
            "{name}: {line}"
        );
        open.push(flow);
    }
    assert_eq!(scene.counted("unexpected")?, 0);
    Ok(())
}
