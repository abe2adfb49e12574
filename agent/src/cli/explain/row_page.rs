//! What is known of a requirement, in words and as JSON: what the vendor asks, who that is at the site, what can be seen of it,
//! the state of each service and since when, how it failed last, and what would change that.
//!
//! As JSON it is one object; what whoever was asked can't know is null, and `seen` is null if nobody was asked:
//!
//! ```text
//! {"requirement":"system/requirement","system":{"id","title","version"},
//!  "says":{"from":{"id","title"},"to":{..},"direction","necessity","condition","application","purpose","section","row"},
//!  "doubts":[..],
//!  "roles":[{"role":"system/role","title","bound":[{"binding","by":"site|rule_pack"}]}],
//!  "seen":{"source":"capture|daemon|ledger","since","until","window_seconds"},
//!  "state","cause","place","confidence","since","ratio",
//!  "services":[{"service","vantage","state","cause","place","confidence","since","from","flows","answered","failed","ratio",
//!     "first_seen","last_seen","last_answer","last_failure":{"at","outcome","place","evidence"},"outlook"}],
//!  "failures":{"paths":[{"initiator","responder","service","outcome","flows"}],"evidence":[..],"first","last"},
//!  "ask","notes":[..]}
//! ```
//!
//! `vantage` is what can be seen of a service: `clear`, `lossy`, `name_never_resolved`, `name_does_not_resolve`, or the cause for
//! which it is unobservable; by the ledger if it knows, else by the files given. `from` is since when the window has it,
//! `ask` whom to ask for what if it fails.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::outlook::{Subject, outlook};
use super::requirement::{Facts, Kept, Row};
use super::seen::words;
use crate::cli::replay::Judged;
use crate::cli::snippet::visible;
use crate::export::requirement_line::{LastFailure, ServiceLine};
use crate::export::times;
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::{BuiltInRole, RoleRef, Service};
use crate::plural::counted;
use crate::report::model::{RoleName, Says};
use crate::report::ticket::{self, Path as FlowPath};
use crate::verdict::requirement::{Cause, Resolution, State, Vantage};

/// Bindings of a role that are told to people.
const MOST_BOUND: usize = 12;

/// A requirement with what is needed to put it into words.
pub(super) struct RowPage<'a> {
    pub(super) compiled: &'a Compiled,
    pub(super) site: &'a Path,
    pub(super) judged: &'a Judged,
    pub(super) row: Row<'a>,
    pub(super) facts: &'a Facts,
}

#[derive(Serialize)]
struct View<'a> {
    requirement: String,
    system: SystemView<'a>,
    says: Says,
    doubts: &'a [String],
    roles: Vec<RoleView>,
    seen: Option<SeenView<'a>>,
    state: Option<&'a str>,
    cause: Option<&'a str>,
    place: Option<&'a str>,
    confidence: Option<&'a str>,
    since: Option<&'a str>,
    ratio: Option<f64>,
    services: Vec<ServiceView<'a>>,
    failures: FailuresView<'a>,
    ask: Option<String>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct SystemView<'a> {
    id: &'a str,
    title: &'a str,
    version: Option<&'a str>,
}

#[derive(Serialize)]
struct RoleView {
    role: String,
    title: Option<String>,
    bound: Vec<BoundView>,
    #[serde(skip)]
    words: String,
}

#[derive(Serialize)]
struct BoundView {
    binding: String,
    by: &'static str,
}

#[derive(Serialize)]
struct SeenView<'a> {
    source: &'static str,
    since: Option<&'a str>,
    until: Option<&'a str>,
    window_seconds: Option<u64>,
}

#[derive(Serialize)]
struct ServiceView<'a> {
    service: String,
    vantage: &'static str,
    state: Option<&'a str>,
    cause: Option<&'a str>,
    place: Option<&'a str>,
    confidence: Option<&'a str>,
    since: Option<&'a str>,
    from: Option<&'a str>,
    flows: Option<u64>,
    answered: Option<u64>,
    failed: Option<u64>,
    ratio: Option<f64>,
    first_seen: Option<&'a str>,
    last_seen: Option<&'a str>,
    last_answer: Option<&'a str>,
    last_failure: Option<&'a LastFailure>,
    outlook: Option<String>,
    #[serde(skip)]
    seen_as: &'static str,
}

#[derive(Serialize)]
struct FailuresView<'a> {
    paths: &'a [FlowPath],
    evidence: &'a [String],
    first: Option<&'a str>,
    last: Option<&'a str>,
}

