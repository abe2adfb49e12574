//! `flowproof probe`: tries the requirements that traffic has not verified yet, from this host.

mod standing;
mod text;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::daemon_access::DaemonAccess;
use super::explain::daemon::DEFAULT_URL;
use super::replay::Judged;
use super::tags::TagArguments;
use super::{Error, Format, Outcome, line, print};
use crate::capture::interfaces::own_addresses;
use crate::config::{STATE_DIRECTORY, parse_duration, parse_resolver};
use crate::export::probe_line::{Counts, PlanLine, PlannedLine, SummaryLine};
use crate::matrix::compiled::BoundRole;
use crate::matrix::{Binding, RoleRef};
use crate::probe::io::{self as probing, ProbeError, Run, Settings, namespace};
use crate::probe::plan::{End, Plan, PlannedRow, Target, Wanted, plan};
use crate::probe::result::{Row, not_probed_lines, range, rows};
use crate::probe::tried;
use crate::verdict::requirement::State;
use flowproof_common::state::Outcome as FlowOutcome;

/// Fastest rate, probes a second: as fast as a small network bears.
const MOST_RATE: u32 = 1_000;
/// Longest and shortest time for a probe. Below, the kernel has no time to repeat a SYN.
const LONGEST: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(100);

/// Arguments of `flowproof probe`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit codes: 0 fine; 1 something that --fail-on names was found, or the matrix is not valid; 2 usage or \
                  environment error, or interrupted.\n\n\
                  Only rows that this host initiates are probed, at single addresses and names without wildcards that the \
                  site or the pack binds to the responder's role. Nothing is ever sent anywhere else, but to the resolver."
)]
pub(super) struct Arguments {
    /// Matrix files, or folders of them (*.yaml, *.yml)
    #[arg(long, required = true, value_name = "PATH", num_args = 1..)]
    matrix: Vec<PathBuf>,
    /// What binds the matrix' roles to addresses
    #[arg(long, value_name = "FILE")]
    site: PathBuf,
    #[command(flatten)]
    tags: TagArguments,
    /// Probe from this address of the host
    #[arg(long, value_name = "ADDRESS", conflicts_with = "role")]
    from: Option<IpAddr>,
    /// Probe as this role: only what it initiates
    #[arg(long, value_name = "SYSTEM/ROLE")]
    role: Option<String>,
    /// Probe from this network namespace: a name of `ip netns`, or a path such as /proc/PID/ns/net
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Leave out the rows that this daemon has verified
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEFAULT_URL,
        conflicts_with = "ledger"
    )]
    daemon: Option<String>,
    #[command(flatten)]
    access: DaemonAccess,
    /// Leave out the rows that are verified by a ledger, named by its file or by the daemon's state directory [default:
    /// /var/lib/flowproof]
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        default_missing_value = STATE_DIRECTORY
    )]
    ledger: Option<PathBuf>,
    /// Probe all rows; the same as naming neither a daemon nor a ledger
    #[arg(long, conflicts_with_all = ["daemon", "ledger", "requirement"])]
    all: bool,
    /// Probe this row, verified or not (`system/requirement`); repeatable
    #[arg(long, value_name = "ID")]
    requirement: Vec<String>,
    /// Probes a second, over all; one target never has more than one at a time
    #[arg(long, value_name = "N/s", default_value = "10/s", value_parser = parse_rate)]
    rate: u32,
    /// How long a probe may take; SYNs are repeated after 1 s and 3 s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Ask this resolver for names in place of the host's own; repeatable
    #[arg(long, value_name = "ADDRESS", value_parser = parse_resolver)]
    resolver: Vec<SocketAddr>,
    /// Print who would be asked for what, and send nothing, not even to a resolver
    #[arg(long)]
    dry_run: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// End with exit code 1 if there is any of these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    fail_on: Vec<FailOn>,
}

/// What is to be taken for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// A requirement that nobody answered for
    Blocked,
    /// A requirement that one end answered for and another did not
    Degraded,
    /// A required requirement that was tried, and of which nobody can tell
    Unknown,
}

/// Why a text is no rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate: write a whole number from 1 to {MOST_RATE} a second, such as `10/s`")]
struct RateError(String);

fn parse_rate(text: &str) -> Result<u32, RateError> {
    text.strip_suffix("/s")
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|rate| (1..=MOST_RATE).contains(rate))
        .ok_or_else(|| RateError(text.to_owned()))
}

fn parse_timeout(text: &str) -> Result<Duration, crate::config::DurationError> {
    parse_duration(text, SHORTEST..=LONGEST)
}

/// What is printed at the end.
struct Found {
    plan: Plan,
    rows: Vec<Row>,
    summary: SummaryLine,
}

