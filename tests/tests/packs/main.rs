//! A lab for every rule pack of the repository, alone and with all others: each of its rows is driven as real traffic
//! across an agent, then blocked, then nearly met. One false verdict on any row of any pack fails it.

mod drive;
mod expect;
mod hosts;
mod named;
mod near;
mod pack;
mod plan;
mod serve;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use flowproof_tests::daemon::{Backend, Daemon, Setup, binary, run_to_end};
use flowproof_tests::judge::Recording;
use flowproof_tests::{lab, skip};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use drive::{Answer, drive};
use expect::{Round, causes, differences};
use hosts::{Fate, Hosts, Ports, SIDES};
use near::{Near, twisted};
use pack::{Pack, protocol};
use plan::{Plan, Spec, Way};
use site::Site;

/// Packs that are driven at once: each has a daemon and hundreds of sockets.
const AT_ONCE: usize = 3;
/// How long the daemon may take to know what became of the last conversation: silence is told 3.2 s after it began.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn every_row_of_every_pack_is_verified_and_then_degraded() -> Result<()> {
    for_every_pack(
        "every_row_of_every_pack_is_verified_and_then_degraded",
        |plan| verified_and_then_degraded(plan, Backend::Ebpf),
    )
}

#[test]
fn every_row_of_every_pack_is_verified_and_then_degraded_by_libpcap() -> Result<()> {
    for_every_pack(
        "every_row_of_every_pack_is_verified_and_then_degraded_by_libpcap",
        |plan| verified_and_then_degraded(plan, Backend::Pcap),
    )
}

fn verified_and_then_degraded(plan: &Plan<'_>, backend: Backend) -> Result<()> {
    let mut hosts = Hosts::of(plan)?;
    let mut daemon = start(&hosts, plan, backend)?;
    let sees_drops = backend == Backend::Ebpf;
    let mut fates = BTreeMap::new();
    let mut round = Round {
        fates: &fates,
        second: false,
        sees_drops,
    };
    everything(&hosts, plan, &round)?;
    settle(&daemon, plan, &round).context("everything open")?;

    if backend == Backend::Ebpf {
        daemon.kill()?;
        daemon.start_again()?;
        settle(&daemon, plan, &round).context("a new daemon took over")?;
    }

    fates = thirds(plan, 0);
    round = Round {
        fates: &fates,
        second: true,
        sees_drops,
    };
    hosts.use_ports(Ports(1))?;
    everything(&hosts, plan, &round)?;
    settle(&daemon, plan, &round).context("blocked after it had worked")
}

#[test]
fn every_row_of_every_pack_is_blocked_alone() -> Result<()> {
    for_every_pack("every_row_of_every_pack_is_blocked_alone", |plan| {
        let mut hosts = Hosts::of(plan)?;
        let daemon = start(&hosts, plan, Backend::Ebpf)?;
        for turn in 0..3 {
            // Under a new name every row begins at nothing, and a reload costs less than a new daemon.
            let suffix = format!("-{turn}");
            let renamed = plan.packs.iter().map(|pack| pack.renamed(&suffix));
            let renamed: Vec<Pack> = renamed.collect::<Result<_>>()?;
            let packs: Vec<&Pack> = renamed.iter().collect();
            let site = Site::of(&packs)?;
            let turned = Plan::of(&packs, &site)?;
            replace(&daemon, plan, &turned)?;
            hosts.use_ports(Ports(turn))?;
            let fates = thirds(&turned, usize::from(turn));
            let round = Round {
                fates: &fates,
                second: false,
                sees_drops: true,
            };
            everything(&hosts, &turned, &round)?;
            settle(&daemon, &turned, &round).with_context(|| format!("turn {turn}"))?;
        }
        Ok(())
    })
}