impl RowPage<'_> {
    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        crate::cli::line(&self.view(), out)
    }

    fn view(&self) -> View<'_> {
        let Row {
            system,
            requirement,
            ..
        } = self.row;
        let facts = self.facts;
        let line = facts.line.as_ref();
        let failures = &facts.failures;
        View {
            requirement: self.row.id(),
            system: SystemView {
                id: system.id.as_str(),
                title: &system.title,
                version: system.version.as_deref(),
            },
            says: Says::new(system, requirement),
            doubts: &requirement.doubts,
            roles: self.roles(),
            seen: facts.source.as_ref().map(|source| SeenView {
                source: source.name(),
                since: facts.since.as_deref(),
                until: facts.until.as_deref(),
                window_seconds: facts.window.map(|window| window / 1_000_000_000),
            }),
            state: line.map(|line| line.state.as_str()),
            cause: line.and_then(|line| line.cause.as_deref()),
            place: line.and_then(|line| line.place.as_deref()),
            confidence: line.and_then(|line| line.confidence.as_deref()),
            since: line.and_then(|line| line.since.as_deref()),
            ratio: line.and_then(|line| line.ratio),
            services: self
                .row
                .services()
                .map(|service| self.service(service))
                .collect(),
            failures: FailuresView {
                paths: &failures.paths,
                evidence: &failures.evidence,
                first: failures.first.as_deref(),
                last: failures.last.as_deref(),
            },
            ask: self.ask(),
            notes: &facts.notes,
        }
    }

    fn ask(&self) -> Option<String> {
        let line = self.facts.line.as_ref()?;
        let fails = [State::Blocked, State::Degraded].map(State::name);
        fails
            .contains(&line.state.as_str())
            .then(|| ticket::ask(line.cause.as_deref(), line.place.as_deref()))
    }

    fn service(&self, service: Service) -> ServiceView<'_> {
        let text = service.to_string();
        let lines = self.facts.line.iter().flat_map(|line| &line.services);
        let line: Option<&ServiceLine> = lines.into_iter().find(|line| line.service == text);
        let kept: Option<&Kept> = self.facts.kept.get(&text);
        let vantage = kept.and_then(|kept| kept.vantage).unwrap_or_else(|| {
            self.judged
                .vantage(self.row.index, self.row.requirement, service)
        });
        let state = line.and_then(|line| State::of_name(&line.state));
        let cause = line.and_then(|line| line.cause.as_deref());
        let window = self.facts.window.map(times::duration);
        let flow = self.flow(service);
        // A capture and a daemon know place and confidence of the row alone.
        let row = self.facts.line.as_ref().filter(|row| {
            self.facts.kept.is_empty() && line.is_some_and(|line| line.state == row.state)
        });
        ServiceView {
            vantage: vantage.name(),
            seen_as: seen_as(vantage, self.facts.source.is_some()),
            state: line.map(|line| line.state.as_str()),
            cause,
            place: kept
                .and_then(|kept| kept.place.as_deref())
                .or_else(|| row.and_then(|row| row.place.as_deref())),
            confidence: kept
                .and_then(|kept| kept.confidence)
                .or_else(|| row.and_then(|row| row.confidence.as_deref())),
            since: line.and_then(|line| line.since.as_deref()),
            from: kept.map(|kept| kept.from.as_str()),
            flows: line.map(|line| line.flows),
            answered: line.map(|line| line.answered),
            failed: line.map(|line| line.failed),
            ratio: kept.and_then(|kept| kept.ratio),
            first_seen: line.and_then(|line| line.first_seen.as_deref()),
            last_seen: line.and_then(|line| line.last_seen.as_deref()),
            last_answer: kept.and_then(|kept| kept.last_answer.as_deref()),
            last_failure: line.and_then(|line| line.last_failure.as_ref()),
            outlook: state.map(|state| {
                outlook(Subject {
                    state,
                    cause,
                    flow: &flow,
                    unanswerable: self.judged.is_unanswerable(
                        self.row.index,
                        self.row.requirement,
                        service,
                    ),
                    window: window.as_deref(),
                    necessity: &self.row.requirement.necessity,
                })
            }),
            service: text,
        }
    }

    /// ``a flow from `client` to `server` on tcp/443``
    fn flow(&self, service: Service) -> String {
        let mut ways = self.row.requirement.initiations();
        let ends = ways.next().map_or_else(String::new, |(from, to)| {
            format!(
                " from `{}` to `{}`",
                self.row.system.role_id(from),
                self.row.system.role_id(to)
            )
        });
        let either = if ways.next().is_some() {
            ", or back,"
        } else {
            ""
        };
        format!("a flow{ends}{either} on {service}")
    }

    fn roles(&self) -> Vec<RoleView> {
        let mut roles = vec![self.row.requirement.from, self.row.requirement.to];
        roles.dedup();
        roles.into_iter().map(|role| self.role(role)).collect()
    }

    fn role(&self, role: RoleRef) -> RoleView {
        let system = self.row.system;
        let id = system.role_id(role);
        let RoleRef::Declared(index) = role else {
            let what = match role {
                RoleRef::BuiltIn(BuiltInRole::Localhost) => "the host itself, over loopback",
                RoleRef::BuiltIn(BuiltInRole::Broadcast) => {
                    "255.255.255.255 and the directed broadcast of any bound prefix"
                }
                RoleRef::BuiltIn(BuiltInRole::Any) => "every address",
                RoleRef::BuiltIn(BuiltInRole::Unknown) | RoleRef::Declared(_) => {
                    "an end that the document does not name"
                }
            };
            return RoleView {
                role: format!("{}/{id}", system.id),
                title: None,
                bound: Vec::new(),
                words: format!("`{id}` is {what}"),
            };
        };
        let declared = system.role(index);
        let wanted = BoundRole {
            system: self.row.index,
            role,
        };
        let bindings = self
            .compiled
            .bindings
            .iter()
            .filter(|(role, _)| *role == wanted)
            .flat_map(|(_, bindings)| bindings);
        let bound: Vec<BoundView> = bindings
            .map(|binding| BoundView {
                binding: binding.to_string(),
                by: if declared.names.contains(binding) {
                    "rule_pack"
                } else {
                    "site"
                },
            })
            .collect();
        let title = declared.title.as_deref();
        let shown = title.map_or_else(String::new, |title| format!(" ({title})"));
        RoleView {
            words: format!("`{id}`{shown} {}", self.bound(&bound)),
            role: format!("{}/{id}", system.id),
            title: title.map(ToOwned::to_owned),
            bound,
        }
    }

    fn bound(&self, bound: &[BoundView]) -> String {
        let site = self.site.display();
        if bound.is_empty() {
            return format!("is bound to nothing: bind it in {site}");
        }
        let mut texts = Vec::new();
        for (by, who) in [
            ("site", site.to_string()),
            ("rule_pack", "the rule pack".to_owned()),
        ] {
            let list: Vec<&str> = bound
                .iter()
                .filter(|bound| bound.by == by)
                .map(|bound| bound.binding.as_str())
                .collect();
            let more = list.len().saturating_sub(MOST_BOUND);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            if !list.is_empty() {
                let some = &list[..list.len().min(MOST_BOUND)];
                texts.push(format!("{}{more} by {who}", some.join(", ")));
            }
        }
        format!("is {}", texts.join("; "))
    }

    pub(super) fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let view = self.view();
        let mut line = |text: &str| writeln!(out, "{}", visible(text));
        let only = self.row.only.map(|service| format!("#{service}"));
        let only = only.unwrap_or_default();
        match (&self.facts.source, view.state) {
            (None, _) => line(&format!("{}{only}", view.requirement))?,
            (Some(source), None) => line(&format!(
                "{}{only}: not known {}",
                view.requirement,
                source.place()
            ))?,
            (Some(source), Some(state)) => {
                let standing = standing(
                    state,
                    [view.cause, view.place, view.confidence],
                    view.ratio,
                    view.since,
                );
                line(&format!("{}: {standing}", view.requirement))?;
                let window = self.facts.window.map(times::duration);
                let over = match (&window, &view.seen) {
                    (Some(window), _) => format!(", over {window}"),
                    (None, _) => String::new(),
                };
                let until = self.facts.until.as_deref();
                let until = until.map_or_else(String::new, |until| format!(", up to {until}"));
                line(&format!("    {}{over}{until}", source.place()))?;
            }
        }
        self.says(&view, &mut line)?;
        for role in &view.roles {
            line(&role.words)?;
        }
        if view.services.is_empty() {
            line("no service: the document names no port, so that no flow can be told to be its")?;
        }
        for service in &view.services {
            service.text(&mut line)?;
        }
        for path in view.failures.paths {
            line(&format!(
                "failed: {} -> {} {}: {} {}",
                path.initiator,
                path.responder,
                path.service,
                path.flows,
                words(&path.outcome)
            ))?;
        }
        // Of a ledger it is told with the last failure of each service.
        let told = !self.facts.kept.is_empty();
        for evidence in view.failures.evidence.iter().filter(|_| !told) {
            line(&format!("    {evidence}"))?;
        }
        if let Some(ask) = &view.ask {
            line(&format!("ask: {ask}"))?;
        }
        for note in view.notes {
            line(&format!("note: {note}"))?;
        }
        if self.facts.source.is_none() {
            line(
                "what was seen of it was not asked for: --capture FILE looks into captures, --ledger into what a daemon wrote \
                 down, --daemon asks a running daemon",
            )?;
        }
        Ok(())
    }

    /// What the vendor asks.
    fn says(
        &self,
        view: &View<'_>,
        line: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        let says = &view.says;
        let version = view.system.version.map(|version| format!(" {version}"));
        let place = match (&says.section, says.row) {
            (Some(section), Some(row)) => format!(", section {section}, row {row}"),
            (Some(section), None) => format!(", section {section}"),
            (None, _) => String::new(),
        };
        let role = |role: &RoleName| format!("`{}`", role.id);
        let services: Vec<String> = self
            .row
            .requirement
            .services
            .iter()
            .map(ToString::to_string)
            .collect();
        let services = if services.is_empty() {
            "no port named".to_owned()
        } else {
            services.join(", ")
        };
        line(&format!(
            "{}{}{place} asks: {} to {}, {}, {}: {services}",
            view.system.title,
            version.unwrap_or_default(),
            role(&says.from),
            role(&says.to),
            says.direction,
            says.necessity,
        ))?;
        for (what, text) in [
            ("condition", &says.condition),
            ("application", &says.application),
            ("purpose", &says.purpose),
        ] {
            if let Some(text) = text {
                line(&format!("    {what}: {text}"))?;
            }
        }
        for doubt in view.doubts {
            line(&format!("    doubt: {doubt}"))?;
        }
        Ok(())
    }
}