/// Makes a plan and, unless it is only to be shown, the probes.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let tags = arguments.tags.options();
    let Some(judged) = Judged::read(&arguments.matrix, Some(&arguments.site), &tags)? else {
        return Ok(Outcome::FallsShort);
    };
    let role = arguments
        .role
        .as_deref()
        .map(|text| find_role(&judged, text))
        .transpose()?;
    // Whom we ask what is known already is on this side of the namespace.
    let wanted = wanted(arguments, &judged)?;
    let file = arguments.netns.as_deref().map(namespace::path);
    let found = namespace::inside(file.as_deref(), || {
        let addresses = own_addresses()?;
        let end = end(arguments, &judged, role, addresses)?;
        let plan = plan(judged.installed(), &end, &wanted);
        if arguments.dry_run {
            return Ok(planned(plan));
        }
        probed(arguments, plan, &end)
    })??;
    print(|out| match arguments.format {
        Format::Json => found.write_json(out),
        Format::Text => text::write(&found, out),
    })?;
    if found.summary.interrupted {
        return Err(Error::Interrupted);
    }
    Ok(if arguments.fail_on.iter().any(|what| found.has(*what)) {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

fn find_role(judged: &Judged, text: &str) -> Result<BoundRole, Error> {
    let unknown = || {
        Error::Usage(format!(
            "--role {text}: the site deploys no such role; write `system/role` as in the site file"
        ))
    };
    let (system, role) = text.split_once('/').ok_or_else(unknown)?;
    let matrix = judged.matrix();
    let system = matrix.find_system(system).ok_or_else(unknown)?;
    let role = matrix.system(system).find_role(role).ok_or_else(unknown)?;
    let role = BoundRole {
        system,
        role: RoleRef::Declared(role),
    };
    let compiled = &judged.installed().compiled;
    if !compiled.bindings.iter().any(|(bound, _)| *bound == role) {
        return Err(unknown());
    }
    Ok(role)
}

fn wanted(arguments: &Arguments, judged: &Judged) -> Result<Wanted, Error> {
    let matrix = judged.matrix();
    for id in &arguments.requirement {
        let known = matrix.indexed_systems().any(|(system, content)| {
            content
                .indexed_requirements()
                .any(|(index, _)| matrix.requirement_id(system, index) == *id)
        });
        if !known {
            return Err(Error::Usage(format!(
                "--requirement {id}: the matrix has no such requirement; write `system/requirement`, as `flowproof check` lists them"
            )));
        }
    }
    let verified = if !arguments.requirement.is_empty() || arguments.all {
        Default::default()
    } else if let Some(url) = &arguments.daemon {
        standing::of_daemon(url, &arguments.access)?
    } else if let Some(path) = &arguments.ledger {
        standing::of_ledger(path, matrix)?
    } else {
        Default::default()
    };
    Ok(Wanted {
        named: arguments.requirement.iter().cloned().collect(),
        verified,
    })
}

/// This host as an end, if the arguments fit it.
fn end(
    arguments: &Arguments,
    judged: &Judged,
    role: Option<BoundRole>,
    addresses: Vec<IpAddr>,
) -> Result<End, Error> {
    let listed = || {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        texts.join(", ")
    };
    if let Some(from) = arguments.from
        && !addresses.contains(&from.to_canonical())
        && !from.is_loopback()
    {
        return Err(Error::Usage(format!(
            "--from {from}: not an address of this host; it has {}",
            listed()
        )));
    }
    let mut from_role = addresses.clone();
    if let Some(role) = role {
        let bindings = &judged.installed().compiled.bindings;
        // A role that is bound by names alone says nothing about addresses here: the operator knows.
        let is_by_address = bindings
            .iter()
            .filter(|(bound, _)| *bound == role)
            .flat_map(|(_, bindings)| bindings)
            .any(|binding| matches!(binding, Binding::Prefix(_)));
        if is_by_address {
            from_role.retain(|address| {
                judged
                    .installed()
                    .roles_of(&(*address).into())
                    .contains(&role)
            });
        }
        if from_role.is_empty() {
            return Err(Error::Usage(format!(
                "--role {}: this host has no address that the site binds to it; it has {}",
                arguments.role.as_deref().unwrap_or_default(),
                listed()
            )));
        }
    }
    Ok(End {
        addresses: from_role,
        from: arguments.from,
        role,
    })
}

fn planned(plan: Plan) -> Found {
    let probes = plan.attempts().count();
    let summary = SummaryLine {
        dry_run: true,
        interrupted: false,
        probes,
        names: plan.names().len(),
        verified_before: plan.verified,
        by_outcome: Counts::new(),
        by_state: Counts::new(),
        seconds: 0.0,
    };
    Found {
        plan,
        rows: Vec::new(),
        summary,
    }
}

fn probed(arguments: &Arguments, mut plan: Plan, end: &End) -> Result<Found, Error> {
    let attempts = plan.attempts().count();
    if attempts > crate::probe::plan::MOST_PROBES {
        return Err(ProbeError::TooMany(attempts).into());
    }
    let settings = Settings {
        rate: arguments.rate,
        timeout: arguments.timeout,
        resolvers: arguments.resolver.clone(),
        resolv_conf: arguments.netns.as_deref().and_then(namespace::resolv_conf),
    };
    let Run {
        ended,
        span,
        names,
        interrupted,
    } = probing::run(&mut plan, &settings, &end.addresses)?;
    let rows = rows(&plan, &ended, span);
    let outcomes = ended.iter().map(|ended| ended.judged.outcome.name());
    let summary = SummaryLine {
        dry_run: false,
        interrupted,
        probes: ended.len(),
        names,
        verified_before: plan.verified,
        by_outcome: counts(FlowOutcome::ALL.map(FlowOutcome::name), outcomes),
        by_state: counts(
            State::ALL.map(State::name),
            rows.iter().map(|row| row.state.name()),
        ),
        seconds: Duration::from_nanos(span[1].saturating_sub(span[0])).as_secs_f64(),
    };
    Ok(Found {
        plan,
        rows,
        summary,
    })
}

/// Counts by name, every name included, in the order of the documentation.
fn counts(
    names: impl IntoIterator<Item = &'static str>,
    seen: impl Iterator<Item = &'static str>,
) -> Counts {
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for name in seen {
        *by_name.entry(name).or_default() += 1;
    }
    names
        .into_iter()
        .map(|name| {
            let count = by_name.get(name).copied().unwrap_or_default();
            (name.to_owned(), count.into())
        })
        .collect()
}

impl Found {
    fn has(&self, what: FailOn) -> bool {
        let mut states = self.rows.iter().map(|row| (row.state, row.required));
        match what {
            FailOn::Blocked => states.any(|(state, _)| state == State::Blocked),
            FailOn::Degraded => states.any(|(state, _)| state == State::Degraded),
            FailOn::Unknown => states.any(|row| row == (State::Unknown, true)),
        }
    }

    fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.summary.dry_run {
            for row in &self.plan.rows {
                line(&plan_line(row), out)?;
            }
        }
        for row in &self.rows {
            line(&row.line, out)?;
        }
        line(&self.summary, out)
    }
}

fn plan_line(row: &PlannedRow) -> PlanLine {
    let mut line = PlanLine {
        id: row.id.clone(),
        probes: Vec::new(),
        not_probed: Vec::new(),
        ranges: Vec::new(),
    };
    for service in &row.services {
        for attempt in &service.attempts {
            let (target, name, sources) = match &attempt.target {
                Target::Address(address) => (Some(address.to_string()), None, Some(*address)),
                Target::Name(name) => (None, Some(name.to_string()), None),
            };
            line.probes.push(PlannedLine {
                service: tried(service.service, attempt.port),
                initiators: attempt
                    .sources
                    .iter()
                    .filter(|source| {
                        sources.is_none_or(|target| target.is_ipv4() == source.is_ipv4())
                    })
                    .map(ToString::to_string)
                    .collect(),
                target,
                name,
                question: attempt.question.name().to_owned(),
            });
        }
        line.not_probed.extend(not_probed_lines(service));
        line.ranges
            .extend(range(service, !service.attempts.is_empty()));
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(flags: &str) -> Result<Arguments, String> {
        let always = "probe --matrix m.yaml --site s.yaml";
        Line::try_parse_from(always.split(' ').chain(flags.split_whitespace()))
            .map(|line| line.arguments)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn reads_rates() {
        assert_eq!(parse_rate("10/s"), Ok(10));
        assert_eq!(parse_rate("1"), Ok(1));
        for text in ["0/s", "1001/s", "10/m", "", "-1/s", "1.5/s"] {
            let message = parse_rate(text).unwrap_err().to_string();
            assert!(message.contains("10/s"), "{message}");
        }
    }

    #[test]
    fn the_defaults_are_gentle() {
        let arguments = parse("").unwrap();
        assert_eq!(
            (arguments.rate, arguments.timeout),
            (10, Duration::from_secs(5))
        );
        assert!(!arguments.dry_run);
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for flags in [
            "--from 10.0.0.1 --role a/b",
            "--daemon --ledger l.sqlite",
            "--all --daemon",
            "--all --requirement a/b",
            "--timeout 1ms",
            "--fail-on silent",
        ] {
            assert!(parse(flags).is_err(), "{flags}");
        }
        let arguments = parse("--daemon --requirement a/b --requirement a/c").unwrap();
        assert_eq!(arguments.daemon.as_deref(), Some(DEFAULT_URL));
        assert_eq!(arguments.requirement, ["a/b", "a/c"]);
        let ledger = |flags| parse(flags).unwrap().ledger;
        assert_eq!(ledger(""), None);
        assert_eq!(ledger("--ledger --dry-run"), Some(STATE_DIRECTORY.into()));
        assert_eq!(ledger("--ledger state"), Some("state".into()));
    }
}
