//! A row whose name doesn't resolve, or was never asked for, is silent, and says which.

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::host::wait_for;
use flowproof_tests::lab::client4;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::internet::{OTHER_RESOLVER, site4};
use flowproof_tests::names::query::Asker;
use flowproof_tests::names::responder::{Responder, Response};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{SOON, Scene, UNHURRIED, on_both, requirement};

on_both!(absent: a_silent_row_says_what_became_of_its_name_ebpf, a_silent_row_says_what_became_of_its_name_pcap);

fn absent(backend: Backend) -> Result<()> {
    let mut scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            domains: &["lab.example"],
            ..Zone::default()
        },
    )?;
    let _responder = Responder::start(&scene.lab.server, OTHER_RESOLVER, |_, _| {
        Response::failure(ResponseCode::ServFail)
    })?;
    let code = |reply: flowproof_tests::names::query::Reply| reply.code;
    assert_eq!(
        code(scene.asker.udp("ghost.lab.example", RecordType::A)?),
        ResponseCode::NXDomain
    );
    let other = Asker::new(&scene.lab.client, client4(2), OTHER_RESOLVER);
    assert_eq!(
        code(other.udp("broken.lab.example", RecordType::A)?),
        ResponseCode::ServFail
    );
    for (id, cause) in [
        ("ghost", "name_does_not_resolve"),
        ("broken", "name_does_not_resolve"),
        ("unasked", "name_never_resolved"),
    ] {
        assert_cause(&scene, id, Some(cause))?;
    }

    // Once it resolves, it is silent as any other row is.
    scene
        .dnsmasq
        .set_hosts(&[("ghost.lab.example", site4(20))])?;
    assert_eq!(scene.asker.resolve("ghost.lab.example")?, [site4(20)]);
    assert_cause(&scene, "ghost", None)?;
    assert_cause(&scene, "unasked", Some("name_never_resolved"))
}

/// The row and its service are silent, for this reason or for none that has to do with names.
fn assert_cause(scene: &Scene, id: &str, cause: Option<&str>) -> Result<()> {
    let mut last = None;
    let found = wait_for(SOON, || {
        let line = requirement(&scene.daemon, id).ok()?;
        let is = |value: &serde_json::Value| {
            let said = value["cause"].as_str().unwrap_or_default();
            value["state"] == "silent"
                && cause.map_or(!said.starts_with("name_"), |cause| said == cause)
        };
        let right = is(&line) && is(&line["services"][0]);
        last = Some(line);
        right.then_some(())
    });
    assert!(
        found.is_some(),
        "{id} should be silent by {cause:?}: {last:?}"
    );
    Ok(())
}
