//! `flowproof explain`: what the matrix says of one flow and why, and what was seen of it, for whoever wonders about a line
//! of a firewall's log; or of one requirement, what is known of it and what would change that, for whoever has to make it work.

pub(super) mod daemon;
mod ledger;
mod outlook;
mod page;
mod question;
mod requirement;
mod row_page;
mod seen;

use std::path::PathBuf;
use std::sync::Arc;

use flowproof_common::classify::Verdict;

use super::replay::Judged;
use super::tags::TagArguments;
use super::{Error, Format, Outcome, print};
use crate::capture::file::open_all;
use page::Page;
use question::{Question, parse};
use requirement::RowId;
use seen::{Look, Seen};

pub(super) use daemon::AskError;

/// Arguments of `flowproof explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 fine; 1 the flow is unexpected, somebody should look after the requirement, or the matrix is \
                  not valid; 2 usage or environment error."
)]
pub(super) struct Arguments {
    /// Matrix files, or folders of them (*.yaml, *.yml)
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    matrix: Vec<PathBuf>,
    /// The site file that says which systems are deployed and what their roles are bound to
    #[arg(long, value_name = "FILE")]
    site: PathBuf,
    #[command(flatten)]
    tags: TagArguments,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    look: Look,
    /// Explain this requirement in place of a flow: `system/requirement`, or `system/requirement#tcp/443` for one service
    #[arg(long, value_name = "ID", conflicts_with = "flow")]
    requirement: Option<String>,
    /// The arrow between the ends, which may be left out
    #[arg(short = '>', hide = true)]
    arrow: bool,
    /// Who opens the conversation, and with whom: `10.20.3.4 10.1.0.10:8443/tcp`,
    /// `'2001:db8::4 -> [2001:db8::10]:53/udp'`, `10.20.3.4 10.1.0.10/icmp`, `10.20.3.4 login.example.com:443/tcp`.
    /// A DNS name stands for whatever address has it.
    /// Quote the arrow: the shell takes its point for a redirection. Put `--` before it after a list of files.
    /// The initiator's port only counts if it is given. The id of a requirement in its place explains that
    #[arg(required_unless_present = "requirement", num_args = 1..=3, value_name = "FLOW")]
    flow: Vec<String>,
}

/// Explains a flow or a requirement.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    if let Some(text) = &arguments.requirement {
        let id = RowId::parse(text).ok_or_else(|| {
            Error::Usage(format!(
                "`{text}` is no id of a requirement: write `system/requirement` or `system/requirement#tcp/443`"
            ))
        })?;
        return requirement::run(arguments, &id);
    }
    match parse(&arguments.flow) {
        Ok(question) => of_flow(arguments, &question),
        Err(error) => match requirement::in_place_of_flow(&arguments.flow, error) {
            Ok(id) => requirement::run(arguments, &id),
            Err(error) => Err(Error::Usage(error.to_string())),
        },
    }
}

/// Explains a flow. An unexpected one is [`Outcome::FallsShort`].
fn of_flow(arguments: &Arguments, question: &Question) -> Result<Outcome, Error> {
    let files = open_all(&arguments.look.capture)?;
    let tags = arguments.tags.options();
    let Some(mut judged) = Judged::read(&arguments.matrix, Some(&arguments.site), &tags)? else {
        return Ok(Outcome::FallsShort);
    };
    let compiled = Arc::clone(&judged.installed().compiled);
    let explanation = judged.explainer().explain(&question.asked, &question.names);
    let mut requirements: Vec<String> = explanation
        .requirements
        .iter()
        .map(|key| compiled.matrix.requirement_id(key.system, key.requirement))
        .collect();
    // A requirement may cover it by several services.
    requirements.dedup();
    let mut complaints = Vec::new();
    let seen = if let Some(url) = &arguments.look.daemon {
        let verdict = (!explanation.depends_on_name).then_some(explanation.verdict.name());
        Some(daemon::ask(
            (url, &arguments.look.access),
            question,
            verdict,
            &requirements,
        )?)
    } else if files.is_empty() {
        ledger::look(
            &arguments.look,
            &judged,
            question,
            &explanation,
            &requirements,
        )?
    } else {
        let (seen, incomplete) = Seen::in_files(files, &mut judged, question, &requirements)
            .map_err(|error| Error::Usage(error.to_string()))?;
        complaints = incomplete;
        Some(seen)
    };
    let page = Page {
        compiled: &compiled,
        site: &arguments.site,
        tags: judged.tags(),
        asked: &question.asked,
        explanation: &explanation,
        seen: seen.as_ref(),
    };
    print(|out| match arguments.format {
        Format::Text => page.text(out),
        Format::Json => page.json(out),
    })?;
    if !complaints.is_empty() {
        return Err(Error::Partly(complaints));
    }
    Ok(match explanation.verdict {
        Verdict::Unexpected => Outcome::FallsShort,
        Verdict::Expected | Verdict::Unscoped => Outcome::Fine,
    })
}
