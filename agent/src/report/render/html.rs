//! A report as one HTML page that needs nothing beside itself: no script, no font, no picture, and its policy allows none. It reads
//! in black and white by the states' letters and prints on paper as it stands, with everything that can be folded open.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::escape;
use crate::export::requirement_line::ServiceLine;
use crate::report::grid::{Cell, Grid};
use crate::report::model::{Report, RoleName, Row, letter, meaning};
use crate::verdict::requirement::State;

/// The look, in the page itself.
const STYLE: &str = include_str!("page.css");

/// The report as an HTML page.
#[must_use]
pub fn render(report: &Report) -> String {
    Page {
        report,
        numbers: report
            .requirements
            .iter()
            .enumerate()
            .map(|(number, row)| (row.id.as_str(), number))
            .collect(),
        anchored: HashSet::new(),
        out: String::new(),
    }
    .write()
}

struct Page<'a> {
    report: &'a Report,
    /// What anchors are called by: ids come from the network if a daemon was asked.
    numbers: HashMap<&'a str, usize>,
    /// A row that either side may open stands in two places, and has its anchor at the first.
    anchored: HashSet<usize>,
    out: String,
}

impl Page<'_> {
    fn write(mut self) -> String {
        self.head();
        self.overview();
        let grids = Grid::of(self.report);
        for (number, grid) in grids.iter().enumerate() {
            self.heading(grid, "");
            self.grid(number, grid);
        }
        self.tickets();
        self.unexpected();
        for (number, grid) in grids.iter().enumerate() {
            self.system(number, grid);
        }
        self.out.push_str("</body>\n</html>\n");
        self.out
    }

    fn add(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn head(&mut self) {
        let title = match &self.report.site {
            Some(site) if !site.is_empty() => format!("flowproof report: {site}"),
            Some(_) | None => "flowproof report".to_owned(),
        };
        let title = escape(&title);
        let _ = write!(
            self.out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
    }

    fn overview(&mut self) {
        let report = self.report;
        let mut facts = vec![format!("Source: {}", escape(&report.source))];
        facts.extend(
            report
                .since
                .as_ref()
                .map(|time| format!("since {}", escape(time))),
        );
        facts.extend(
            report
                .until
                .as_ref()
                .map(|time| format!("until {}", escape(time))),
        );
        let _ = writeln!(self.out, "<p class=\"facts\">{}</p>", facts.join(", "));
        if let Some(losses) = report.losses() {
            let _ = writeln!(
                self.out,
                "<p class=\"note\">Packets or events were lost ({}): what was not seen is unknown.</p>",
                escape(&losses)
            );
        }
        if let Some(since) = &report.unwatched_since {
            let _ = writeln!(
                self.out,
                "<p class=\"note\">Nobody watches: states are of {}.</p>",
                escape(since)
            );
        }
        for note in &report.notes {
            let _ = writeln!(self.out, "<p class=\"note\">{}</p>", escape(note));
        }
        self.add("<h2>Overview</h2>\n<table id=\"overview\">\n<thead><tr><th>state</th><th>requirements</th><th>meaning</th></tr></thead>\n<tbody>\n");
        for state in State::ALL {
            let _ = writeln!(
                self.out,
                "<tr><td class=\"state {0}\"><span class=\"letter\">{1}</span> {0}</td><td>{2}</td><td>{3}</td></tr>",
                state.name(),
                letter(state),
                report.in_state(state),
                meaning(state)
            );
        }
        let _ = writeln!(
            self.out,
            "</tbody>\n</table>\n<p><a href=\"#unexpected\">{} unexpected flow(s)</a></p>",
            report.unexpected_flows
        );
    }

    fn tickets(&mut self) {
        self.add("<h2 id=\"tickets\">Blocked and degraded</h2>\n");
        if self.report.tickets().next().is_none() {
            self.add("<p>None was seen.</p>\n");
        }
        for (row, ticket) in self.report.tickets() {
            let number = self.number(row);
            let _ = writeln!(
                self.out,
                "<section class=\"ticket\" id=\"ticket-{number}\">\n<h3>{} {}</h3>\n<p><a href=\"#row-{number}\"><code>{}</code></a></p>\n<table>",
                badge(row.state),
                escape(&ticket.subject),
                escape(&row.id)
            );
            for (title, line) in ticket.lines() {
                let _ = writeln!(
                    self.out,
                    "<tr><th scope=\"row\">{title}</th><td>{}</td></tr>",
                    escape(&line)
                );
            }
            self.add("</table>\n</section>\n");
        }
    }

    fn unexpected(&mut self) {
        self.add("<h2 id=\"unexpected\">Unexpected flows</h2>\n");
        if self.report.unexpected.is_empty() {
            self.add("<p>None was seen.</p>\n");
            return;
        }
        self.add("<table class=\"list\">\n<thead><tr><th>from</th><th>to</th><th>service</th><th>flows</th><th>outcomes</th><th>seen</th><th>addresses</th><th>nearly</th></tr></thead>\n<tbody>\n");
        for group in &self.report.unexpected {
            let misses: Vec<String> = group
                .near_misses
                .iter()
                .map(|miss| {
                    let link = self.link(&miss.requirement);
                    format!(
                        "<div>{}: {link}: {}</div>",
                        escape(&miss.kind),
                        escape(&miss.detail)
                    )
                })
                .collect();
            let mut addresses = escape(&group.initiators.join(", "));
            if !addresses.is_empty() {
                let _ = write!(addresses, " → {}", escape(&group.responders.join(", ")));
            }
            let _ = writeln!(
                self.out,
                "<tr><td>{}</td><td>{}</td><td class=\"service\"><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td><td>{addresses}</td><td>{}</td></tr>",
                escape(&group.from),
                escape(&group.to),
                escape(&group.service),
                group.flows,
                escape(&group.outcomes()),
                escape(&group.span()),
                misses.concat(),
            );
        }
        self.add("</tbody>\n</table>\n");
    }

    fn heading(&mut self, grid: &Grid<'_>, what: &str) {
        let systems = &self.report.systems;
        let known = systems.iter().find(|system| system.id == grid.system);
        let title = known
            .and_then(|system| system.title.as_deref())
            .unwrap_or(grid.system);
        let version = known
            .and_then(|system| system.version.as_deref())
            .unwrap_or_default();
        let title = escape(format!("{title} {version}").trim());
        let _ = writeln!(self.out, "<h2>{title}{what}</h2>");
    }

    fn system(&mut self, number: usize, grid: &Grid<'_>) {
        self.heading(grid, ": requirements");
        for ((from, to), cell) in &grid.cells {
            let _ = writeln!(
                self.out,
                "<details open>\n<summary>{} → {}</summary>\n<div id=\"pair-{number}-{from}-{to}\" class=\"wide\">",
                role(&grid.initiators[*from]),
                role(&grid.responders[*to])
            );
            self.rows(&cell.rows);
            self.add("</div>\n</details>\n");
        }
        if !grid.unknown.is_empty() {
            self.add("<h3>Not in the matrix files given</h3>\n<div class=\"wide\">\n");
            self.rows(&grid.unknown);
            self.add("</div>\n");
        }
    }

    fn grid(&mut self, number: usize, grid: &Grid<'_>) {
        if grid.cells.is_empty() {
            self.add("<p>Which roles it is between is not known.</p>\n");
            return;
        }
        // A page is higher than wide, and most systems call more roles than they are called by.
        let transposed = grid.responders.len() > grid.initiators.len();
        let (down, across, corner) = if transposed {
            (&grid.responders, &grid.initiators, "answers ↓ opens →")
        } else {
            (&grid.initiators, &grid.responders, "opens ↓ answers →")
        };
        let _ = write!(
            self.out,
            "<div class=\"wide\">\n<table class=\"grid\">\n<thead><tr><th>{corner}</th>"
        );
        for head in across {
            let _ = write!(
                self.out,
                "<th scope=\"col\" class=\"to\"><span>{}</span></th>",
                role(head)
            );
        }
        self.add("</tr></thead>\n<tbody>\n");
        for (row, head) in down.iter().enumerate() {
            let _ = write!(self.out, "<tr><th scope=\"row\">{}</th>", role(head));
            for column in 0..across.len() {
                let (from, to) = if transposed {
                    (column, row)
                } else {
                    (row, column)
                };
                let cell = grid.cells.get(&(from, to));
                match cell.and_then(|cell| Some((cell, cell.worst()?))) {
                    Some((cell, worst)) => {
                        let _ = write!(
                            self.out,
                            "<td class=\"{}\"><a href=\"#pair-{number}-{from}-{to}\">{}</a></td>",
                            worst.state.name(),
                            counts(cell)
                        );
                    }
                    None => self.add("<td class=\"none\"></td>"),
                }
            }
            self.add("</tr>\n");
        }
        self.add("</tbody>\n</table>\n</div>\n");
    }

    fn rows(&mut self, rows: &[&Row]) {
        self.add("<table class=\"list rows\">\n<thead><tr><th>state</th><th>requirement</th><th>services</th><th>necessity</th><th>purpose</th><th>document</th></tr></thead>\n<tbody>\n");
        for row in rows {
            self.row(row);
        }
        self.add("</tbody>\n</table>\n");
    }

    fn row(&mut self, row: &Row) {
        let number = self.number(row);
        let anchor = if self.anchored.insert(number) {
            format!(" id=\"row-{number}\"")
        } else {
            String::new()
        };
        let says = row.says.as_ref();
        let mut reason = escape(&row.reason());
        let standing = row.standing();
        if !standing.is_empty() {
            if !reason.is_empty() {
                reason.push_str("; ");
            }
            reason.push_str(&escape(&standing));
        }
        if row.ticket.is_some() {
            let _ = write!(reason, " <a href=\"#ticket-{number}\">ticket</a>");
        }
        let necessity = says.map_or_else(String::new, |says| {
            let condition = says.condition.as_deref();
            let condition = condition.map(|text| format!(": {}", escape(text)));
            format!("{}{}", says.necessity, condition.unwrap_or_default())
        });
        let purpose = says.map_or_else(Vec::new, |says| {
            let application = says.application.as_ref().map(|text| format!("({text})"));
            [says.purpose.clone(), application]
                .into_iter()
                .flatten()
                .collect()
        });
        let document = says.map_or_else(Vec::new, |says| {
            let row = says.row.map(|row| format!("row {row}"));
            [says.section.clone(), row].into_iter().flatten().collect()
        });
        let mut services: Vec<String> = row.services.iter().map(service).collect();
        services.extend(row.seen.iter().map(|seen| {
            format!(
                "<div class=\"facts\"><code>{}</code> {}</div>",
                escape(&seen.service),
                escape(&seen.in_words())
            )
        }));
        let services = if services.is_empty() {
            "none named".to_owned()
        } else {
            services.concat()
        };
        let _ = writeln!(
            self.out,
            "<tr{anchor}><td>{}<div>{reason}</div></td><td><code>{}</code></td><td>{services}</td><td>{necessity}</td><td>{}</td><td>{}</td></tr>",
            badge(row.state),
            escape(&row.requirement),
            escape(&purpose.join(" ")),
            escape(&document.join(", ")),
        );
    }

    fn number(&self, row: &Row) -> usize {
        self.numbers
            .get(row.id.as_str())
            .copied()
            .unwrap_or_default()
    }

    /// A requirement's service with a link to its row, if it has one.
    fn link(&self, service: &str) -> String {
        let id = service.split('#').next().unwrap_or(service);
        let text = escape(service);
        match self.numbers.get(id) {
            Some(number) => format!("<a href=\"#row-{number}\"><code>{text}</code></a>"),
            None => format!("<code>{text}</code>"),
        }
    }
}

fn badge(state: State) -> String {
    format!(
        "<span class=\"state {0}\"><span class=\"letter\">{1}</span> {0}</span>",
        state.name(),
        letter(state)
    )
}

/// `B2 V3`: letters, so that the cell says the same in black and white.
fn counts(cell: &Cell<'_>) -> String {
    let texts: Vec<String> = cell
        .counts()
        .into_iter()
        .map(|(state, count)| {
            format!(
                "<span title=\"{}\"><span class=\"letter\">{}</span>{count}</span>",
                state.name(),
                letter(state)
            )
        })
        .collect();
    texts.join(" ")
}

fn role(role: &RoleName) -> String {
    escape(role.shown())
}

fn service(line: &ServiceLine) -> String {
    let cause = line.cause.as_deref().map(|cause| format!(" ({cause})"));
    let mut text = format!(
        "<div><code>{}</code> {}{}",
        escape(&line.service),
        escape(&line.state),
        escape(&cause.unwrap_or_default())
    );
    if line.flows > 0 {
        let _ = write!(
            text,
            ": {} flow(s), {} answered, {} failed",
            line.flows, line.answered, line.failed
        );
    }
    let seen = [
        ("since", &line.since),
        ("first", &line.first_seen),
        ("last", &line.last_seen),
    ];
    for (what, time) in seen {
        if let Some(time) = time {
            let _ = write!(text, "; {what} {}", escape(time));
        }
    }
    text.push_str("</div>");
    text
}