impl ServiceView<'_> {
    fn text(&self, line: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        let Some(state) = self.state else {
            return line(&format!("{}: {}", self.service, self.seen_as));
        };
        let standing = standing(
            state,
            [self.cause, self.place, self.confidence],
            self.ratio,
            self.since,
        );
        line(&format!("{}: {standing}", self.service))?;
        line(&format!("    {}", self.seen_as))?;
        if let (Some(flows), Some(answered), Some(failed)) =
            (self.flows, self.answered, self.failed)
            && flows > 0
        {
            let from = self.from.map(|from| format!(", since {from}"));
            line(&format!(
                "    {}, {answered} answered, {failed} failed{}",
                counted(flows, "flow"),
                from.unwrap_or_default()
            ))?;
        } else if let Some(from) = self.from {
            line(&format!("    no flow since {from}"))?;
        }
        if let Some(failure) = self.last_failure {
            let place = failure.place.as_ref().map(|place| format!(" at {place}"));
            let evidence = if failure.evidence.is_empty() {
                String::new()
            } else {
                format!(": {}", failure.evidence)
            };
            line(&format!(
                "    failed last at {}: {}{}{evidence}",
                failure.at,
                words(&failure.outcome),
                place.unwrap_or_default()
            ))?;
        }
        if let Some(time) = self.last_answer {
            line(&format!("    answered last at {time}"))?;
        }
        let seen: Vec<String> = [("first", self.first_seen), ("last", self.last_seen)]
            .into_iter()
            .filter_map(|(what, time)| Some(format!("{what} seen at {}", time?)))
            .collect();
        if !seen.is_empty() {
            line(&format!("    {}", seen.join(", ")))?;
        }
        if let Some(outlook) = &self.outlook {
            line(&format!("    {outlook}"))?;
        }
        Ok(())
    }
}