#[test]
fn what_is_nearly_right_is_unexpected_in_every_pack() -> Result<()> {
    let test = "what_is_nearly_right_is_unexpected_in_every_pack";
    if Command::new("tcpdump").arg("--version").output().is_err() {
        skip::skip(test, "the program tcpdump is missing");
        return Ok(());
    }
    for_every_pack(test, |plan| {
        let hosts = Hosts::of(plan)?;
        let daemon = start(&hosts, plan, Backend::Ebpf)?;
        let nearly = twisted(plan);
        let specs: Vec<Spec> = nearly.iter().map(|near| near.spec.clone()).collect();
        let file = daemon.folder().join("nearly.pcap");
        let recording = Recording::tcpdump(&hosts.agent, SIDES[0], &file)?;
        let answers = drive(&hosts, &specs, |_| true)?;
        // What was refused is in the daemon's tables for some seconds only. Some wait a moment for a name that never comes.
        daemon.wait_metrics(KNOWN_WITHIN, |metrics| {
            metrics.count("flowproof_flows_awaiting_name", &[]) == 0
        })?;
        let live = listed(&daemon)?;
        recording.finish()?;
        for (near, answer) in nearly.iter().zip(answers) {
            let tcp = near.spec.protocol == protocol::TCP;
            if tcp && answer == Answer::Silence {
                bail!("{near:?} did not reach its responder");
            }
        }
        for (where_from, told) in [("live", live), ("replayed", replay(&daemon, plan)?)] {
            let wrong: Vec<String> = nearly
                .iter()
                .filter_map(|near| near_difference(near, &told))
                .collect();
            if !wrong.is_empty() {
                bail!("{where_from}: {}", wrong.join("\n"));
            }
        }
        // Live: as many are unexpected, and not one touches a row.
        let unexpected = nearly.len() as u64;
        let (metrics, told) = daemon.wait_metrics(KNOWN_WITHIN, |metrics| {
            metrics.count("flowproof_flows_begun_total", &[("verdict", "unexpected")]) == unexpected
        })?;
        let expected = metrics.count("flowproof_flows_begun_total", &[("verdict", "expected")]);
        let noisy = plan.rows.iter().any(|row| row.noisy);
        if !told || !noisy && expected != 0 {
            bail!(
                "{unexpected} flows were nearly right; {expected} flows are expected\n{}",
                metrics.show("flowproof_flows_begun_total", &[])
            );
        }
        let named: BTreeSet<_> = nearly.iter().flat_map(|near| &near.best).collect();
        let missed: Vec<String> = plan
            .rows
            .iter()
            .filter(|row| {
                row.specs
                    .iter()
                    .any(|spec| plan.specs[*spec].can_be_twisted())
            })
            .map(near::id)
            .filter(|id| !named.contains(id))
            .collect();
        // Together one pack may allow what would be a twist of another's row.
        if plan.packs.len() == 1 && !missed.is_empty() {
            bail!("no flow is nearly right for {}", missed.join(", "));
        }
        let kinds: BTreeSet<_> = nearly.iter().map(|near| near.kind).collect();
        for kind in ["other_port", "other_protocol", "reversed", "other_source"] {
            if !kinds.contains(kind) {
                bail!("no flow of this pack is nearly right by {kind}");
            }
        }
        Ok(())
    })
}

