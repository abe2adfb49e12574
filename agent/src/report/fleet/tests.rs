use super::*;
use crate::report::model::Report;
use crate::report::render;

const MATRIX: &str = "
system: shop
title: Shop
roles: {client: {title: Client}, web: {title: Web server}}
requirements:
  - {id: browse, from: client, to: web, services: [tcp/80, tcp/443]}
  - {id: call, from: client, to: web, services: [tcp/81]}
  - {id: resolve, from: client, to: web, services: [udp/53]}
  - {id: idle, from: client, to: web, services: [tcp/9000], necessity: optional}
  - {id: elsewhere, from: web, to: any, services: [tcp/25]}
";

fn labels(text: &str) -> Labels {
    text.split(' ')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A service at an agent: vantage, state, finding and last failure, `-` where there is none.
fn agent(
    samples: &mut Samples,
    row: &str,
    instance: &str,
    [vantage, state, finding, outcome]: [&str; 4],
) {
    let (row, service) = row.split_once('#').unwrap();
    let at = format!(
        "site=hq job=flowproof instance={instance} system=shop requirement={row} service={service}"
    );
    samples
        .known
        .push((labels(&format!("{at} vantage={vantage}")), 1.0));
    if state != "-" {
        samples.trusted.push((
            labels(&format!("{at} vantage={vantage} state={state}")),
            1.0,
        ));
        let tried = if state == "silent" {
            0.0
        } else {
            1_700_000_000.0
        };
        samples.attempts.push((labels(&at), tried));
        samples.answers.push((
            labels(&at),
            if state == "verified" {
                1_700_000_000.5
            } else {
                0.0
            },
        ));
    }
    if finding != "-" {
        samples
            .findings
            .push((labels(&format!("{at} finding={finding}")), 1.0));
    }
    if outcome != "-" {
        let failed = format!("{at} vantage={vantage} outcome={outcome} place=path reply=none");
        samples.failed.push((labels(&failed), 1_700_000_003.0));
    }
}

fn report(samples: &Samples) -> Report {
    let reading = Matrix::read_text("m.yaml", MATRIX);
    let evidence = evidence(samples, &reading.matrix, &|_| true);
    Report::new(&reading.matrix, evidence)
}

fn states(report: &Report) -> Vec<String> {
    let rows = report.requirements.iter();
    rows.map(|row| {
        format!(
            "{} {} {}",
            row.requirement,
            row.state.name(),
            row.cause.as_deref().unwrap_or("-")
        )
    })
    .collect()
}

fn fleet() -> Samples {
    let mut samples = Samples::default();
    let s = &mut samples;
    agent(
        s,
        "browse#tcp/80",
        "pc1",
        ["initiator", "verified", "working", "-"],
    );
    agent(
        s,
        "browse#tcp/80",
        "web1",
        ["responder", "verified", "-", "-"],
    );
    agent(
        s,
        "browse#tcp/443",
        "pc1",
        ["initiator", "blocked", "lost_on_path", "no_answer"],
    );
    agent(
        s,
        "browse#tcp/443",
        "pc2",
        ["initiator", "verified", "working", "-"],
    );
    agent(
        s,
        "browse#tcp/443",
        "gw",
        ["path", "blocked", "-", "dropped_here"],
    );
    agent(
        s,
        "browse#tcp/443",
        "web1",
        ["responder", "silent", "-", "-"],
    );
    agent(
        s,
        "call#tcp/81",
        "pc1",
        ["initiator", "blocked", "refused_by_peer", "refused"],
    );
    agent(
        s,
        "resolve#udp/53",
        "pc1",
        ["initiator", "verified", "working", "-"],
    );
    agent(
        s,
        "resolve#udp/53",
        "pc2",
        ["initiator", "-", "unknown", "-"],
    );
    agent(
        s,
        "idle#tcp/9000",
        "pc1",
        ["initiator", "silent", "never_sent", "-"],
    );
    agent(
        s,
        "gone#tcp/1",
        "pc1",
        ["initiator", "verified", "working", "-"],
    );
    s.flows[0].push((
        labels("system=shop requirement=browse service=tcp/443"),
        7.0,
    ));
    samples
}

#[test]
fn a_row_is_green_only_if_all_senders_say_so() {
    assert_eq!(
        states(&report(&fleet())),
        [
            "browse degraded lost_on_path",
            "call blocked refused_by_peer",
            "resolve unknown agent_unknown",
            "idle silent never_sent",
            "elsewhere unobservable no_agent",
            "gone verified -",
        ]
    );
}

#[test]
fn every_agent_has_its_say_in_the_order_of_the_way() {
    let report = report(&fleet());
    let browse = &report.requirements[0];
    let seen: Vec<String> = browse
        .seen
        .iter()
        .filter(|seen| seen.service == "tcp/443")
        .map(Sighting::in_words)
        .collect();
    assert_eq!(
        seen,
        [
            "pc1 (initiator) says blocked, no_answer at path, last tried 2023-11-14T22:13:20.000000000Z, never answered",
            "pc2 (initiator) says verified, last tried 2023-11-14T22:13:20.000000000Z, answered 2023-11-14T22:13:20.500000000Z",
            "gw (path) says blocked, dropped_here at path, last tried 2023-11-14T22:13:20.000000000Z, never answered",
            "web1 (responder) says silent, never tried",
        ]
    );
    let ticket = browse.ticket.as_ref().expect("it fails");
    assert!(
        ticket.ask.contains("firewall") && ticket.cause.contains("does not arrive"),
        "{ticket:?}"
    );
    assert_eq!(ticket.evidence.len(), 4, "{ticket:?}");
    assert_eq!(browse.services[1].flows, 7);
    let resolve = &report.requirements[2];
    assert_eq!(
        resolve.seen[1].in_words(),
        "pc2 (initiator) is down or blind"
    );
}

#[test]
fn every_form_of_a_report_tells_it() {
    let report = report(&fleet());
    let csv = String::from_utf8(render::csv::render(&report).unwrap()).unwrap();
    let forms = [
        render::text::render(&report),
        serde_json::to_string(&report).unwrap(),
        render::html::render(&report),
        render::junit::render(&report, &[]),
        csv,
    ];
    for form in forms {
        assert!(form.contains("lost_on_path"), "{form}");
        assert!(form.contains("web1"), "{form}");
    }
    let junit = render::junit::render(&report, &[]);
    assert!(junit.contains("tests=\"7\" failures=\"2\""), "{junit}");
}

#[test]
fn systems_that_are_not_deployed_are_told_only_if_they_were_seen() {
    let reading = Matrix::read_text("m.yaml", MATRIX);
    let evidence = evidence(&fleet(), &reading.matrix, &|_| false);
    let ids: Vec<&str> = evidence
        .requirements
        .iter()
        .map(|row| row.id.as_str())
        .collect();
    assert_eq!(
        ids,
        [
            "shop/browse",
            "shop/call",
            "shop/resolve",
            "shop/idle",
            "shop/gone"
        ]
    );
    assert_eq!(sites(&fleet()), BTreeSet::from(["hq".to_owned()]));
}