/// `degraded (no answer, at path, medium confidence), 50 % answered, since ...`
fn standing(
    state: &str,
    [cause, place, confidence]: [Option<&str>; 3],
    ratio: Option<f64>,
    since: Option<&str>,
) -> String {
    let parts: Vec<String> = [
        cause.map(words),
        place.map(|place| format!("at {}", words(place))),
        confidence.map(|confidence| format!("{confidence} confidence")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut text = state.to_owned();
    if !parts.is_empty() {
        text.push_str(&format!(" ({})", parts.join(", ")));
    }
    if let Some(ratio) = ratio {
        text.push_str(&format!(", {:.0} % answered", ratio * 100.0));
    }
    if let Some(since) = since {
        text.push_str(&format!(", since {since}"));
    }
    text
}

/// What can be seen, in words. What was asked of names is only known to whoever watched.
fn seen_as(vantage: Vantage, watched: bool) -> &'static str {
    match vantage {
        Vantage::Clear | Vantage::Unresolved(Resolution::Resolved) => "can be seen from here",
        Vantage::Lossy => "can be seen from here, but something is being lost",
        Vantage::Unresolved(_) if !watched => "can be seen from here once its name is resolved",
        Vantage::Unresolved(Resolution::Never) => {
            "could be seen from here, but nobody asked for its name"
        }
        Vantage::Unresolved(Resolution::Failing) => {
            "could be seen from here, but its name does not resolve"
        }
        Vantage::Blind(why) => match Cause::Blind(why).name() {
            "role_not_bound" => "can't be seen: a role is bound to nothing",
            "role_unknown" => "can't be seen: the document does not name an end",
            "no_services" => "can't be seen: the document names no port",
            "other_host" => "can't be seen from here: it stays on another host",
            "not_captured_here" => {
                "can't be seen from here: both ends are outside of what the site observes"
            }
            _ => "can't be seen: it is upkeep of the link, which is never judged",
        },
    }
}