/// Runs `work` on each pack, some at once; all that fails is told, by pack.
fn for_every_pack(test: &str, work: impl Fn(&Plan<'_>) -> Result<()> + Sync) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let packs = pack::all()?;
    if packs.is_empty() {
        skip::skip(test, "there is no pack in rules/");
        return Ok(());
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // Each alone, and all together, which takes longest and begins.
    let mut deployments: Vec<Vec<&Pack>> = packs.iter().map(|pack| vec![pack]).collect();
    deployments.push(packs.iter().collect());
    let queue: Mutex<Vec<Vec<&Pack>>> = Mutex::new(deployments);
    let failed: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(packs) = next() {
                    let site = Site::of(&packs);
                    let result = site.and_then(|site| work(&Plan::of(&packs, &site)?));
                    if let (Err(error), Ok(mut failed)) = (result, failed.lock()) {
                        failed.push(format!("{}: {error:#}", names(&packs)));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

fn names(packs: &[&Pack]) -> String {
    let systems: Vec<&str> = packs.iter().map(|pack| pack.system.as_str()).collect();
    systems.join(", ")
}

/// The file of the pack at this place among those deployed.
fn file(packs: &[&Pack], place: usize) -> String {
    match place {
        0 => "matrix.yaml".to_owned(),
        _ => format!("{}.matrix.yaml", packs[place].system),
    }
}

fn start(hosts: &Hosts, plan: &Plan<'_>, backend: Backend) -> Result<Daemon> {
    let [first, more @ ..] = plan.packs else {
        bail!("no pack is deployed");
    };
    let more: Vec<(String, &str)> = (1..)
        .zip(more)
        .map(|(place, pack)| (file(plan.packs, place), pack.text.as_str()))
        .collect();
    Daemon::start_with(
        &hosts.agent,
        &Setup {
            backend,
            matrix: &first.text,
            site: &plan.site.text,
            // Room for what the lab sends; to prepare room for more takes each start longer.
            // Nor is there a name to wait for.
            config: "capture: {ebpf: {flows: {verified: 8192, unverified: 8192}}}\nnames: {hold: 500ms}",
            interfaces: &[],
        },
        &more,
    )
}

/// Has the daemon judge by another plan, in the files of the one that it was started with.
fn replace(daemon: &Daemon, started: &Plan<'_>, plan: &Plan<'_>) -> Result<()> {
    for (place, pack) in plan.packs.iter().enumerate() {
        let path = daemon.folder().join(file(started.packs, place));
        std::fs::write(path, &pack.text)?;
    }
    daemon.reload("site.yaml", &plan.site.text)?;
    let systems: BTreeSet<&str> = plan.packs.iter().map(|pack| pack.system.as_str()).collect();
    let (_, replaced) = daemon.wait_metrics(KNOWN_WITHIN, |metrics| {
        metrics
            .matching("flowproof_requirement_info", &[])
            .all(|row| {
                row.labels
                    .get("system")
                    .is_some_and(|id| systems.contains(&**id))
            })
    })?;
    if !replaced {
        bail!("the matrix wasn't replaced\n{}", daemon.stderr());
    }
    Ok(())
}

/// Drops one third of what can be blocked, rejects one, and leaves one open; each third has its turn with each.
fn thirds(plan: &Plan<'_>, turn: usize) -> BTreeMap<usize, Fate> {
    let fates = [Fate::Dropped, Fate::Rejected, Fate::Open];
    plan.blockable
        .iter()
        .enumerate()
        .map(|(place, group)| (*group, fates[(place + turn) % 3]))
        .collect()
}

/// Drives every conversation of the plan, and holds each to what its fate lets its initiator see.
fn everything(hosts: &Hosts, plan: &Plan<'_>, round: &Round<'_>) -> Result<()> {
    let mut fates = vec![Fate::Open; plan.specs.len()];
    for row in &plan.rows {
        for spec in &row.specs {
            fates[*spec] = round.fate(row);
        }
    }
    hosts.filter(&plan.specs, |spec| fates[spec])?;
    let answers = drive(hosts, &plan.specs, |spec| fates[spec] == Fate::Dropped)?;
    let wrong: Vec<String> = answers
        .iter()
        .zip(&fates)
        .zip(&plan.specs)
        .filter(|((answer, fate), spec)| {
            let expected = match fate {
                // A call is sent, and that is all that its initiator ever knows.
                _ if spec.way == Way::Called => Answer::Came,
                Fate::Open => Answer::Came,
                Fate::Dropped => Answer::Silence,
                Fate::Rejected => Answer::Refused,
            };
            **answer != expected
        })
        .map(|((answer, fate), spec)| format!("{fate:?}, but {answer:?}: {spec:?}"))
        .collect();
    if !wrong.is_empty() {
        bail!("the lab itself is wrong:\n{}", wrong.join("\n"));
    }
    Ok(())
}

/// Waits until the daemon says what is expected of the round.
fn settle(daemon: &Daemon, plan: &Plan<'_>, round: &Round<'_>) -> Result<()> {
    let start = Instant::now();
    loop {
        let wrong = differences(plan, round, &daemon.metrics()?);
        if wrong.is_empty() {
            let got = daemon.get("/api/v1/requirements")?;
            let wrong = causes(plan, round, &serde_json::from_str(&got.body)?);
            if !wrong.is_empty() {
                bail!("{}", wrong.join("\n"));
            }
            return Ok(());
        }
        if start.elapsed() > KNOWN_WITHIN {
            bail!(
                "{}\nthe daemon said:\n{}",
                wrong.join("\n"),
                daemon.stderr()
            );
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Flows, as the daemon or a replay prints them, by (initiator, responder, protocol, responder's port).
type Told = BTreeMap<(IpAddr, IpAddr, u8, u16), Value>;

fn replay(daemon: &Daemon, plan: &Plan<'_>) -> Result<Told> {
    let mut command = Command::new(binary());
    command
        .current_dir(daemon.folder())
        .args(["replay", "--format", "json", "--matrix", "matrix.yaml"])
        .args(["--site", "site.yaml"]);
    for place in 1..plan.packs.len() {
        command.args(["--matrix", &file(plan.packs, place)]);
    }
    command.arg("nearly.pcap");
    let output = run_to_end(&mut command, Duration::from_secs(30))?;
    if !output.status.success() {
        bail!(
            "replay: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let lines = String::from_utf8(output.stdout)?;
    told(
        lines
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?,
    )
}

/// The unexpected flows in the daemon's tables.
fn listed(daemon: &Daemon) -> Result<Told> {
    let got = daemon.get("/api/v1/flows?verdict=unexpected&limit=10000")?;
    if got.status != 200 {
        bail!("GET /api/v1/flows: {} {}", got.head, got.body);
    }
    told(serde_json::from_str(&got.body)?)
}

fn told(lines: Vec<Value>) -> Result<Told> {
    let mut flows = Told::new();
    for flow in lines {
        if flow["type"] != "flow" {
            continue;
        }
        let address = |end: &str| -> Result<IpAddr> {
            let text = flow[end]["address"].as_str().unwrap_or_default();
            text.parse().with_context(|| flow.to_string())
        };
        let protocol = match flow["protocol"].as_str().unwrap_or_default() {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "icmp" => protocol::ICMP,
            "icmpv6" => protocol::ICMPV6,
            "vrrp" => protocol::VRRP,
            _ => continue,
        };
        let port = match protocol {
            protocol::ICMP => 8,
            protocol::ICMPV6 => 128,
            _ => u16::try_from(flow["responder"]["port"].as_u64().unwrap_or(0))?,
        };
        let key = (address("initiator")?, address("responder")?, protocol, port);
        flows.insert(key, flow);
    }
    Ok(flows)
}

/// What is wrong with what is told of a nearly right flow.
fn near_difference(near: &Near, told: &Told) -> Option<String> {
    let Some(flow) = told.get(&near.spec.key()) else {
        return Some(format!("not told of: {:?}", near.spec));
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let misses: Vec<(String, String)> = flow["near_misses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|miss| (text(&miss["kind"]), text(&miss["requirement"])))
        .collect();
    let best = misses
        .first()
        .is_some_and(|(kind, id)| *kind == near.kind && near.best.contains(id));
    let lies: Vec<_> = misses
        .iter()
        .filter(|(kind, id)| {
            !near
                .truths
                .iter()
                .any(|truth| truth.0 == kind && truth.1 == *id)
        })
        .collect();
    let right = flow["verdict"] == "unexpected" && best && lies.is_empty();
    (!right).then(|| {
        format!(
            "{} with {misses:?}; expected unexpected with {} of {:?}; untrue: {lies:?}: {:?}",
            flow["verdict"], near.kind, near.best, near.spec
        )
    })
}
