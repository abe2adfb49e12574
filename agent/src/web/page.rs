//! The page that an operator looks at first: is the daemon working, which rows of the matrix fail, what goes on that
//! the matrix does not list. One self-contained document without scripts; every text is escaped.

use std::fmt::{self, Write};
use std::time::SystemTime;

use flowproof_common::classify::Verdict;

use crate::draft::report::Counts;
use crate::engine::actor::View;
use crate::engine::chronicle::{Row, Standing};
use crate::engine::flows::{EndQuery, Query, VerdictQuery};
use crate::engine::health::Reload;
use crate::export::metrics::{REVISION, VERSION, service_text};
use crate::matrix::compiled::{BoundName, BoundRole};
use crate::matrix::{Matrix, Necessity, Protocol};
use crate::names::wall_time;
use crate::verdict::requirement::{Finding, Place, Resolution, State};

/// Rows of the matrix that are shown at most; those with failures come first.
const MOST_ROWS: usize = 1_000;
/// Names without an address that are shown at most; those that fail come first.
const MOST_NAMES: usize = 200;
/// Rows that are shown of one name at most.
const MOST_ROWS_OF_NAME: usize = 5;

/// The style sheet.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;font:14px/1.45 system-ui,sans-serif}\
body{margin:1.5rem auto;max-width:80rem;padding:0 1rem}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #8884;vertical-align:top}\
th{font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.bad{color:#c62828;font-weight:600}.good{color:#2e7d32}.warn{color:#b26a00}.quiet{opacity:.65}\
p{margin:.3rem 0}nav a{margin-right:1rem}\
@media(prefers-color-scheme:dark){.bad{color:#ff8a80}.good{color:#81c784}.warn{color:#ffb74d}a{color:#90caf9}}\
";

/// A text in HTML. Names and titles come from files, addresses from the network.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                other if other.is_control() => formatter.write_char('\u{fffd}')?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The order of states on the page, and how they look.
const fn look(state: State) -> (u8, &'static str) {
    match state {
        State::Blocked => (0, "bad"),
        State::Degraded => (1, "warn"),
        State::Unknown => (2, "warn"),
        State::Verified => (3, "good"),
        State::Silent => (4, "quiet"),
        State::Unobservable => (5, "quiet"),
    }
}

/// What is known of the reason, in words.
fn reason(finding: &Finding) -> String {
    let cause = finding.cause.map(|cause| cause.name().replace('_', " "));
    let place = finding.place.map(|place| match place {
        Place::ThisHost => "on this host".to_owned(),
        Place::Hop(address) => format!("at hop {address}"),
        Place::Peer => "at the peer".to_owned(),
        Place::Path => "somewhere on the path".to_owned(),
    });
    let confidence = finding
        .confidence
        .map(|confidence| format!("{} confidence", confidence.name()));
    [cause, place, confidence]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

/// The whole document.
pub(super) fn html(
    standing: &Standing,
    draft: Option<&Counts>,
    ready: &Result<(), String>,
    reload: Option<Reload>,
    now: SystemTime,
) -> String {
    let mut page = String::with_capacity(64 * 1024);
    // Writing to a String can't fail.
    let _ = write_page(&mut page, standing, draft, ready, reload, now);
    page
}

fn write_page(
    page: &mut String,
    standing: &Standing,
    draft: Option<&Counts>,
    ready: &Result<(), String>,
    reload: Option<Reload>,
    now: SystemTime,
) -> fmt::Result {
    let view = &standing.view;
    page.push_str(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>flowproof</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/style.css\"></head><body>",
    );
    write!(
        page,
        "<h1>flowproof <span class=\"quiet\">{} ({})</span></h1>",
        Escaped(VERSION),
        Escaped(REVISION)
    )?;
    match ready {
        Ok(()) => page.push_str("<p class=\"good\">Traffic is being judged.</p>"),
        Err(reason) => write!(page, "<p class=\"bad\">Not ready: {}.</p>", Escaped(reason))?,
    }
    if let Some(failure) = &view.failure {
        write!(
            page,
            "<p class=\"bad\">The counts stand still: {}.</p>",
            Escaped(failure)
        )?;
    }
    if reload.is_some_and(|reload| !reload.successful) {
        page.push_str("<p class=\"bad\">The last reload failed; the matrix before it is in force. The log has the errors.</p>");
    }
    let lost: Vec<String> = view
        .snapshot
        .lost
        .iter()
        .map(|(stage, count)| (*stage, *count))
        .chain([("queue", view.queue_lost)])
        .filter(|(_, count)| *count > 0)
        .map(|(stage, count)| format!("{stage} {count}"))
        .collect();
    if !lost.is_empty() {
        write!(
            page,
            "<p class=\"warn\">Lost: {}. Silence of a row proves nothing while this grows.</p>",
            Escaped(&lost.join(", "))
        )?;
    }
    let interfaces: Vec<&str> = view
        .attached
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    write!(
        page,
        "<p>Capture: {} on {}.</p>",
        view.backend.name(),
        Escaped(&if interfaces.is_empty() {
            "no interface".to_owned()
        } else {
            interfaces.join(", ")
        })
    )?;
    for (name, reason) in &view.refused {
        write!(
            page,
            "<p class=\"warn\">{}: {}.</p>",
            Escaped(name),
            Escaped(reason)
        )?;
    }
    page.push_str("<nav><a href=\"/metrics\">metrics</a><a href=\"/-/ready\">readiness</a><a href=\"/-/healthy\">health</a>\
         <a href=\"/api/v1/flows\">flows</a><a href=\"/api/v1/requirements\">requirements</a></nav>");
    requirements(page, standing, now)?;
    names(page, view)?;
    unexpected(page, view, now)?;
    if let Some(draft) = draft {
        drafted(page, draft)?;
    }
    page.push_str("</body></html>\n");
    Ok(())
}

fn requirements(page: &mut String, standing: &Standing, now: SystemTime) -> fmt::Result {
    let matrix = &standing.view.matrix.compiled.matrix;
    let mut rows: Vec<&Row> = standing.rows.iter().collect();
    rows.sort_by_key(|row| (look(row.window.finding.state).0, row.key));
    let counts: Vec<String> = State::ALL
        .into_iter()
        .map(|state| {
            let count = rows.iter().filter(|row| row.window.finding.state == state);
            format!("{} {}", count.count(), state.name())
        })
        .collect();
    let systems: Vec<String> = matrix
        .systems
        .iter()
        .map(|system| match &system.version {
            Some(version) => format!("{} {version}", system.title),
            None => system.title.clone(),
        })
        .collect();
    write!(
        page,
        "<h2>Matrix</h2><p>{}: requirements: {}, services: {}. Of the services {}. States and counts are those of the last {}.</p>",
        Escaped(&systems.join(", ")),
        matrix
            .systems
            .iter()
            .map(|system| system.requirements.len())
            .sum::<usize>(),
        rows.len(),
        counts.join(", "),
        humantime::format_duration(standing.window),
    )?;
    page.push_str(
        "<table><tr><th>Requirement</th><th>Service</th><th>From, to</th><th>State</th><th class=\"n\">Attempts</th>\
         <th class=\"n\">Answered</th><th class=\"n\">Failed</th><th>Last seen</th></tr>",
    );
    for row in rows.iter().take(MOST_ROWS) {
        let (finding, key) = (&row.window.finding, &row.key);
        let flows = &row.window.flows;
        let system = matrix.system(key.system);
        let requirement = matrix.requirement(*key);
        let necessity = match &requirement.necessity {
            Necessity::Required => "",
            Necessity::Optional | Necessity::Conditional { .. } => requirement.necessity.as_str(),
        };
        let (_, class) = look(finding.state);
        write!(
            page,
            "<tr><td>{}/{} <span class=\"quiet\">{necessity}</span></td><td>{}</td><td>{} &rarr; {}</td><td><span class=\"{class}\">{}</span> <span class=\"quiet\">{}</span></td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Escaped(system.id.as_str()),
            Escaped(requirement.id.as_str()),
            matrix.service(*key),
            Escaped(system.role_id(requirement.from)),
            Escaped(system.role_id(requirement.to)),
            finding.state.name(),
            Escaped(&reason(finding)),
            flows.begun,
            flows.answered,
            flows.failed,
            row.seen
                .map_or_else(String::new, |[_, last]| since(last, now)),
        )?;
    }
    page.push_str("</table>");
    if rows.len() > MOST_ROWS {
        write!(
            page,
            "<p class=\"quiet\">{} further rows are in the metrics.</p>",
            rows.len() - MOST_ROWS
        )?;
    }
    Ok(())
}

/// What is known of the names of the matrix; nothing if it has none.
fn names(page: &mut String, view: &View) -> fmt::Result {
    let compiled = &view.matrix.compiled;
    if compiled.names.is_empty() {
        return Ok(());
    }
    let mut unresolved: Vec<(Resolution, &BoundName)> = compiled
        .names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let said = view.names.get(number).copied();
            (said.unwrap_or(Resolution::Never), name)
        })
        .filter(|(resolution, _)| *resolution != Resolution::Resolved)
        .collect();
    write!(
        page,
        "<h2>Names</h2><p>Names and patterns of the matrix: {}, resolved: {}. Addresses that are judged by them now: {}.</p>",
        compiled.names.len(),
        compiled.names.len() - unresolved.len(),
        view.naming.placed,
    )?;
    match view.naming.waiting {
        0 => {}
        1 => page.push_str("<p>1 flow waits for its name and is not counted yet.</p>"),
        waiting => write!(
            page,
            "<p>{waiting} flows wait for their names and are not counted yet.</p>"
        )?,
    }
    if unresolved.is_empty() {
        return Ok(());
    }
    // What fails before what nobody asked for.
    unresolved.sort_by_key(|(resolution, _)| std::cmp::Reverse(*resolution));
    page.push_str("<table><tr><th>Name</th><th></th><th>Requirements</th></tr>");
    for (resolution, name) in unresolved.iter().take(MOST_NAMES) {
        let (class, said) = match resolution {
            Resolution::Failing => ("bad", "does not resolve"),
            Resolution::Never | Resolution::Resolved => {
                ("quiet", "never resolved, as far as was seen")
            }
        };
        let mut rows = rows_of(&compiled.matrix, name);
        let more = rows.len().saturating_sub(MOST_ROWS_OF_NAME);
        rows.truncate(MOST_ROWS_OF_NAME);
        let mut text = rows.join(", ");
        if more > 0 {
            write!(text, " and {more} more")?;
        }
        write!(
            page,
            "<tr><td>{}</td><td><span class=\"{class}\">{said}</span></td><td>{}</td></tr>",
            Escaped(name.pattern.as_str()),
            Escaped(&text),
        )?;
    }
    page.push_str("</table>");
    if unresolved.len() > MOST_NAMES {
        write!(
            page,
            "<p class=\"quiet\">{} further names were not resolved.</p>",
            unresolved.len() - MOST_NAMES
        )?;
    }
    Ok(())
}

/// The requirements with a role that is bound to a name.
fn rows_of(matrix: &Matrix, name: &BoundName) -> Vec<String> {
    let mut rows = Vec::new();
    for (system, content) in matrix.indexed_systems() {
        for (index, requirement) in content.indexed_requirements() {
            let named = [requirement.from, requirement.to]
                .into_iter()
                .any(|role| name.roles.contains(&BoundRole { system, role }));
            if named {
                rows.push(matrix.requirement_id(system, index));
            }
        }
    }
    rows
}

fn unexpected(page: &mut String, view: &View, now: SystemTime) -> fmt::Result {
    page.push_str("<h2>Unexpected traffic</h2>");
    if view.top.is_empty() {
        page.push_str("<p class=\"quiet\">None seen.</p>");
        return Ok(());
    }
    page.push_str(
        "<p>A role of the matrix takes part, and no requirement covers it.</p>\
         <table><tr><th>From</th><th>To</th><th>Service</th><th class=\"n\">Flows</th><th>Last one</th><th></th></tr>",
    );
    for entry in &view.top {
        let query = Query {
            verdict: Some(VerdictQuery::Given(Verdict::Unexpected)),
            initiator: Some(EndQuery::Roles(entry.service.from.to_string())),
            responder: Some(EndQuery::Roles(entry.service.to.to_string())),
            protocol: Some(Protocol::from_number(entry.service.protocol)),
            port: Some(entry.service.port),
            ..Query::default()
        };
        write!(
            page,
            "<tr><td>{}</td><td>{}</td><td><a href=\"/api/v1/flows?{}\">{}</a></td><td class=\"n\">{}</td><td>{} &rarr; {}</td><td>{}</td></tr>",
            Escaped(&entry.service.from),
            Escaped(&entry.service.to),
            Escaped(&query.to_string()),
            service_text(&entry.service),
            entry.flows,
            entry.last.initiator,
            entry.last.responder,
            ago(view, entry.last.time, now),
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

/// What the draft would change, in one sentence.
fn drafted(page: &mut String, counts: &Counts) -> fmt::Result {
    let class = match counts.newly_unexpected.flows {
        0 => "quiet",
        _ => "warn",
    };
    write!(
        page,
        "<h2>Draft</h2><p>Flows that it would newly call unexpected: <span class=\"{class}\">{}</span>; newly cover: {}; \
         not decided, for want of a name: {}. <a href=\"/draft\">Which, and what nobody uses</a>.</p>",
        counts.newly_unexpected.flows, counts.newly_covered.flows, counts.undecided.flows,
    )
}

/// A time of the back end in words.
fn ago(view: &View, time: u64, now: SystemTime) -> String {
    let then = view.epoch_nanos(time);
    then.and_then(|then| u64::try_from(then).ok())
        .map_or_else(String::new, |then| since(then, now))
}

/// A time in nanoseconds since the Unix epoch in words.
fn since(then: u64, now: SystemTime) -> String {
    match wall_time::nanos(now).saturating_sub(then) / 1_000_000_000 {
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ ..7_200 => format!("{} min ago", seconds / 60),
        seconds @ ..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use flowproof_common::address::Address;

    use super::*;
    use flowproof_common::state::Outcome;

    use crate::capture::{SlotTotals, Snapshot};
    use crate::engine::chronicle::standing;
    use crate::engine::fake;
    use crate::engine::policy;
    use crate::engine::unexpected::{Sighting, Unexpected, UnexpectedService};
    use crate::matrix::compile::HostAddresses;
    use crate::matrix::compiled::Compiled;
    use crate::matrix::installed::{Installed, MemberId, SlotDirectory};
    use crate::site::Site;
    use crate::site::tags::TagBook;

    fn view(installed: Installed) -> View {
        View {
            epoch_offset: 0,
            refused: vec![("<b>0".to_owned(), "no \"luck\"".to_owned())],
            queue_lost: 3,
            ..fake::view(Arc::new(installed))
        }
    }

    #[test]
    fn what_fails_comes_first() {
        let policy = policy::load(
            &[],
            None,
            &crate::site::tags::TagOptions::default(),
            &["192.0.2.7".parse().unwrap()],
        )
        .unwrap();
        let installed = Installed::new(policy.compiled, SlotDirectory::default());
        let slot = installed
            .directory
            .slots_of(MemberId::of("baseline-linux-host/dns#tcp/53"))
            .next()
            .unwrap();
        let mut slots = vec![SlotTotals::default(); installed.directory.len()];
        let totals = &mut slots[slot as usize];
        totals.flows.begun = 2;
        totals.flows.decided[Outcome::NoAnswer as usize] = 2;
        totals.flows.last_attempt = 4_000_000_000;
        totals.flows.last_failed = 5_000_000_000;
        totals.traffic.last_seen = 5_000_000_000;
        let mut view = view(installed);
        view.snapshot = Arc::new(Snapshot {
            slots,
            ..Snapshot::default()
        });
        let mut unexpected = Unexpected::default();
        unexpected.record(
            UnexpectedService {
                from: Arc::from("a/b"),
                to: Arc::from("~unbound"),
                protocol: 47,
                port: 0,
            },
            Sighting {
                time: 1,
                initiator: Address::from_v4([192, 0, 2, 7]),
                responder: Address::from_v4([192, 0, 2, 8]),
            },
        );
        view.top = unexpected.top(5);
        let now = UNIX_EPOCH + Duration::from_secs(65);
        let standing = standing(view, 6_000_000_000);
        let html = html(
            &standing,
            Some(&Counts::default()),
            &Err("<script>".to_owned()),
            None,
            now,
        );
        let first = html.split("<tr>").nth(2).unwrap();
        assert!(first.contains("baseline-linux-host/dns"), "{first}");
        assert!(
            first.contains("blocked") && first.contains("no answer"),
            "{first}"
        );
        assert!(first.contains("60 s ago"), "{first}");
        assert!(html.contains("192.0.2.7 &rarr; 192.0.2.8"));
        assert!(
            html.contains(
                "<a href=\"/api/v1/flows?verdict=unexpected&amp;initiator=a%2Fb&amp;responder=~unbound&amp;protocol=gre&amp;port=0\">gre</a>"
            ),
            "{html}"
        );
        assert!(html.contains("Lost: queue 3"));
        assert!(!html.contains("<script>") && !html.contains("<b>0") && !html.contains("\"luck\""));
    }

    #[test]
    fn titles_from_files_are_escaped() {
        let reading = Matrix::read_text(
            "m.yaml",
            "system: a\ntitle: <img src=x onerror='y'>\nrequirements: [{id: r, from: any, to: any, services: [tcp/1]}]\n",
        );
        let compiled = Compiled::compile(
            Arc::new(reading.matrix),
            Vec::new(),
            &HostAddresses::Unknown,
        )
        .unwrap();
        let installed = Installed::new(Arc::new(compiled), SlotDirectory::default());
        let standing = standing(view(installed), 1);
        let html = html(&standing, None, &Ok(()), None, UNIX_EPOCH);
        assert!(html.contains("&lt;img src=x onerror=&#39;y&#39;&gt;"));
        assert!(!html.contains("<img"));
    }

    #[test]
    fn names_that_do_not_resolve_are_listed_with_their_rows() {
        let reading = Matrix::read_text(
            "m.yaml",
            "system: a\ntitle: A\nroles: {c: , d: {names: [bad.example, good.example, never.example]}}\nrequirements:\n\
             - {id: r, from: c, to: d, services: [tcp/443, udp/443]}\n\
             - {id: other, from: c, to: c, services: [tcp/22]}\n",
        );
        let site = Site::read_text(
            "s.yaml",
            "site: s\nsystems: [a]\nroles: {a/c: [192.0.2.1]}\n",
            &reading,
        )
        .site
        .unwrap();
        let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
        let compiled =
            Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
        let mut view = view(Installed::new(Arc::new(compiled), SlotDirectory::default()));
        view.names = vec![Resolution::Failing, Resolution::Resolved];
        view.naming.waiting = 2;
        let page = |view: &View| html(&standing(view.clone(), 1), None, &Ok(()), None, UNIX_EPOCH);
        let text = page(&view);
        let (_, names) = text.split_once("<h2>Names</h2>").unwrap();
        let cells: Vec<&str> = names.split("<tr>").collect();
        assert!(
            cells[0].contains("of the matrix: 3, resolved: 1"),
            "{names}"
        );
        assert!(cells[0].contains("2 flows wait for their names"), "{names}");
        assert!(
            cells[2].contains("bad.example") && cells[2].contains("does not resolve"),
            "{names}"
        );
        assert!(cells[2].contains("<td>a/r</td>"), "{names}");
        assert!(
            cells[3].contains("never.example") && cells[3].contains("never resolved"),
            "{names}"
        );
        assert!(!names.contains("good.example"), "{names}");
        view.names = vec![Resolution::Resolved; 3];
        view.naming.waiting = 0;
        let text = page(&view);
        assert!(
            text.contains("resolved: 3") && !text.contains("wait"),
            "{text}"
        );
        assert!(!text.contains("never.example"));
    }

    #[test]
    fn control_characters_do_not_reach_the_page() {
        assert_eq!(
            Escaped("a\u{1b}[2Jb\n").to_string(),
            "a\u{fffd}[2Jb\u{fffd}"
        );
    }
}
